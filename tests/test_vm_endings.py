"""Machines of the embedded Google Cloud and Azure that nobody looks after: they delete themselves, and nothing bills on."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from contract import until
from distributed import Client

from cloudprovider import AzureVMCluster, GCPCluster

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded clouds run on Linux")

#: What each cloud calls the deletion of a machine, and one that is gone.
DELETE = {"gcp": "instances.delete", "azure": "VirtualMachines.Delete"}
OVER = {"gcp": "DELETED", "azure": "deleted"}
MANAGERS = {
    "gcp": (GCPCluster, {"region": "europe-west1", "instance_type": "e2-standard-2"}),
    "azure": (AzureVMCluster, {"region": "westeurope", "instance_type": "Standard_D2as_v5"}),
}


class Left:
    """A cluster that was left alone, on one of the clouds."""

    def __init__(self, name, cloud):
        self.name, self.cloud = name, cloud

    def start(self, **options):
        manager, own = MANAGERS[self.name]
        return manager(
            name="left", n_workers=1, progress=False, shutdown_on_close=False, **{**own, **options}
        )

    def machines(self):
        return [machine for machine in self.cloud.machines() if machine.state != OVER[self.name]]

    def deletions(self):
        return [call for call in self.cloud.calls if call.operation == DELETE[self.name]]

    def all_gone(self):
        """Whether soon all machines are deleted, and neither they nor their disks and addresses cost more."""
        until(lambda: not self.machines(), 60, "machines delete themselves")
        until(self.bills_no_more, 10, "nothing bills")
        return True

    def bills_no_more(self):
        before = self.cloud.ledger
        time.sleep(0.2)
        return before == self.cloud.ledger


@pytest.fixture(params=["gcp", "azure"])
def left(request):
    cloud = request.getfixturevalue(f"emulated_{request.param}")
    cloud.reset(profile="instant", time_scale=0.1, seed=0)
    yield Left(request.param, cloud)
    cloud.clear()


def test_machines_that_are_told_to_end_delete_themselves(left):
    """No manager is there to do it, and the role that lets them is not known everywhere at first."""
    with left.start() as cluster:
        address, security = cluster.scheduler_address, cluster.security
    with Client(address, security=security) as client:
        client.wait_for_workers(1, timeout=60)
        left.cloud.inject("denied", DELETE[left.name], times=1)
        client.shutdown()

    assert left.all_gone()
    assert {"", "denied"} <= {"denied" if call.error else "" for call in left.deletions()}


@pytest.mark.parametrize("left", ["azure"], indirect=True)
def test_a_machine_that_hangs_ends_by_its_lease(left):
    """Nothing in its container renews the lease, and a machine that only powers off would bill on."""

    def hang():  # the first process, which Dask's is a child of
        os.kill(os.getppid(), signal.SIGSTOP)

    with left.start(start_timeout="12 s") as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        client.run(hang, nanny=True)
        client.run_on_scheduler(hang)

    assert left.all_gone()
