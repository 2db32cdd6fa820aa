"""What Compute Engine is told and what it answers, without any cloud."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from cloudruntime.boot import Boot, Leases
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.cloud import compute_v1
from requests import Response
from requests.exceptions import ConnectionError as Unreachable

from cloudprovider import tags as ledger
from cloudprovider.emulator import discovery_documents
from cloudprovider.emulator.gcp_conditions import Condition
from cloudprovider.errors import (
    BootError,
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
)
from cloudprovider.provider import Identity, Machine, State
from cloudprovider.providers import _gce_ends, _gce_names, _gce_tunnel, _gcp, _gcp_errors
from cloudprovider.providers import _gce_rights as rights
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._gce_config import GCPConfig
from cloudprovider.providers._gce_landing import Landing
from cloudprovider.providers._gce_plan import Kind, Plan

IDENTITY = Identity(name="it", owner="me", created=1_800_000_000, expires=1_800_086_400)
ZONES = ("us-central1-a", "us-central1-b", "us-central1-c")
LANDING = Landing(
    network="projects/my-project/global/networks/default",
    account="dask-machine@my-project.iam.gserviceaccount.com",
    scheduler="dask-scheduler@my-project.iam.gserviceaccount.com",
    zones=ZONES,
)
KIND = Kind(
    types=("n2-standard-2", "e2-standard-2"),
    zones={"n2-standard-2": ZONES[:2], "e2-standard-2": ZONES[:1]},
    vcpu=2,
    image="projects/cos-cloud/global/images/cos-stable-1",
    disk_gib=10,
    disk_type="pd-balanced",
)
GPUS = dataclasses.replace(KIND, types=("n1-standard-4",), gpus=2, gpu_name="nvidia-tesla-t4", attached=True)
BOOTS = {
    role: Boot(cluster="it", role=role, image="i", secret="gcp-secret:x", leases=Leases(expires=1))
    for role in ("scheduler", "worker")
}
PLAN = Plan(identity=IDENTITY, landing=LANDING, kinds={"scheduler": KIND, "worker": KIND}, boots=BOOTS)


def made(role="worker", plan=PLAN, market="on-demand", now=1_800_000_000.0, **options):
    config = GCPConfig.of(**options)
    return wire.properties(
        config, IDENTITY, BOOTS[role], plan, market=market, user_data=b"#cloud-config", now=now
    )


def checked(kind, document, method):
    """The request in the SDK's own type, whose JSON is what the API's description allows."""
    message = kind(document)
    text = kind.to_json(message, always_print_fields_with_no_presence=False, use_integers_for_enums=False)
    found = discovery_documents.document("compute", "v1").methods[method]
    assert [] == [str(problem) for problem in found.body_problems(json.loads(text))]
    return json.loads(text)


def insert(role="scheduler", **given):
    request = wire.insert_request("dask-it-scheduler", ("n2-standard-2", ZONES[0]), made(role, **given))
    assert ZONES[0] == request["zone"]
    return checked(compute_v1.Instance, request["instance_resource"], "compute.instances.insert")


def bulk(kind="n2-standard-2", zones=ZONES[:2], count=3, **given):
    machines = _gce_names.machine_names("it", "worker", count)
    request = wire.bulk_request(machines, kind, zones, made(**given), ZONES)
    resource = request["bulk_insert_instance_resource_resource"]
    method = "compute.instances.bulkInsert" if "zone" in request else "compute.regionInstances.bulkInsert"
    return checked(compute_v1.BulkInsertInstanceResource, resource, method), request


# -- names -------------------------------------------------------------------------------------------------


def test_names_are_functions_of_the_cluster_s():
    """Any process knows the scheduler's name; no two workers have one, and all fit Compute Engine."""
    longest = "a" * 40
    assert ["dask-it-scheduler"] == _gce_names.machine_names("it", "scheduler", 1)
    names = _gce_names.machine_names(longest, "worker", 1000)
    assert 1000 == len(set(names))
    assert all(len(name) <= 63 and name.startswith(f"dask-{longest}-w-") for name in names)
    assert "it" == _gce_names.cluster_of(_gce_names.firewall("it"))
    assert [None, None] == [*map(_gce_names.cluster_of, _gce_names.landing_firewalls("default"))]
    assert all(len(name) <= 63 for name in _gce_names.landing_firewalls("n" * 63))


# -- orders ------------------------------------------------------------------------------------------------


def test_a_machine_has_all_it_needs_at_birth():
    """Labels, network tags, identity, end and metadata are in the call that makes a machine."""
    body = insert(tags={"team": "data"})
    assert {"items": ["dask-machine", "dask-it-scheduler"]} == body["tags"]
    assert "it" == body["labels"][ledger.CLUSTER]
    assert "data" == body["labels"]["team"]
    assert body["labels"] == body["disks"][0]["initializeParams"]["labels"]
    assert body["disks"][0]["autoDelete"]
    assert [LANDING.scheduler] == [account["email"] for account in body["serviceAccounts"]]
    known = {item["key"]: item["value"] for item in body["metadata"]["items"]}
    assert ("TRUE", "TRUE", "#cloud-config") == (
        known["block-project-ssh-keys"],
        known["enable-oslogin"],
        known["user-data"],
    )
    assert all(body["shieldedInstanceConfig"].values())


def test_what_is_zonal_is_named_with_its_zone_in_an_insert_only():
    """An insert wants partial URLs of types, disks and accelerators; a bulkInsert bare names."""
    plan = dataclasses.replace(PLAN, kinds={"scheduler": GPUS, "worker": GPUS})
    body = insert(plan=plan)
    assert f"zones/{ZONES[0]}/machineTypes/n2-standard-2" == body["machineType"]
    assert f"zones/{ZONES[0]}/diskTypes/pd-balanced" == body["disks"][0]["initializeParams"]["diskType"]
    [gpu] = body["guestAccelerators"]
    assert (2, f"zones/{ZONES[0]}/acceleratorTypes/nvidia-tesla-t4") == (
        gpu["acceleratorCount"],
        gpu["acceleratorType"],
    )
    body, _ = bulk(kind=GPUS.types[0], zones=ZONES[:1], plan=plan)
    properties = body["instanceProperties"]
    assert "n1-standard-4" == properties["machineType"]
    assert "pd-balanced" == properties["disks"][0]["initializeParams"]["diskType"]
    assert "nvidia-tesla-t4" == properties["guestAccelerators"][0]["acceleratorType"]


@pytest.mark.parametrize(
    ("market", "gpus", "model", "maintenance"),
    [
        ("on-demand", False, "STANDARD", "MIGRATE"),
        ("on-demand", True, "STANDARD", "TERMINATE"),
        ("spot", False, "SPOT", "TERMINATE"),
    ],
)
def test_whatever_ends_a_machine_deletes_it(market, gpus, model, maintenance):
    """Preemption and the end of a life delete the machine with its disk; nothing starts it again."""
    kind = GPUS if gpus else KIND
    plan = dataclasses.replace(PLAN, kinds={"scheduler": kind, "worker": kind})
    scheduling = made(market=market, plan=plan)["scheduling"]
    assert (model, "DELETE", maintenance, False) == tuple(
        scheduling[key]
        for key in (
            "provisioning_model",
            "instance_termination_action",
            "on_host_maintenance",
            "automatic_restart",
        )
    )
    assert {"seconds": 86_400} == scheduling["max_run_duration"]


@pytest.mark.parametrize(("now", "left"), [(1_800_086_399.0, 30), (0.0, 120 * 86_400)])
def test_a_life_is_as_long_as_compute_engine_takes(now, left):
    """The run time is between half a minute and 120 days, whatever is left of the cluster's."""
    assert {"seconds": left} == made(now=now)["scheduling"]["max_run_duration"]


def test_workers_have_an_address_outside_only_where_they_need_it():
    """With Cloud NAT the scheduler alone has one; with public=False nobody."""
    nat = dataclasses.replace(PLAN, landing=dataclasses.replace(LANDING, nat=True))

    def outside(role, plan, **options):
        return "access_configs" in made(role, plan, **options)["network_interfaces"][0]

    assert (True, True) == (outside("scheduler", PLAN), outside("worker", PLAN))
    assert (True, False) == (outside("scheduler", nat), outside("worker", nat))
    assert not outside("scheduler", PLAN, public=False, tunnel=True)


def test_one_zone_is_ordered_there():
    """Where there is one zone, the order is zonal, with a name for each machine."""
    body, request = bulk(zones=ZONES[:1])
    assert ZONES[0] == request["zone"]
    assert ("3", "1", 3) == (body["count"], body["minCount"], len(body["perInstanceProperties"]))
    assert "locationPolicy" not in body
    assert "n2-standard-2" == body["instanceProperties"]["machineType"]


def test_several_zones_are_ordered_in_the_region():
    """Of several zones that has machines which has room for them, and the region's others are denied."""
    body, request = bulk()
    assert "zone" not in request
    preferences = {zone: said["preference"] for zone, said in body["locationPolicy"]["locations"].items()}
    assert {
        f"zones/{ZONES[0]}": "ALLOW",
        f"zones/{ZONES[1]}": "ALLOW",
        f"zones/{ZONES[2]}": "DENY",
    } == preferences
    assert "ANY" == body["locationPolicy"]["targetShape"]


def test_further_fields_are_kept():
    """`instance_args` adds to what is ours, and may not replace it."""
    assert "Intel Ice Lake" == insert(instance_args={"min_cpu_platform": "Intel Ice Lake"})["minCpuPlatform"]
    with pytest.raises(ConfigError, match="instance_args has labels"):
        GCPConfig.of(instance_args={"labels": {}})


def test_no_firewall_rule_is_open_to_the_world():
    """Machines reach each other; the scheduler's two ports are for people; the world's own rules do not count."""
    within, closed = wire.landing_requests(LANDING.network)
    people = wire.people_request("o", LANDING.network, "", "dask-it-scheduler", ["198.51.100.7/32"])
    for rule in (within, closed, people):
        body = checked(compute_v1.Firewall, rule, "compute.firewalls.insert")
        assert body["targetTags"]
        assert "denied" in body or "0.0.0.0/0" not in body.get("sourceRanges", ())
    assert ["dask-machine"] == within["source_tags"]
    assert [{"I_p_protocol": "tcp", "ports": ["8786", "8787"]}] == people["allowed"]
    assert 1000 < closed["priority"] < 65534
    assert ("35.235.240.0/20",) == wire.sources_of(GCPConfig.of(tunnel=True, allow_from="10.0.0.0/8"))


def test_labels_survive_in_a_description():
    """What can have no labels says the same in its description; somebody else's says nothing."""
    labels = wire.cluster_labels(GCPConfig.of(), IDENTITY)
    assert labels == wire.labels_in(wire.described_as(labels))
    assert IDENTITY == ledger.identity(labels)
    assert {} == wire.labels_in("Allows SSH")
    assert {} == wire.labels_in("[1]")


# -- what is kept -------------------------------------------------------------------------------------------


def test_a_plan_survives_its_secret():
    """Another process orders machines like the first's, with the options that matter."""
    config = GCPConfig.of(spot="fallback", network="lab", zones=["us-central1-a"])
    plan, options, client = Plan.loads(PLAN.dumps(config, '{"token": "t"}'))
    assert (PLAN, '{"token": "t"}') == (plan, client)
    assert ("fallback", "lab") == (options["spot"], options["network"])


def test_a_plan_that_is_too_large_is_refused():
    """What does not fit into a secret is an error before anything is made."""
    boots = {
        **BOOTS,
        "worker": dataclasses.replace(BOOTS["worker"], environment={"X": os.urandom(50_000).hex()}),
    }
    with pytest.raises(ConfigError, match="65536"):
        dataclasses.replace(PLAN, boots=boots).dumps(GCPConfig.of(), "{}")


# -- what a machine may do ------------------------------------------------------------------------------------


def holds(binding, kind: str, name: str, at: float) -> bool:
    import datetime as dt

    return Condition(binding["condition"]["expression"]).holds(
        {"resource.type": kind, "resource.name": name, "request.time": dt.datetime.fromtimestamp(at, dt.UTC)}
    )


def may(cluster: str, machine: str, at: float = 1_800_000_000.0) -> bool:
    who = dataclasses.replace(IDENTITY, name=cluster)
    binding = rights.binding_of("my-project", LANDING.account, who)
    name = f"projects/my-project/zones/us-central1-a/instances/{machine}"
    return holds(binding, "compute.googleapis.com/Instance", name, at)


def scheduler_may(cluster: str, kind: str, name: str, at: float = 1_800_000_000.0) -> bool:
    who = dataclasses.replace(IDENTITY, name=cluster)
    [own] = [
        binding
        for binding in rights.scheduler_bindings("my-project", LANDING.scheduler, who)
        if binding["role"].endswith("/daskScheduler")
    ]
    path = f"projects/my-project/zones/us-central1-a/{kind.lower()}s/{name}"
    return holds(own, f"compute.googleapis.com/{kind}", path, at)


@pytest.mark.parametrize("cluster", ["a", "a-b", "a-w", "a-w-b", "scheduler"])
def test_a_machine_may_end_its_own_cluster_s_only(cluster):
    """The condition of one cluster holds for its machines, and for no machine of a cluster named like it."""
    for other in ["a", "a-b", "a-w", "a-w-b", "scheduler", "b"]:
        for machine in [f"dask-{other}-scheduler", f"dask-{other}-w-x1y2z3"]:
            assert (other == cluster) is may(cluster, machine), (cluster, machine)
    assert not may(cluster, "web-server")


@pytest.mark.parametrize("cluster", ["a", "a-b", "a-w", "a-w-b", "scheduler"])
def test_an_autonomous_scheduler_may_order_its_own_cluster_s_only(cluster):
    """Its manager orders and ends the machines of its cluster, with their disks, and none of another's."""
    for other in ["a", "a-b", "a-w", "a-w-b", "scheduler", "b"]:
        for kind in ("Instance", "Disk"):
            worker = f"dask-{other}-w-x1y2z3"
            assert (other == cluster) is scheduler_may(cluster, kind, worker), (cluster, kind, worker)
        scheduler = f"dask-{other}-scheduler"
        assert (other == cluster) is scheduler_may(cluster, "Instance", scheduler), (cluster, scheduler)
    assert not scheduler_may(cluster, "Instance", "web-server")
    assert not scheduler_may(cluster, "Disk", "web-server")
    assert not scheduler_may(cluster, "Instance", f"dask-{cluster}-w-x1y2z3", IDENTITY.expires + 2 * 86_400)


def test_an_autonomous_scheduler_reads_no_keys_of_people():
    """Of all secrets it may read those that are for machines."""
    wanted = rights.scheduler_bindings("my-project", LANDING.scheduler, IDENTITY)
    kind = "secretmanager.googleapis.com/SecretVersion"
    may_read = {
        whose
        for whose in ("machine", "client")
        for binding in wanted
        if binding["role"].endswith("secretAccessor")
        and holds(binding, kind, f"projects/1/secrets/dask-it-{whose}/versions/1", 1.8e9)
    }
    assert {"machine"} == may_read


def test_what_a_machine_may_do_ends_with_its_cluster():
    """A day after the hard end nothing is allowed any more, should nobody take it back."""
    assert may("a", "dask-a-scheduler", IDENTITY.expires + 3600)
    assert not may("a", "dask-a-scheduler", IDENTITY.expires + 2 * 86_400)


def test_policies_keep_what_others_wrote():
    """Bindings are added once, in place of older ones of the same cluster, and others' stay."""
    others = {"role": "roles/owner", "members": ["user:a@example.com"]}
    policy = {"bindings": [others]}
    wanted = rights.bindings("my-project", LANDING.account, IDENTITY)
    assert rights._with(policy, wanted)
    assert not rights._with(policy, wanted)
    later = rights.bindings(
        "my-project", LANDING.account, dataclasses.replace(IDENTITY, expires=1_900_000_000)
    )
    assert rights._with(policy, later)
    assert [others, *later] == policy["bindings"]


# -- answers -------------------------------------------------------------------------------------------------


def instance(status="RUNNING", **more):
    return compute_v1.Instance(
        {
            "name": "dask-it-w-abc123",
            "status": status,
            "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a",
            "machine_type": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/machineTypes/n2-standard-2",
            "labels": ledger.for_machine(IDENTITY, "worker"),
            "creation_timestamp": "2026-11-23T10:00:00.000-08:00",
            "network_interfaces": [
                {"network_i_p": "10.128.0.2", "access_configs": [{"nat_i_p": "34.1.2.3"}]}
            ],
            "scheduling": {"provisioning_model": "SPOT"},
            **more,
        }
    )


def test_an_instance_is_read():
    """A running machine has its names, addresses, market, and since when it bills."""
    machine = wire.machine(instance(last_start_timestamp="2026-11-23T10:00:05.000-08:00"))
    assert ("dask-it-w-abc123", "worker", "it", State.running) == (
        machine.id,
        machine.role,
        machine.cluster,
        machine.state,
    )
    assert ("10.128.0.2", "34.1.2.3", "us-central1-a", "n2-standard-2", "spot") == (
        machine.private_address,
        machine.public_address,
        machine.zone,
        machine.kind,
        machine.market,
    )
    assert 5 == machine.billed_from - machine.created
    assert IDENTITY.expires == machine.expires


def test_every_status_is_known():
    """Each status of the API's description is in the table; only those of a machine that works are alive."""
    schemas = discovery_documents.document("compute", "v1").content["schemas"]
    assert set(schemas["Instance"]["properties"]["status"]["enum"]) == set(wire.STATES)
    assert State.starting is wire.machine(instance("PROVISIONING")).state
    assert None is wire.machine(instance("PROVISIONING")).billed_from
    assert "it powered off" == wire.machine(instance("TERMINATED")).reason


# -- errors --------------------------------------------------------------------------------------------------


def refused(status, reason="", message="", *, info=None, headers=None):
    """What the SDK raises for such an answer."""
    document = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    if info:
        document["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", **info}]
    answer = Response()
    answer.status_code, answer._content = status, json.dumps({"error": document}).encode()
    answer.headers.update({"Content-Type": "application/json", **(headers or {})})

    class Asked:
        method = "POST"
        url = "https://compute.googleapis.com/compute/v1/projects/my-project/zones/us-central1-a/instances"

    answer.request = Asked()
    return exceptions.from_http_response(answer)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (refused(403, "quotaExceeded", "Quota 'CPUS' exceeded. Limit: 8.0"), QuotaError, "quotas"),
        (
            refused(403, "forbidden", "Required 'compute.instances.create' permission for 'projects/p/x'"),
            CredentialsError,
            "lack compute.instances.create",
        ),
        (
            refused(403, "IAM_PERMISSION_DENIED", "Permission denied", info={
                "reason": "IAM_PERMISSION_DENIED",
                "metadata": {"permission": "secretmanager.secrets.create"},
            }),
            CredentialsError,
            "lack secretmanager.secrets.create",
        ),
        (
            refused(
                403,
                "accessNotConfigured",
                "Compute Engine API has not been used in project 123 before or it is disabled.",
                info={"reason": "SERVICE_DISABLED", "metadata": {"service": "compute.googleapis.com"}},
            ),
            CredentialsError,
            "gcloud services enable compute.googleapis.com --project my-project",
        ),
        (
            refused(404, "notFound", "The resource 'projects/typo-123' was not found"),
            ConfigError,
            "gcloud projects list",
        ),
        (
            refused(400, "invalid", "Unknown project id: 0"),
            ConfigError,
            "GOOGLE_CLOUD_PROJECT",
        ),
        (
            refused(404, "notFound", "The resource 'projects/p/global/images/family/x' was not found"),
            ConfigError,
            "machine_image=",
        ),
        (refused(409, "alreadyExists", "The resource 'x' already exists"), CloudError, "another name="),
        (refused(429, "rateLimitExceeded", "Rate Limit Exceeded"), QuotaError, "rates"),
        (refused(503, "", "The zone does not have enough resources available"), CapacityError, "zones="),
        (refused(401, "authError", "Invalid Credentials"), CredentialsError, "application-default login"),
        (DefaultCredentialsError("none"), CredentialsError, "GOOGLE_APPLICATION_CREDENTIALS"),
        (RefreshError("invalid_grant: Invalid JWT: not in a reasonable timeframe"), CredentialsError, "clock"),
        (RefreshError("invalid_grant: Token has been expired"), CredentialsError, "not accepted any more"),
        (Unreachable("no route"), CloudError, "could not be reached"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(error, kind, said):
    """Each refusal of Google's is of our kind, and says what to do next."""
    ours = _gcp_errors.translate(error, "my-project")
    assert kind is type(ours)
    assert said in str(ours)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("QUOTA_EXCEEDED", QuotaError),
        ("ZONE_RESOURCE_POOL_EXHAUSTED", CapacityError),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", CapacityError),
        ("RESOURCE_ALREADY_EXISTS", CloudError),
        ("IP_SPACE_EXHAUSTED", CapacityError),
        ("INTERNAL_ERROR", CloudError),
    ],
)
def test_operations_that_fail_are_translated(code, kind):
    """What an accepted operation came to is of our kind, with Google's code and words."""
    operation = compute_v1.Operation(
        {"operation_type": "insert", "error": {"errors": [{"code": code, "message": "No more."}]}}
    )
    error = _gcp.GCP("my-project", "us-central1").failure(operation)
    assert kind is type(error)
    assert code in str(error)
    assert "No more." in str(error)
    assert code == _gcp_errors.code(error)


def test_only_what_may_pass_is_tried_again():
    """Rates and failures of Google's own pass; quotas, stockouts and refusals do not."""
    assert _gcp_errors.is_passing(refused(429, "rateLimitExceeded", "slow down"))
    assert _gcp_errors.is_passing(refused(403, "userRateLimitExceeded", "slow down"))
    assert _gcp_errors.is_passing(refused(503, "backendError", "try again"))
    assert _gcp_errors.is_passing(Unreachable())
    assert not _gcp_errors.is_passing(refused(403, "quotaExceeded", "Quota exceeded"))
    assert not _gcp_errors.is_passing(refused(503, "ZONE_RESOURCE_POOL_EXHAUSTED", "no room"))
    assert not _gcp_errors.is_passing(refused(404, "notFound", "no"))


def test_without_rights_the_commands_are_printed():
    """Who may not give roles is told what somebody else runs, which gives no more than machines need."""
    text = rights.commands("my-project")
    assert 2 == text.count("gcloud iam")
    assert 3 == text.count("gcloud projects add-iam-policy-binding my-project")
    assert "service_account='dask-machine@my-project.iam.gserviceaccount.com'" in text
    both = rights.commands("my-project", autonomous=True)
    assert text.split("runs, once:")[1].split("and you pass")[0].strip() in both
    assert 6 == both.count("gcloud iam")
    assert "--role roles/iam.serviceAccountUser" in both
    assert "scheduler_service_account='dask-scheduler@my-project.iam.gserviceaccount.com'" in both


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ("docker: manifest for x:y not found", "Is image= right"),
        ("exec format error", "architecture="),
        ("dial tcp: i/o timeout", "Cloud NAT"),
        ("PERMISSION_DENIED", "service account"),
        ("no space left on device", "disk_size="),
    ],
)
def test_a_dead_machine_s_log_is_explained(logs, said):
    """What its log says leads to what to do, and the log is shown."""
    machine = Machine(id="dask-it-scheduler", role="scheduler", state=State.gone, reason="deleted")
    error = _gce_ends.diagnosis(machine, logs)
    assert isinstance(error, BootError)
    assert said in str(error)
    assert logs in str(error)


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"project": "My Project"}, "gcloud projects list"),
        ({"service_account": "machine"}, "email"),
        ({"gpu_type": "nvidia-l4"}, "gpu="),
        ({"zones": "a"}, "europe-west1-b"),
        ({"zones": ["us-central1-a", "us-east1-b"]}, "several regions"),
        ({"region": "us-east1", "zones": "us-central1-a"}, "not in region"),
        ({"allow_from": "2001:db8::/32"}, "IPv4"),
        ({"tags": {"Team": "x"}}, "label"),
        ({"spot": "maybe"}, "spot="),
        ({"instance_type": "n2-standard-2", "cpu": 4}, "leave out cpu"),
    ],
)
def test_options_that_cannot_work(options, said):
    """A wrong option is an error before any call, and says what would do."""
    with pytest.raises(ConfigError, match=said):
        GCPConfig.of(**options)


def test_project_and_region_are_found_as_gcloud_finds_them(tmp_path):
    """What is not given comes from the environment, then from gcloud's active configuration."""
    (tmp_path / "configurations").mkdir()
    (tmp_path / "active_config").write_text("work\n")
    (tmp_path / "configurations" / "config_work").write_text(
        "[core]\nproject = configured-1\n[compute]\nregion = europe-west4\n"
    )
    script = "from cloudprovider.providers._gcp import GCP; g = GCP(); print(g.project, g.region)"
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("GOOGLE_", "CLOUDSDK_"))}
    environment = {**bare, "CLOUDSDK_CONFIG": str(tmp_path)}

    def said(**more):
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.split()

    assert ["configured-1", "europe-west4"] == said()
    zone = {"GOOGLE_CLOUD_PROJECT": "other-22", "CLOUDSDK_COMPUTE_ZONE": "us-east1-b"}
    assert ["other-22", "us-east1"] == said(**zone)
    assert ["configured-1", "us-east1"] == said(CLOUDSDK_COMPUTE_REGION="us-east1")


def test_the_tunnel_is_gcloud_s_own_command():
    """The program is given the machine, its port, and the local port that leads there."""
    command = _gce_tunnel.command("gcloud", "my-project", "us-central1-a", "dask-it-scheduler", 8786, 50000)
    assert ("gcloud", "compute", "start-iap-tunnel", "dask-it-scheduler", "8786") == command[:5]
    assert {"--zone=us-central1-a", "--project=my-project", "--local-host-port=localhost:50000"} <= set(
        command
    )
