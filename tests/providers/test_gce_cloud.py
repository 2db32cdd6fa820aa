"""What GCEProvider asks of a cloud, and what it makes of the answers, on an embedded Google Cloud without processes.

What every provider does is in test_clouds.py; this is what Google Cloud alone has.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter

import pytest
import requests
from contract import until

from cloudprovider import tags as ledger
from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.events import Events
from cloudprovider.fleet import Fleet
from cloudprovider.provider import State
from cloudprovider.providers._gcp import GCP
from cloudprovider.providers.gce import GCEProvider, GCPConfig, policy
from cloudprovider.security import make_secrets

TYPES = {"instance_type": "n2-standard-2", "scheduler_instance_type": "e2-standard-2"}
ACCOUNT = "dask-machine@dask-emulated.iam.gserviceaccount.com"


@pytest.fixture
def cloud(bare_processes):
    """A project as on its first day, whose machines are states only."""
    process = bare_processes("gcp")
    process.reset(profile="instant", time_scale=1.0, seed=0)
    with process.active():
        yield process
        process.clear()


def make(name="it", **options) -> GCEProvider:
    config = GCPConfig.of(name=name, **{"allow_from": "198.51.100.7/32", **TYPES, **options})
    return GCEProvider(config, config.identity())


def prepare(provider) -> GCEProvider:
    boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    return provider


def prepared(name="it", **options) -> GCEProvider:
    return prepare(make(name, **options))


def scheduler(provider):
    created = provider.create(provider.boot("scheduler"), 1)
    if created.refusal:
        raise created.refusal
    [machine] = created.machines
    return machine


def workers(provider, count):
    boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://10.0.0.5:8786")
    return provider.create(boot, count)


def called(cloud, since=0) -> Counter:
    return Counter(call.operation for call in cloud.calls[since:])


def project_policy() -> list[dict]:
    asked = {"options": {"requestedPolicyVersion": 3}}
    path = "projects/dask-emulated:getIamPolicy"
    return GCP().ask("cloudresourcemanager", "POST", path, asked)["bindings"]


# -- the landing -----------------------------------------------------------------------------------------


def test_the_landing_is_made_once(cloud):
    """The second cluster of a project finds what the first one made, and makes only its own."""
    prepared("one")
    first = len(cloud.calls)
    prepared("two")
    calls = called(cloud, first)

    assert 1 == calls["firewalls.insert"]
    assert 2 == calls["secrets.create"]
    assert 0 == calls["serviceAccounts.create"] == calls["roles.create"]
    assert sum(calls.values()) <= 30


def test_machines_may_do_little(cloud):
    """Their account logs, reads machines' secrets alone, and ends machines of its clusters."""
    prepared("one")
    prepared("two")
    held = [one for one in project_policy() if f"serviceAccount:{ACCOUNT}" in one["members"]]
    titles = {one["role"].rpartition("/")[2]: [] for one in held}
    for one in held:
        titles[one["role"].rpartition("/")[2]].append(one.get("condition", {}).get("title", ""))

    assert {
        "logging.logWriter": [""],
        "secretmanager.secretAccessor": ["dask-machine-secrets"],
        "daskMachine": ["dask-one", "dask-two"],
    } == titles
    role = GCP().ask("iam", "GET", "projects/dask-emulated/roles/daskMachine")
    assert ["compute.instances.delete"] == role["includedPermissions"]


def test_a_new_account_is_waited_for(cloud):
    """In a project's first minute Google does not know the account everywhere: orders are made again."""
    cloud.inject("role-propagation", seconds=3)
    provider = prepared()
    assert State.gone is not scheduler(provider).state


def test_the_user_s_account_is_used_as_it_is(cloud):
    """With service_account= nothing is asked of IAM, and machines run under it."""
    prepared("first").sweep("first")
    since = len(cloud.calls)
    provider = prepared(service_account=ACCOUNT)
    machine = scheduler(provider)
    one = GCP().call("instances", "get", instance=machine.id, zone=machine.zone)

    assert [ACCOUNT] == [account.email for account in one.service_accounts]
    calls = called(cloud, since)
    assert 0 == calls["projects.getIamPolicy"] + calls["projects.setIamPolicy"] + calls["serviceAccounts.get"]


def test_without_the_right_the_commands_are_printed(cloud):
    """Who may not change the project's policy is told what somebody else runs, and leaves nothing."""
    cloud.inject("denied", operation="projects.setIamPolicy")
    provider = make()
    with pytest.raises(CredentialsError, match=r"(?s)setIamPolicy.*gcloud iam.*service_account="):
        prepare(provider)
    cloud.clear()
    provider.sweep("it")
    assert [] == cloud.leftovers()


def test_bindings_survive_others_changes(cloud):
    """Two clusters that start at once both get their binding: a policy changed meanwhile is read again."""
    from cloudprovider.providers._calls import side_by_side

    prepared("zero")
    side_by_side([lambda name=name: prepared(name) for name in ("one", "two", "three")])
    titles = {one.get("condition", {}).get("title") for one in project_policy()}
    assert {"dask-zero", "dask-one", "dask-two", "dask-three"} <= titles


def test_a_shared_network_is_its_host_project_s(cloud):
    """Rules are made in the project whose network it is, and machines are in its subnetwork."""
    del cloud
    shared = {"host_project": "dask-emulated-host", "network": "shared", "subnetwork": "shared"}
    provider = prepared(**shared)
    machine = scheduler(provider)
    one = GCP().call("instances", "get", instance=machine.id, zone=machine.zone)

    assert "projects/dask-emulated-host/" in one.network_interfaces[0].subnetwork
    rules = {rule.name for rule in GCP().items("firewalls", project="dask-emulated-host")}
    assert "dask-it-scheduler" in rules
    provider.sweep("it")
    assert "dask-it-scheduler" not in {
        rule.name for rule in GCP().items("firewalls", project="dask-emulated-host")
    }


def test_with_cloud_nat_workers_have_no_address_outside(cloud):
    """Where the network has another way out, only the scheduler has an address that the world can see."""
    del cloud
    gcp = GCP()
    nat = {
        "name": "out",
        "nat_ip_allocate_option": "AUTO_ONLY",
        "source_subnetwork_ip_ranges_to_nat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    router = {"name": "out", "network": "projects/dask-emulated/global/networks/default", "nats": [nat]}
    gcp.done(gcp.change("routers", "insert", region="us-central1", router_resource=router))
    provider = prepared()
    assert scheduler(provider).public_address
    [worker] = workers(provider, 1).machines
    [worker] = until(
        lambda: [m for m in provider.describe([worker.id]) if m.private_address], 30, "it is placed"
    )
    assert None is worker.public_address


# -- orders ----------------------------------------------------------------------------------------------


def test_a_thousand_workers_in_twenty_calls(cloud):
    """From the order until all have arrived, 1,000 machines take at most 20 calls, the waits among them."""
    provider = prepared()
    machine = scheduler(provider)
    boot = dataclasses.replace(provider.boot("worker"), scheduler=f"tls://{machine.private_address}:8786")
    fleet = Fleet(provider, lambda: boot, Events())
    since = len(cloud.calls)
    fleet.ask(1000)
    seen: set[str] = set()

    def all_here() -> bool:
        assert None is fleet.reconcile(seen)
        running = {one.id for one in cloud.machines() if one.state == "RUNNING"}
        seen.update(running & fleet.machines.keys())
        return 1000 == len(seen)

    until(all_here, 60, "all have arrived")
    calls = called(cloud, since)
    assert 1 == calls["instances.bulkInsert"]
    assert sum(calls.values()) <= 20, calls


def test_workers_are_beside_their_scheduler(cloud):
    """Unless the user names several zones, workers are ordered in the scheduler's, and there alone."""
    provider = prepared()
    zone = scheduler(provider).zone
    assert {zone} == {machine.zone for machine in workers(provider, 3).machines}
    assert 1 == called(cloud)["instances.bulkInsert"]


def test_several_zones_share_an_order(cloud):
    """Of several zones, one regional call fills whichever have room."""
    zones = ["us-central1-a", "us-central1-b"]
    provider = prepared(zones=zones)
    scheduler(provider)
    cloud.inject("capacity", room=2, zone="us-central1-a")
    cloud.inject("capacity", room=3, zone="us-central1-b")
    created = workers(provider, 5)

    assert None is created.refusal
    assert {"us-central1-a": 2, "us-central1-b": 3} == Counter(machine.zone for machine in created.machines)
    assert 1 == called(cloud)["regionInstances.bulkInsert"]


def test_a_scheduler_without_room_goes_elsewhere(cloud):
    """An insert that was accepted and then came to nothing is made in the next zone, and leaves nothing."""
    cloud.inject("capacity", room=0, zone="us-central1-a")
    provider = prepared(zones=["us-central1-a", "us-central1-b"])
    assert "us-central1-b" == scheduler(provider).zone
    assert ["dask-it-scheduler"] == [machine.id for machine in provider.list("it")]


def test_no_room_anywhere(cloud):
    """When every zone refuses, the error is Google's, with what to do."""
    cloud.inject("capacity", room=0)
    with pytest.raises(CapacityError, match=r"0 of 1.*ZONE_RESOURCE_POOL_EXHAUSTED.*instance_type="):
        scheduler(prepared())


def test_the_second_type_comes_where_the_first_has_no_room(cloud):
    """Types come in the user's order, each for what those before it did not give."""
    provider = prepared(instance_type=["n2-standard-2", "e2-standard-4"])
    scheduler(provider)
    cloud.inject("capacity", room=2, type="n2-standard-2")
    created = workers(provider, 5)
    assert None is created.refusal
    kinds = Counter(machine.kind for machine in provider.describe([one.id for one in created.machines]))
    assert {"n2-standard-2": 2, "e2-standard-4": 3} == kinds


def test_partial_orders_say_why(cloud):
    """What came is kept, and the reason is that of the inserts that the order was made of."""
    provider = prepared()
    scheduler(provider)
    cloud.inject("quota", room=4)
    created = workers(provider, 9)

    assert len(created.machines) < 9
    assert isinstance(created.refusal, QuotaError)
    assert "CPUS" in str(created.refusal)
    assert f"{len(created.machines)} of 9" in str(created.refusal)


def test_a_name_that_is_taken(cloud):
    """A machine of somebody's with the scheduler's name is an error, and is not touched."""
    del cloud
    provider, gcp = prepared(), GCP()
    theirs = {
        "name": "dask-it-scheduler",
        "machine_type": "zones/us-central1-a/machineTypes/e2-standard-2",
        "disks": [{"boot": True, "initialize_params": {"source_image": "projects/cos-cloud/global/images/family/cos-stable"}}],
        "network_interfaces": [{"network": "global/networks/default"}],
    }  # fmt: skip
    gcp.done(gcp.change("instances", "insert", zone="us-central1-a", instance_resource=theirs))
    with pytest.raises(CloudError, match=r"already exists.*another name="):
        scheduler(prepare_zone(provider))
    provider.sweep("it")
    assert gcp.call("instances", "get", instance="dask-it-scheduler", zone="us-central1-a")


def prepare_zone(provider):
    """The same provider, whose machines may be in the first zone only."""
    kinds = {
        role: dataclasses.replace(kind, zones=dict.fromkeys(kind.types, ("us-central1-a",)))
        for role, kind in provider._plan.kinds.items()
    }
    provider._plan = dataclasses.replace(provider._plan, kinds=kinds)
    return provider


def test_gpus_are_ordered(cloud):
    """Machines with accelerators have as many as were asked for, and cannot be moved."""
    del cloud
    provider = prepared(instance_type=None, gpu=1, gpu_type="nvidia-tesla-t4")
    scheduler(provider)
    [machine] = workers(provider, 1).machines
    one = GCP().call("instances", "get", instance=machine.id, zone=machine.zone)

    assert [(1, "nvidia-tesla-t4")] == [
        (gpu.accelerator_count, gpu.accelerator_type.rpartition("/")[2]) for gpu in one.guest_accelerators
    ]
    assert "TERMINATE" == one.scheduling.on_host_maintenance


# -- what is there -----------------------------------------------------------------------------------------


def test_a_preempted_machine_says_so(cloud):
    """A machine that Google took back is gone, with that as its reason, though nothing of it is left."""
    provider = prepared(spot=True)
    scheduler(provider)
    [machine] = workers(provider, 1).machines
    until(lambda: provider.describe([machine.id])[0].state is State.running, 30, "it runs")
    cloud.interrupt(machine.id)

    def gone():
        [now] = provider.describe([machine.id])
        return now.state is State.gone and now.ended and now

    assert "preempted" in until(gone, 60, "it is gone").reason


def test_a_machine_that_powered_off_is_deleted(cloud):
    """A machine that stopped bills its disk on: whoever describes it deletes it."""
    provider, gcp = prepared(), GCP()
    machine = scheduler(provider)
    gcp.done(gcp.change("instances", "stop", instance=machine.id, zone=machine.zone))
    assert State.gone is provider.describe([machine.id])[0].state
    until(lambda: not [one for one in cloud.machines() if one.state != "DELETED"], 30, "it is deleted")


def test_what_was_just_made_may_not_be_listed(cloud):
    """A list that does not know the newest machines yet makes nobody gone."""
    provider = prepared()
    scheduler(provider)
    cloud.inject("stale", seconds=2)
    ids = [machine.id for machine in workers(provider, 3).machines]
    assert 3 == len(ids)
    assert not [one for one in provider.describe(ids) if one.state is State.gone]
    until(lambda: 3 == len(provider.describe(ids)), 30, "they are known")


# -- whose it is --------------------------------------------------------------------------------------------


def test_secrets_have_labels_and_an_end(cloud):
    """Both secrets say whose they are, and expire with the cluster."""
    del cloud
    provider = prepared()
    found = GCP().ask("secretmanager", "GET", "projects/dask-emulated/secrets")["secrets"]
    assert {"dask-it-client", "dask-it-machine"} == {one["name"].rpartition("/")[2] for one in found}
    for one in found:
        assert provider.identity == ledger.identity(one["labels"])
        until_s = time.mktime(time.strptime(one["expireTime"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        assert abs(until_s - provider.identity.expires) <= 1


def test_a_claim_is_one_call(cloud):
    """Of clusters that want one name at once, exactly one gets it, and the others' errors say whose it is."""
    from cloudprovider.providers._calls import side_by_side

    del cloud
    prepared("zero")
    ends = []

    def start():
        try:
            ends.append(prepared("same"))
        except CloudError as error:
            ends.append(error)

    side_by_side([start] * 4)
    lost = [one for one in ends if isinstance(one, CloudError)]
    assert 3 == len(lost)
    assert all("There is a cluster 'same'" in str(one) for one in lost)
    assert make("same").attach().client


# -- what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["compute", "secretmanager", "iam", "cloudresourcemanager"])
def test_a_disabled_api_is_named(cloud, service):
    """The error names the API and the command that enables it."""
    requests.post(f"{cloud.endpoint}/_cloud/services/{service}", json={}, timeout=10).raise_for_status()
    with pytest.raises(
        CredentialsError, match=f"gcloud services enable {service}.googleapis.com --project dask-em"
    ):
        prepared()


def test_a_wrong_project_is_named(cloud):
    """A project that is not there, or not ours, is an error that says where it is set."""
    del cloud
    with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        prepared(project="somebody-elses")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"machine_image": "projects/dask-emulated/global/images/none"}, "machine_image="),
        ({"network": "none"}, "network="),
        ({"region": "atlantis-north1"}, "atlantis-north1"),
    ],
)
def test_what_is_not_found_is_named(cloud, options, said):
    """An image, network or region that is not there is an error that names the option, and leaves nothing."""
    provider = make(**options)
    with pytest.raises(ConfigError, match=said):
        prepare(provider)
    provider.sweep("it")
    assert [] == cloud.leftovers()


def test_a_field_that_the_sdk_does_not_know(cloud):
    """A wrong name in instance_args= is an error that says so."""
    del cloud
    with pytest.raises(ConfigError, match=r"instance_args=.*no_such_field"):
        scheduler(prepared(instance_args={"no_such_field": 1}))


def test_quotas_are_the_region_s(cloud):
    """Before an order the region's own figures say how many machines fit, by the tightest of them."""
    del cloud
    [quota] = prepared().quotas("worker")
    assert quota.each
    assert "us-central1" in quota.name
    both = prepared("both", spot="fallback").quotas("worker")
    assert 2 == len(both)


def test_a_refusal_that_says_when_is_not_asked_sooner(cloud):
    """A call that is throttled is made again after the pause that the answer asks for."""
    gcp, path = GCP(), "projects/dask-emulated/secrets"
    gcp.ask("secretmanager", "GET", path)
    cloud.inject("throttle", operation="secrets.list", times=1)
    began = time.monotonic()
    gcp.ask("secretmanager", "GET", path)
    assert time.monotonic() - began >= 1.0  # Retry-After


# -- what the manager may do ---------------------------------------------------------------------------------


def permissions(*names: str) -> list[str]:
    return sorted({one for name in names for one in json.loads(policy(name))["includedPermissions"]})


def test_the_roles_hold_permissions_of_known_services_only():
    """Each permission is one of Compute Engine's, Secret Manager's, IAM's, Logging's or Resource Manager's."""
    services = {
        permission.partition(".")[0] for permission in permissions("gcp", "gcp-landing", "gcp-machine")
    }
    assert {"compute", "iam", "logging", "resourcemanager", "secretmanager"} == services
