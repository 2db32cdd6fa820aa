"""Keywords of dask-cloudprovider."""

from __future__ import annotations

import doctest
import inspect
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import compat
from cloudprovider.compat import SHARED, TABLES, translated_options
from cloudprovider.errors import ConfigError

#: The keywords of ECSCluster and of SpecCluster in dask-cloudprovider 2025.9.0, without those that are the same here.
INCUMBENT = [
    "fargate_scheduler",
    "fargate_workers",
    "fargate_spot",
    "cpu_architecture",
    "scheduler_mem",
    "scheduler_port",
    "scheduler_extra_args",
    "scheduler_task_definition_arn",
    "scheduler_task_kwargs",
    "scheduler_address",
    "worker_mem",
    "worker_gpu",
    "worker_extra_args",
    "worker_task_definition_arn",
    "worker_task_kwargs",
    "workers_name_start",
    "workers_name_step",
    "cluster_arn",
    "cluster_name_template",
    "execution_role_arn",
    "task_role_arn",
    "task_role_policies",
    "cloudwatch_logs_group",
    "cloudwatch_logs_stream_prefix",
    "cloudwatch_logs_default_retention",
    "skip_cleanup",
    "aws_access_key_id",
    "aws_secret_access_key",
    "region_name",
    "platform_version",
    "fargate_use_private_ip",
    "mount_points",
    "volumes",
    "mount_volumes_on_scheduler",
    "silence_logs",
    "scheduler_sync_interval",
    "shutdown_scheduler",
]
#: Those of one cloud that mean the same here.
ALIKE = {"fargate": [], "ecs": ["worker_gpu"]}
#: Those that mean the same here, on every cloud.
SAME = [
    "image",
    "environment",
    "tags",
    "n_workers",
    "subnets",
    "security_groups",
    "vpc",
    "worker_nthreads",
    "scheduler_cpu",
    "worker_cpu",
    "scheduler_timeout",
    "security",
    "name",
    "shutdown_on_close",
]


def quietly(cloud, **options):
    """The translation, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return translated_options(cloud, options)


def our_options(cloud):
    """The names of a cloud's options."""
    from cloudprovider import discovery

    return set(inspect.signature(discovery.cluster_class(cloud).config_class).parameters)


@pytest.mark.parametrize("cloud", ["fargate", "ecs"])
def test_every_keyword_has_a_rule(cloud):
    """Whoever changes the import line meets no unknown keyword."""
    ours = our_options(cloud)
    assert set(TABLES[cloud]) <= set(INCUMBENT)
    assert set(INCUMBENT) - set(TABLES[cloud]) <= ours  # the same name, and where not the same meaning a rule
    assert set(INCUMBENT) & ours <= {*SHARED, *ALIKE[cloud]}
    assert {*SAME, *ALIKE[cloud]} <= ours
    assert not set(TABLES[cloud]) & ours


@pytest.mark.parametrize("cloud", TABLES)
def test_every_translation_is_an_option(cloud):
    """The table does not name what is not there."""
    for name, rule in TABLES[cloud].items():
        value = ["echo"] if name == "extra_bootstrap" else 1024
        assert rule.refuse or set(rule.into(value)) <= our_options(cloud)


#: The keywords of EC2Cluster and of VMCluster in dask-cloudprovider 2025.9.0.
MACHINES = [
    "ami", "auto_shutdown", "availability_zone", "bootstrap", "debug", "docker_args", "docker_image",
    "enable_detailed_monitoring", "env_vars", "extra_bootstrap", "filesystem_size", "iam_instance_profile",
    "instance_tags", "instance_type", "key_name", "n_workers", "protocol", "region", "scheduler_instance_type",
    "scheduler_options", "security", "security_groups", "silence_logs", "spot", "subnet_id", "use_private_ip",
    "volume_tags", "vpc", "worker_class", "worker_instance_type", "worker_module", "worker_options",
]  # fmt: skip


def test_every_keyword_of_machines_has_a_rule():
    """Whoever changes the import line of EC2Cluster meets no unknown keyword."""
    ours = our_options("ec2")
    assert set(TABLES["ec2"]) <= set(MACHINES)
    assert set(MACHINES) - set(TABLES["ec2"]) <= ours
    assert not set(TABLES["ec2"]) & ours


def test_a_typical_call_of_machines():
    """A cluster on EC2 of dask-cloudprovider's documentation starts after its import line has changed."""
    theirs = {
        "docker_image": "rapidsai/base:1",
        "instance_type": "g4dn.xlarge",
        "worker_class": "dask_cuda.CUDAWorker",
        "bootstrap": False,
        "filesystem_size": 120,
        "env_vars": {"A": "1"},
        "availability_zone": "us-east-1a",
        "iam_instance_profile": {"Name": "mine"},
        "instance_tags": {"team": "a"},
        "volume_tags": {"team": "a"},
        "extra_bootstrap": ["echo hello"],
        "enable_detailed_monitoring": True,
        "n_workers": 2,
    }
    monitored = {"Monitoring": {"Enabled": True}}
    expected = {
        "image": "rapidsai/base:1",
        "instance_type": "g4dn.xlarge",
        "disk_size": 120,
        "environment": {"A": "1"},
        "zones": "us-east-1a",
        "role": "mine",
        "tags": {"team": "a"},
        "user_data": "#!/bin/sh\necho hello",
        "instance_args": monitored,
        "launch_template_args": monitored,
        "n_workers": 2,
    }
    assert expected == quietly("ec2", **theirs)


#: The keywords of AzureVMCluster and of VMCluster in dask-cloudprovider 2025.9.0.
AZURE = [
    "auto_shutdown", "bootstrap", "debug", "disk_size", "docker_args", "docker_image", "env_vars", "extra_bootstrap",
    "extra_vm_options", "location", "marketplace_plan", "n_workers", "protocol", "public_ingress", "resource_group",
    "scheduler_options", "scheduler_vm_size", "security", "security_group", "silence_logs", "subscription_id",
    "vm_image", "vm_size", "vnet", "worker_class", "worker_module", "worker_options",
]  # fmt: skip


def test_every_keyword_of_azure_has_a_rule():
    """Whoever changes the import line of AzureVMCluster meets no unknown keyword."""
    ours = our_options("azure")
    assert set(TABLES["azure"]) <= set(AZURE)
    assert set(AZURE) - set(TABLES["azure"]) <= ours
    assert not set(TABLES["azure"]) & ours


def test_a_typical_call_of_azure():
    """A cluster on Azure of dask-cloudprovider's documentation starts after its import line has changed."""
    plan = {"name": "n", "publisher": "p", "product": "o"}
    theirs = {
        "location": "westeurope",
        "resource_group": "mine",
        "vnet": "net",
        "security_group": "rules",
        "vm_size": "Standard_NC12s_v3",
        "scheduler_vm_size": "Standard_D2s_v5",
        "public_ingress": False,
        "vm_image": {"publisher": "p", "offer": "o", "sku": "s"},
        "marketplace_plan": plan,
        "subscription_id": "s",
        "bootstrap": False,
        "n_workers": 2,
    }
    expected = {
        "region": "westeurope",
        "resource_group": "mine",
        "vnet": "net",
        "security_group": "rules",
        "instance_type": "Standard_NC12s_v3",
        "scheduler_instance_type": "Standard_D2s_v5",
        "public": False,
        "machine_image": "p:o:s:latest",
        "plan": plan,
        "subscription": "s",
        "n_workers": 2,
    }
    assert expected == quietly("azure", **theirs)
    assert "machine_image" not in quietly("azure", vm_image={}, location="x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"auto_shutdown": False}, "idle_timeout"),
        ({"protocol": "tcp"}, "TLS"),
        ({"docker_args": "-v x"}, "disks"),
    ],
)
def test_machines_that_cannot_be_translated(options, said):
    """What has no equal on EC2 is refused with what to do instead."""
    with pytest.raises(ConfigError, match=said):
        quietly("ec2", **options)


def test_a_typical_call():
    """A cluster of dask-cloudprovider's documentation starts after its import line has changed."""
    with pytest.warns(FutureWarning) as caught:
        ours = translated_options(
            "fargate",
            {
                "image": "me/mine:1",
                "n_workers": 4,
                "fargate_spot": True,
                "worker_cpu": 4096,
                "worker_mem": 16384,
                "scheduler_cpu": 512,
                "scheduler_mem": 1500,
                "scheduler_timeout": "15 minutes",
                "region_name": "eu-west-1",
                "vpc": "default",
                "skip_cleanup": True,
            },
        )

    assert {
        "image": "me/mine:1",
        "n_workers": 4,
        "spot": True,
        "worker_cpu": 4,
        "worker_memory": "16 GiB",
        "scheduler_cpu": 0.5,
        "scheduler_memory": "1500 MiB",
        "idle_timeout": "15 minutes",
        "region": "eu-west-1",
    } == ours
    [warning] = caught
    assert __file__ == warning.filename
    assert "Write FargateCluster(spot=True, worker_memory='16 GiB'," in str(warning.message)
    assert "without skip_cleanup, vpc." in str(warning.message)


def test_the_translation_is_taken():
    """What comes out of it passes the Config of that cloud."""
    from cloudprovider.providers.ecs import FargateConfig

    ours = quietly("fargate", worker_cpu=4096, worker_mem=16384, cpu_architecture="ARM64", fargate_spot=True)

    assert (4096, 16384) == FargateConfig.of(**ours).size("worker")


@given(st.dictionaries(st.sampled_from([*SAME, "spot", "allow_from"]), st.integers(0, 16)))
def test_our_own_keywords_pass_in_silence(options):
    """A call in our form is neither changed nor warned of, also where the names are the same."""
    assert options == translated_options("fargate", options)


def test_the_warning_shows_no_environment():
    """The new form names what has changed, and repeats no values that may be private."""
    with pytest.warns(FutureWarning) as caught:
        translated_options("fargate", {"environment": {"TOKEN": "hidden"}, "fargate_spot": True})

    assert "hidden" not in str(caught[0].message)


def test_a_timeout_alone_is_ours():
    """`scheduler_timeout` means another thing here: alone it is ours, beside another of theirs it is theirs."""
    assert {"scheduler_timeout": "1 minute"} == translated_options(
        "fargate", {"scheduler_timeout": "1 minute"}
    )
    assert {"idle_timeout": "1 minute", "spot": False} == quietly(
        "fargate", scheduler_timeout="1 minute", fargate_spot=False
    )


@pytest.mark.parametrize("options", [{"fargate_workers": True}, {"worker_gpu": 0}, {"cluster_arn": None}])
def test_what_is_the_default_here_is_left_out(options):
    """Values that ask for what happens anyway become nothing."""
    assert {} == quietly("fargate", **options)


@pytest.mark.parametrize(
    ("cloud", "options", "said"),
    [
        ("fargate", {"worker_extra_args": ["--tls-cert", "x"]}, "worker_options="),
        ("fargate", {"aws_access_key_id": "AKIA"}, "AWS_ACCESS_KEY_ID"),
        ("fargate", {"task_role_policies": ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"]}, "role="),
        ("fargate", {"worker_gpu": 1}, "no GPUs"),
        ("fargate", {"scheduler_port": 9999}, "8786"),
        ("ecs", {"fargate_workers": True}, "use FargateCluster"),
    ],
)
def test_what_cannot_be_translated_says_what_to_do(cloud, options, said):
    """Nothing is dropped that changes what the cluster is."""
    with pytest.raises(ConfigError, match=said):
        translated_options(cloud, options)


def test_both_forms_at_once_are_refused():
    """Two names of one option leave it open which counts."""
    with pytest.raises(ConfigError, match="fargate_spot is spot here"):
        translated_options("fargate", {"spot": True, "fargate_spot": False})


def test_arguments_of_tasks_come_together():
    """Several keywords may fill one option, unless they contradict each other."""
    ours = quietly(
        "fargate",
        platform_version="1.4.0",
        worker_task_kwargs={"group": "a"},
        volumes=[{"name": "v"}],
        mount_points=[{"sourceVolume": "v"}],
    )

    assert {"platformVersion": "1.4.0", "group": "a"} == ours["task_args"]
    assert {
        "volumes": [{"name": "v"}],
        "containerDefinitions": [{"mountPoints": [{"sourceVolume": "v"}]}],
    } == ours["task_definition_args"]
    with pytest.raises(ConfigError, match="one for all machines"):
        translated_options(
            "fargate", {"worker_task_kwargs": {"group": "a"}, "scheduler_task_kwargs": {"group": "b"}}
        )


def test_private_addresses():
    """A private cluster there is one here; that it then needs a way in, our Config says."""
    assert {"public": False} == quietly("fargate", fargate_use_private_ip=True)
    assert {} == quietly("fargate", fargate_use_private_ip=False)


def test_other_clouds_have_nothing_to_translate():
    """A cloud without a table takes its options as they are."""
    assert {"fargate_spot": True} == translated_options("local", {"fargate_spot": True})


def test_examples_hold():
    """The examples in the documentation are true."""
    assert 0 == doctest.testmod(compat).failed


#: The keywords of GCPCluster and of VMCluster in dask-cloudprovider 2025.9.0.
GCP = [
    "auto_shutdown", "bootstrap", "debug", "disk_type", "docker_args", "docker_image", "env_vars",
    "extra_bootstrap", "filesystem_size", "gpu_type", "instance_labels", "machine_type", "n_workers", "network",
    "network_projectid", "ngpus", "on_host_maintenance", "preemptible", "projectid", "protocol",
    "scheduler_gpu_type", "scheduler_machine_type", "scheduler_ngpus", "scheduler_options", "security",
    "service_account", "service_account_credentials", "silence_logs", "source_image", "worker_class",
    "worker_gpu_type", "worker_machine_type", "worker_module", "worker_ngpus", "worker_options", "zone",
]  # fmt: skip


def test_every_keyword_of_gcp_has_a_rule():
    """Whoever changes the import line of GCPCluster meets no unknown keyword."""
    ours = our_options("gcp")
    assert set(TABLES["gcp"]) <= set(GCP)
    assert set(GCP) - set(TABLES["gcp"]) <= ours
    assert not set(TABLES["gcp"]) & ours


def test_a_typical_call_of_gcp():
    """A cluster on Google Cloud of dask-cloudprovider's documentation starts after its import line has changed."""
    theirs = {
        "projectid": "my-project",
        "zone": "us-east1-c",
        "machine_type": "n1-standard-8",
        "preemptible": True,
        "docker_image": "daskdev/dask",
        "source_image": "https://www.googleapis.com/compute/v1/projects/p/global/images/i",
        "ngpus": 0,
        "instance_labels": {"team": "x"},
    }
    expected = {
        "project": "my-project",
        "zones": "us-east1-c",
        "instance_type": "n1-standard-8",
        "scheduler_instance_type": "n1-standard-8",
        "spot": True,
        "image": "daskdev/dask",
        "machine_image": "projects/p/global/images/i",
        "tags": {"team": "x"},
    }
    assert expected == quietly("gcp", **theirs)
