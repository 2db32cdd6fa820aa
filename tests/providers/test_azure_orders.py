"""Orders of AzureProvider on the embedded cloud: what comes, what does not, and that nothing is made twice."""

from __future__ import annotations

import dataclasses

import pytest
from contract import until

from cloudprovider.errors import CapacityError
from cloudprovider.provider import State
from cloudprovider.providers.azure import AzureProvider, AzureVMConfig
from cloudprovider.security import make_secrets

SIZE, LARGER = "Standard_D2s_v5", "Standard_D4s_v5"
GROUP = "dask-westeurope"


@pytest.fixture(scope="module")
def cluster(emulated_azure_process):
    """A cluster without machines, which all tests of this module order from."""
    emulated_azure_process.reset(profile="instant", time_scale=1.0, seed=0)
    with emulated_azure_process.active():
        options = {"region": "westeurope", "allow_from": "127.0.0.1/32", "scheduler_instance_type": SIZE}
        config = AzureVMConfig.of(name="it", instance_type=[SIZE, LARGER], **options)
        provider = AzureProvider(config, config.identity())
        boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
        provider.prepare(boots, make_secrets(provider.identity))
        yield provider
    emulated_azure_process.reset()


@pytest.fixture
def cloud(emulated_azure_process):
    yield emulated_azure_process
    emulated_azure_process.clear()


@pytest.fixture
def made(cloud, cluster):
    """The cluster with none of the machines and options of other tests."""
    config = cluster.config
    yield cluster
    cloud.clear()
    cluster.config = config
    cluster.delete([machine.id for machine in cluster.list("it")])
    until(lambda: not billed(cloud), 30, "no machine is left")


def workers(made: AzureProvider, count: int):
    boot = dataclasses.replace(made.boot("worker"), scheduler="tls://127.0.0.1:1")
    return made.create(boot, count)


def gone(made: AzureProvider, id: str):
    """What is said of a machine when it is gone."""

    def look():
        return next((one for one in made.describe([id]) if one.state is State.gone), None)

    return until(look, 30, "the machine is gone")


def billed(cloud) -> list:
    return [machine for machine in cloud.machines() if machine.state != "deleted"]


def test_a_scale_set_that_half_succeeds(cloud, made):
    """What came is kept, what could not be made is deleted, and the error says how many and why."""
    cloud.inject("capacity", room=2)
    created = workers(made, 5)

    assert 2 == len(created.machines)
    assert isinstance(created.refusal, CapacityError)
    assert "2 of 5" in str(created.refusal)
    assert "AllocationFailed" in str(created.refusal)
    until(lambda: 2 == len(billed(cloud)), 30, "what could not be made is deleted")
    assert {machine.id for machine in created.machines} == {machine.id for machine in billed(cloud)}


def test_spot_falls_back_and_then_to_another_size(cloud, made):
    """What spot and the first size refuse comes on demand, and of the second size."""
    made.config = dataclasses.replace(made.config, spot="fallback")
    cloud.inject("capacity", room=1, market="spot")
    cloud.inject("capacity", room=1, market="on-demand", type=SIZE)
    created = workers(made, 3)

    assert created.refusal is None
    assert [("on-demand", SIZE), ("on-demand", LARGER), ("spot", SIZE)] == sorted(
        (machine.market, machine.kind) for machine in created.machines
    )


@pytest.mark.parametrize(
    ("fault", "figures"),
    [
        ("lost-answer", {"operation": "VirtualMachineScaleSets.CreateOrUpdate", "times": 1}),
        ("error-after-effect", {"operation": "VirtualMachineScaleSets.CreateOrUpdate", "times": 1}),
        ("throttle", {"operation": "VirtualMachines.List", "times": 1}),
        ("stale", {"seconds": 1.5}),
    ],
)
def test_nothing_is_made_twice(cloud, made, fault, figures):
    """A lost answer, a server's error, a throttled list or a late one make neither more nor fewer machines."""
    cloud.inject(fault, **figures)
    created = workers(made, 3)

    assert created.refusal is None
    assert 3 == len(created.machines) == len(billed(cloud))


def test_scale_sets_without_machines_go(cloud, made):
    """The next order removes the scale sets of earlier ones that have no machine any more."""
    [first] = workers(made, 1).machines
    made.delete([first.id])
    gone(made, first.id)
    until(lambda: not billed(cloud), 30, "the machine is gone")
    workers(made, 1)

    def sets():
        every = made.azure.pages("compute", "virtual_machine_scale_sets.list", GROUP)
        return [one for one in every if one["name"] != "dask-it"]

    until(lambda: 1 == len(sets()), 30, "the empty scale set is gone")


def test_a_machine_that_stops_bills_until_it_is_deleted(cloud, made):
    """Who sees a machine that powered off deletes it: Azure bills it on."""
    [machine] = workers(made, 1).machines
    until(lambda: made.describe([machine.id])[0].state is State.running, 30, "it runs")
    cloud.kill(machine.id)

    assert gone(made, machine.id).reason
    until(lambda: not billed(cloud), 30, "it bills no more")


@pytest.mark.parametrize("fault", ["error-after-effect", "lost-answer", "throttle"])
def test_an_end_is_asked_for_again(cloud, made, fault):
    """The call that deletes machines is made again when it was not answered as it should."""
    created = workers(made, 2)
    cloud.inject(fault, operation="VirtualMachineScaleSets.DeleteInstances", times=1)
    made.delete([machine.id for machine in created.machines])

    until(lambda: not billed(cloud), 30, "they are gone")
