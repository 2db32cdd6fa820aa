"""What is known of a machine after its end, in a sentence."""

from __future__ import annotations

import os
import re
import signal

import boto3
import pytest
from cloudruntime.exits import Ended, Exit, explain
from contract import until
from embedded import SMALL

from cloudprovider import CloudError, FargateCluster, ProcessCluster
from cloudprovider.blackbox import CAUSES, why
from cloudprovider.provider import Machine, State

START = "Worker m1 (2 vCPU, on-demand, z1) ended after 1 min 00 s: "


def ended(reason: str, logs: str = "", heard: str = ""):
    """Why a machine ended after a minute."""
    machine = Machine(
        id="m1",
        role="worker",
        state=State.gone,
        kind="2 vCPU",
        zone="z1",
        created=1000.0,
        ended=1060.0,
        reason=reason,
    )
    return why(machine, logs, heard)


def last(exit: Exit, detail: str = "") -> str:
    """A log whose last line is the runtime's."""
    return f"before\ndask-cloud-runtime: ended: {Ended(exit, detail)}\n"


#: What clouds, machines and schedulers say, and what it means.
ENDS = {
    "ECS, memory": (
        "OutOfMemoryError: Container killed due to memory usage",
        "",
        "",
        "memory",
        "memory would",
    ),
    "kernel, memory": (
        "exit code 137",
        "Out of memory: Killed process 42 (python)",
        "",
        "memory",
        "out of memory",
    ),
    "runtime, kernel, memory": (
        "",
        "python invoked oom-killer\n"
        + last(Exit.failed, "the Dask process was killed by signal 9: out of memory?"),
        "",
        "memory",
        "out of memory",
    ),
    "nobody knows who killed": (
        f"Essential container in task exited; {explain(137)}",
        "",
        "",
        "killed",
        "signal 9",
    ),
    "runtime, killed": (
        "",
        last(Exit.failed, "the Dask process was killed by signal 11"),
        "",
        "killed",
        "killed by signal 11",
    ),
    "Fargate spot": (
        "Your Spot Task was interrupted.",
        last(Exit.interrupted, "SIGTERM"),
        "",
        "spot",
        "took it back",
    ),
    "Fargate spot, killed": (
        f"Your Spot Task was interrupted; {explain(137)}",
        "",
        "",
        "spot",
        "took it back",
    ),
    "EC2 spot": ("Server.SpotInstanceTermination: Spot instance termination", "", "", "spot", "took it back"),
    "GCE spot": ("preempted: Google took the spot machine back", "", "", "spot", "took it back"),
    "Azure spot": (
        "it was evicted, or deleted itself",
        "",
        "Preempt by Platform",
        "spot",
        "heard 'Preempt by",
    ),
    "Azure, who knows": (
        "it was evicted, or deleted itself",
        "",
        "",
        "unknown",
        "it was evicted, or deleted itself",
    ),
    "Azure, own end": ("it was evicted, or deleted itself", last(Exit.idle), "", "lease", "nothing to do"),
    "GCE host": ("its host failed", "", "", "host", "the cloud's own host"),
    "EC2 host": ("Server.InternalError: Internal error on launch", "", "", "host", "the cloud's own host"),
    "no image": (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s)",
        "",
        "",
        "image",
        "image=",
    ),
    "no image on a machine": ("", "docker: manifest unknown: manifest unknown", "", "image", "image="),
    "image without Dask": (explain(62), "", "", "image", "its image cannot run Dask"),
    "budget": ("", last(Exit.budget), "", "budget", "a larger budget="),
    "hard end": (explain(74), "", "", "lease", "max_lifetime"),
    "GCE, hard end": ("its run time was over", "", "", "lease", "max_lifetime"),
    "idle": (explain(71), "", "", "lease", "idle_timeout"),
    "no client": ("", last(Exit.no_client), "", "lease", "no client renewed"),
    "no client, work": ("", last(Exit.no_client_work), "", "lease", "no client renewed"),
    "network": (explain(70), "", "", "network", "lost its scheduler"),
    "asked": (explain(0), last(Exit.asked), "", "asked", "asked for its end"),
    "heard alone": ("", "", str(Ended(Exit.expired)), "lease", "its scheduler heard 'expired"),
    "SIGTERM": ("", last(Exit.interrupted, "SIGTERM"), "", "stopped", "told it to stop"),
    "somebody's hand": (
        "Client.UserInitiatedShutdown: User initiated shutdown",
        "",
        "",
        "stopped",
        "told it",
    ),
    "no secret": ("", last(Exit.secret), "", "start", "it could not start"),
    "versions": (explain(63), "", "", "start", "it could not start"),
    "user's exit": (
        "",
        last(Exit.failed, "the Dask process ended with code 3; its error is above"),
        "",
        "code",
        "3",
    ),
    "shell's exit": ("exit code 1", "", "", "code", "exit code 1"),
    "returned": ("released", last(Exit.asked), "", "returned", "not needed any more"),
    "nothing": ("", "", "", "unknown", "neither the cloud nor its log says why"),
    "strange": ("Host terminated", "", "", "unknown", "Host terminated"),
}


@pytest.mark.parametrize(("reason", "logs", "heard", "kind", "said"), ENDS.values(), ids=ENDS)
def test_every_way_to_end_is_told_apart(reason, logs, heard, kind, said):
    """The cloud's words, the last line and what the scheduler heard make one word and one sentence."""
    why = ended(reason, logs, heard)

    assert (kind, True) == (why.kind, said in str(why)), str(why)
    assert str(why).startswith(START)


def test_every_cause_is_met():
    """No cause is there that no end in the table has."""
    assert {cause.kind for cause in CAUSES} <= {kind for *_, kind, _ in ENDS.values()}


def test_every_exit_of_the_runtime_is_known():
    """However a machine's runtime ends, the sentence says more than its code."""
    kinds = {exit: ended("", last(exit)).kind for exit in Exit}

    assert [Exit.failed] == [exit for exit, kind in kinds.items() if kind == "unknown"]  # its detail says why


def test_evidence_is_quoted_once():
    """The cloud's reason and the machine's last line are joined; what both say is said once."""
    idle = "idle: the cluster had nothing to do for as long as its lease allows"
    assert f"{START}Host terminated; it said 'x'." == str(
        ended("Host terminated", "dask-cloud-runtime: ended: x")
    )
    assert 1 == str(ended(f"exit 71: {idle}", last(Exit.idle), idle)).count(idle)


def test_memory_that_a_worker_survived_is_no_cause():
    """A restarted worker process is not why its machine ended later."""
    logs = "Worker exceeded 95% memory budget. Restarting\n" + last(Exit.expired)
    assert "lease" == ended("", logs).kind


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
        assert ("killed", True) == (cluster.why(killed).kind, "signal 9" in str(cluster.why(killed)))
        cluster.scale(0)
        returned = cluster.why(other)
        assert "it was not needed any more" in str(returned)
        assert "distributed" in returned.logs
        with pytest.raises(CloudError, match=f"Did you mean .*{other}"):
            cluster.why(other[:-1])


def test_interrupted_spot_machine(emulated_aws):
    """What became of a spot machine is known after it is gone, with its last lines, also to its scheduler alone."""
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
        assert "spot" == said.kind
        assert "dask-cloud-runtime: ended: interrupted" in said.logs

        def kept(dask_scheduler):
            leases = dask_scheduler.plugins["dask-cloud-leases"]
            page = leases.page
            return (
                dict(leases.words),
                list(leases.left),
                type(page).tell.__code__.co_filename,
                set(page.words),
            )

        client = cluster.get_client()
        until(lambda: machine in client.run_on_scheduler(kept)[3], 60, "the page has its last words")
        words, left, came_from, _ = client.run_on_scheduler(kept)
        assert re.search("distributed.nanny|Nanny", words[machine]), (
            "the machine left its log with its scheduler"
        )
        assert ["interrupted"] == [one["reason"] for one in left if one["machine"] == machine]
        assert "<string>" == came_from, "no boot brings the page: the manager did"
