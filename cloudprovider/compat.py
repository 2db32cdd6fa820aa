"""Keywords of dask-cloudprovider (2025.9.0) and what they are called here: one table per cloud.

Some of its keywords exist here with another meaning. `worker_cpu` and `scheduler_cpu` are thousands there
(1/1024 of a vCPU) and at most 16 here, so that the number says which is meant. `scheduler_timeout`
is read as dask-cloudprovider's only beside another keyword of its own. `volumes` are a list there and a
mapping here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TABLES", "translated_options"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of one keyword.

    Parameters
    ----------
    into
        Our options for its value; empty when it needs none.
    refuse
        What to do instead, for values that cannot be translated; None when all can be.
    harmless
        The values that need no option, although others are refused.
    """

    into: Callable[[Any], Mapping[str, Any]]
    refuse: str | None = None
    harmless: tuple[Any, ...] = (None,)


def _same(value: Any) -> Any:
    return value


def renamed(name: str, convert: Callable[[Any], Any] = _same) -> Rule:
    """The keyword has another name here."""
    return Rule(into=lambda value: {name: convert(value)})


def without_effect() -> Rule:
    """Nothing here needs it."""
    return Rule(into=lambda _: {})


def refused(instead: str, *harmless: Any) -> Rule:
    """It cannot be translated; says what to do instead."""
    return Rule(into=lambda _: {}, refuse=instead, harmless=(None, *harmless))


def mebibytes(value: float) -> str:
    """Memory that was given in MB."""
    return f"{value / 1024:g} GiB" if value % 1024 == 0 else f"{value} MiB"


def vcpus(value: float) -> float:
    """VCPUs that were given in units of 1/1024."""
    return value // 1024 if value % 1024 == 0 else value / 1024


def _on_containers(mounts: Any) -> Mapping[str, Any]:
    return {"task_definition_args": {"containerDefinitions": [{"mountPoints": mounts}]}}


def _script(commands: Any) -> Mapping[str, Any]:
    return {"user_data": "\n".join(["#!/bin/sh", *commands])}


def _monitored(detailed: Any) -> Mapping[str, Any]:
    both = {"Monitoring": {"Enabled": True}}
    return {"instance_args": both, "launch_template_args": both} if detailed else {}


def _marketplace(image: Any) -> Mapping[str, Any]:
    """A machine image, by its parts or by its id; Azure's own Ubuntu, which was the default there, is none of ours."""
    if not isinstance(image, Mapping):
        return {"machine_image": image}
    if not image:
        return {}
    parts = [image.get(name, "latest") for name in ("publisher", "offer", "sku", "version")]
    return {"machine_image": image.get("id") or ":".join(parts)}


def _profile(profile: Any) -> Any:
    return profile.get("Arn") or profile.get("Name") if isinstance(profile, dict) else profile


def _gpus(count: Any) -> Mapping[str, Any]:
    return {"gpu": count} if count else {}


def _google_image(image: Any) -> Any:
    return str(image).removeprefix("https://www.googleapis.com/compute/v1/")


#: What FargateCluster and ECSCluster have in common.
TASKS = {
    "aws_access_key_id": refused("let the AWS SDK find your credentials: AWS_ACCESS_KEY_ID or a profile."),
    "aws_secret_access_key": refused(
        "let the AWS SDK find your credentials: AWS_SECRET_ACCESS_KEY or a profile."
    ),
    "cloudwatch_logs_default_retention": renamed("log_retention_days"),
    "cloudwatch_logs_group": renamed("log_group"),
    "cloudwatch_logs_stream_prefix": without_effect(),
    "cluster_arn": renamed("ecs_cluster"),
    "cluster_name_template": without_effect(),
    "cpu_architecture": renamed("architecture"),
    "execution_role_arn": renamed("execution_role"),
    "fargate_use_private_ip": Rule(into=lambda private: {"public": False} if private else {}),
    "mount_points": Rule(into=_on_containers),
    "mount_volumes_on_scheduler": without_effect(),
    "platform_version": Rule(into=lambda version: {"task_args": {"platformVersion": version}}),
    "region_name": renamed("region"),
    "scheduler_address": refused("start the cluster with its own scheduler."),
    "scheduler_extra_args": refused("pass scheduler_options=, keyword arguments of distributed's Scheduler."),
    "scheduler_mem": renamed("scheduler_memory", mebibytes),
    "scheduler_port": refused("leave it out: the scheduler listens on 8786.", 8786),
    "scheduler_sync_interval": without_effect(),
    "scheduler_task_definition_arn": refused("pass image=, role= and task_definition_args=."),
    "scheduler_task_kwargs": renamed("task_args"),
    "shutdown_scheduler": without_effect(),
    "silence_logs": without_effect(),
    "skip_cleanup": without_effect(),
    "task_role_arn": renamed("role"),
    "task_role_policies": refused("attach the policies to a role of yours, and pass role=.", [], ()),
    "worker_extra_args": refused("pass worker_options=, keyword arguments of distributed's Nanny."),
    "worker_mem": renamed("worker_memory", mebibytes),
    "worker_task_definition_arn": refused("pass image=, role= and task_definition_args=."),
    "worker_task_kwargs": renamed("task_args"),
    "workers_name_start": without_effect(),
    "workers_name_step": without_effect(),
}

#: What runs on machines anyway, by its names there.
WORKERS = (
    "dask.distributed.Nanny",
    "dask_cuda.CUDAWorker",
    "dask_cuda.cli",
    "distributed.Nanny",
    "distributed.cli.dask_worker",
)
#: What all of its clusters of virtual machines have in common.
MACHINES = {
    "auto_shutdown": refused("set the leases: idle_timeout=, max_lifetime= and the like.", True),
    "bootstrap": without_effect(),
    "debug": without_effect(),
    "docker_args": refused("leave it out: the container has the machine's network and disks.", ""),
    "docker_image": renamed("image"),
    "env_vars": renamed("environment"),
    "extra_bootstrap": Rule(into=_script),
    "protocol": refused("leave it out: every connection is mutual TLS.", "tls"),
    "silence_logs": without_effect(),
    "worker_class": refused("leave it out: GPUs get dask-cuda's worker by themselves.", *WORKERS),
    "worker_module": refused("leave it out: GPUs get dask-cuda's worker by themselves.", *WORKERS),
}
#: By our section in Dask config: dask-cloudprovider's keyword, and what becomes of it.
TABLES: dict[str, dict[str, Rule]] = {
    "fargate": {
        **TASKS,
        "fargate_scheduler": refused("use ECSCluster for container instances of your own.", True),
        "fargate_spot": renamed("spot"),
        "fargate_workers": refused("use ECSCluster for container instances of your own.", True),
        "worker_gpu": refused("Fargate has no GPUs: use ECSCluster.", 0),
    },
    "azure": {
        **MACHINES,
        "extra_vm_options": refused("pass vm_args=, properties as Azure's API spells them.", {}),
        "location": renamed("region"),
        "marketplace_plan": Rule(into=lambda plan: {"plan": plan} if plan else {}),
        "public_ingress": Rule(into=lambda public: {} if public else {"public": False}),
        "scheduler_vm_size": renamed("scheduler_instance_type"),
        "subscription_id": renamed("subscription"),
        "vm_image": Rule(into=_marketplace),
        "vm_size": renamed("instance_type"),
    },
    "ec2": {
        **MACHINES,
        "availability_zone": renamed("zones"),
        "enable_detailed_monitoring": Rule(into=_monitored),
        "filesystem_size": renamed("disk_size"),
        "iam_instance_profile": renamed("role", _profile),
        "instance_tags": renamed("tags"),
        "subnet_id": renamed("subnets"),
        "use_private_ip": Rule(into=lambda private: {"public": False} if private else {}),
        "volume_tags": renamed("tags"),
        "worker_instance_type": renamed("instance_type"),
    },
    "ecs": {
        **TASKS,
        "fargate_scheduler": refused("use FargateCluster.", False),
        "fargate_spot": refused("use FargateCluster(spot=True).", False),
        "fargate_workers": refused("use FargateCluster.", False),
    },
    "gcp": {
        **MACHINES,
        "filesystem_size": renamed("disk_size"),
        "instance_labels": renamed("tags"),
        "machine_type": Rule(into=lambda kind: {"instance_type": kind, "scheduler_instance_type": kind}),
        "network_projectid": renamed("host_project"),
        "ngpus": Rule(into=_gpus),
        "on_host_maintenance": without_effect(),
        "preemptible": renamed("spot"),
        "projectid": renamed("project"),
        "scheduler_gpu_type": refused("leave it out: the scheduler uses no GPU."),
        "scheduler_machine_type": renamed("scheduler_instance_type"),
        "scheduler_ngpus": refused("leave it out: the scheduler uses no GPU.", 0),
        "service_account_credentials": refused("set GOOGLE_APPLICATION_CREDENTIALS to the key's file.", {}),
        "source_image": renamed("machine_image", _google_image),
        "worker_gpu_type": renamed("gpu_type"),
        "worker_machine_type": renamed("instance_type"),
        "worker_ngpus": Rule(into=_gpus),
        "zone": renamed("zones"),
    },
}
#: Names that both have: whether a value is meant as dask-cloudprovider's, given that it has others or not.
SHARED: dict[str, tuple[Callable[[Any, bool], bool], Rule]] = {
    "scheduler_cpu": (lambda value, _: _thousands(value), renamed("scheduler_cpu", vcpus)),
    "scheduler_timeout": (lambda _, others: others, renamed("idle_timeout")),
    "volumes": (
        lambda value, _: not isinstance(value, Mapping),
        Rule(into=lambda volumes: {"task_definition_args": {"volumes": volumes}}),
    ),
    "vpc": (lambda value, _: value == "default", without_effect()),
    "worker_cpu": (lambda value, _: _thousands(value), renamed("worker_cpu", vcpus)),
}
SMALLEST = 128  # 1/1024 vCPU; ECS takes nothing smaller, and nothing here has as many vCPUs
NAMES = {
    "azure": "AzureVMCluster",
    "ec2": "EC2Cluster",
    "ecs": "ECSCluster",
    "fargate": "FargateCluster",
    "gcp": "GCPCluster",
}


def _thousands(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= SMALLEST


def translated_options(cloud: str, options: Mapping[str, Any], stacklevel: int = 1) -> dict[str, Any]:
    """Keyword arguments with dask-cloudprovider's translated to ours.

    Parameters
    ----------
    cloud
        Our section in Dask config, such as `fargate`. A cloud without a table has nothing to translate.
    options
        Keyword arguments of a cluster.
    stacklevel
        Whose line the warning names, as in `warnings.warn`: 1 is the caller's, 2 its caller's.

    Warns
    -----
    FutureWarning
        When any was dask-cloudprovider's; shows the new form.

    Raises
    ------
    ConfigError
        For one that cannot be translated, with what to do instead; for one that is there in both forms
        with different values.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     translated_options("fargate", {"n_workers": 2, "fargate_spot": True, "worker_mem": 8192})
    {'n_workers': 2, 'spot': True, 'worker_memory': '8 GiB'}
    """
    theirs = _theirs(cloud, options)
    if not theirs:
        return dict(options)
    kept = {name: value for name, value in options.items() if name not in theirs}
    ours: dict[str, Any] = {}
    idle = []
    for name, rule in theirs.items():
        made = _made(cloud, name, rule, options[name])
        idle += [] if made else [name]
        for option, value in made.items():
            if option in kept:
                raise ConfigError(f"{name} is {option} here: pass only {option}.")
            ours[option] = _merged(option, ours[option], value) if option in ours else value
    warnings.warn(_advice(cloud, ours, idle), FutureWarning, stacklevel=stacklevel + 1)
    return {**kept, **ours}


def _theirs(cloud: str, options: Mapping[str, Any]) -> dict[str, Rule]:
    """The options that are dask-cloudprovider's, and their rules."""
    if cloud not in TABLES:
        return {}
    table = TABLES[cloud]
    found = {name: table[name] for name in options if name in table}
    shared = {
        name: rule
        for name, (meant, rule) in SHARED.items()
        if name in options and meant(options[name], bool(found))
    }
    return found | shared


def _made(cloud: str, name: str, rule: Rule, value: Any) -> Mapping[str, Any]:
    if value in rule.harmless:
        return {}
    if rule.refuse is not None:
        raise ConfigError(
            f"{NAMES[cloud]} does not take dask-cloudprovider's {name!r}. Instead: {rule.refuse}"
        )
    return rule.into(value)


def _merged(option: str, one: Any, other: Any) -> Any:
    """What two keywords say together, when they do not contradict each other."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {**one, **other}
        if all(one.get(key, value) == value for key, value in other.items()):
            return both
    elif one == other:
        return one
    raise ConfigError(f"{option} is one for all machines: {one!r} and {other!r} cannot both be.")


def _advice(cloud: str, ours: Mapping[str, Any], idle: list[str]) -> str:
    form = ", ".join([*(f"{name}={value!r}" for name, value in ours.items()), "..."])
    said = f"These are keywords of dask-cloudprovider. Write {NAMES[cloud]}({form})"
    return f"{said}; without {', '.join(idle)}." if idle else f"{said}."
