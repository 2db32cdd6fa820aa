"""What is known of a machine after its end, in a sentence."""

from __future__ import annotations

import os
import signal

import boto3
import pytest
from contract import until
from embedded import SMALL

from cloudprovider import CloudError, FargateCluster, ProcessCluster
from cloudprovider.blackbox import why
from cloudprovider.provider import Machine, State


def ended(reason: str, logs: str = "", **more) -> str:
    """The sentence for a machine that ended after a minute."""
    machine = Machine(
        id="m1",
        role="worker",
        state=State.gone,
        kind="2 vCPU",
        zone="z1",
        created=1000.0,
        ended=1060.0,
        reason=reason,
        **more,
    )
    return str(why(machine, logs))


def test_what_is_known_is_said():
    """The cloud's reason and the machine's last line are joined; what both say is said once."""
    last = "dask-cloud-runtime: ended: idle: the cluster had nothing to do\n"
    start = "Worker m1 (2 vCPU, on-demand, z1) ended after 1 min 00 s: "
    assert f"{start}neither the cloud nor its log says why." == ended("")
    assert f"{start}Host terminated." == ended("Host terminated.")
    assert f"{start}it said 'idle: the cluster had nothing to do'." == ended("", f"a\n{last}")
    both = "Host terminated; it said 'idle: the cluster had nothing to do'."
    assert f"{start}{both}" == ended("Host terminated", last)
    same = "exit 71: idle: the cluster had nothing to do"
    assert f"{start}{same}." == ended(same, last)


@pytest.mark.parametrize(
    ("reason", "logs"),
    [
        ("OutOfMemoryError: Container killed due to memory usage", ""),
        ("exit code 137", "Out of memory: Killed process 42 (python)"),
    ],
)
def test_out_of_memory(reason, logs):
    """A machine that ran out of memory says so, with what to do, by the cloud's word or the kernel's."""
    assert "it ran out of memory" in ended(reason, logs)
    assert "more memory would do" in ended(reason, logs)


def test_memory_that_a_worker_survived_is_no_cause():
    """A restarted worker process is not why its machine ended later."""
    logs = "Worker exceeded 95% memory budget. Restarting\ndask-cloud-runtime: ended: expired: the hard end"
    assert "out of memory" not in ended("", logs)


def test_killed_returned_and_living_machines(tmp_path):
    """A killed machine, one that was returned and one that lives are told apart, by machine or worker."""
    options = {"directory": str(tmp_path), "progress": False, "workers_per_machine": 2, "worker_nthreads": 1}
    with ProcessCluster(n_workers=4, **options) as cluster:
        cluster.wait_for_workers(4, timeout=60)
        killed, other = cluster.fleet.machines
        assert "has not ended: it runs" in str(cluster.why(f"{other}-1"))
        record = next(cluster.config.root.glob(f"*/machines/{killed}.json"))
        os.kill(int(record.read_text().split('"pid": ')[1].split(",")[0].rstrip("}")), signal.SIGKILL)
        until(lambda: killed in cluster.fleet.ended, 30, "the machine is known to be gone")
        assert "signal 9" in str(cluster.why(killed))
        cluster.scale(0)
        returned = cluster.why(other)
        assert "it was not needed any more" in str(returned)
        assert "distributed" in returned.logs
        with pytest.raises(CloudError, match=f"Did you mean .*{other}"):
            cluster.why(other[:-1])


def test_interrupted_spot_machine(emulated_aws):
    """What became of a spot machine is known after it is gone, with its last lines."""
    with FargateCluster(n_workers=1, spot=True, **SMALL) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        [machine] = cluster.fleet.machines
        emulated_aws.interrupt(machine)
        until(lambda: machine in cluster.fleet.ended, 60, "the machine is gone")
        tasks = boto3.client("ecs").list_tasks(cluster="dask")["taskArns"]
        assert not [arn for arn in tasks if arn.endswith(machine)]
        said = cluster.why(machine)
        assert "Spot Task was interrupted" in str(said)
        assert "spot, us-east-1" in str(said)
        assert "dask-cloud-runtime: ended: interrupted" in said.logs
