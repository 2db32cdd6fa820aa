"""EC2Cluster without containers, on the embedded AWS: uv makes each machine's environment of a lock."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest
from contract import until
from distributed import Client
from locks import locked, needs_uv

from cloudprovider import BootError, ConfigError, EC2Cluster
from cloudprovider.emulator import Emulator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux"),
    pytest.mark.filterwarnings("ignore:Mismatched versions found"),  # pandas and numpy are not in the lock
]

SMALL = {"progress": False, "instance_type": "m7i.large", "scheduler_instance_type": "c7i.large"}


@pytest.fixture
def cloud():
    with Emulator("aws") as emulator:
        emulator.reset(profile="instant", time_scale=1.0, seed=0)
        with emulator.active():
            yield emulator


@pytest.fixture
def lock(tmp_path):
    text = locked("distributed")
    needs_uv(text, tmp_path)
    (tmp_path / "requirements.txt").write_text(text)
    return tmp_path / "requirements.txt"


def nothing_left(cloud) -> bool:
    living = lambda: [machine for machine in cloud.machines() if machine.state != "terminated"]  # noqa: E731
    return until(lambda: not living() and not cloud.leftovers(), 60, "nothing is left")


def test_a_life(cloud, lock):
    """Machines compute in what uv made of the lock and nothing else, and another process adds more of them."""

    def seen() -> tuple[str, bool, str, list[str]]:
        return sys.prefix, find_spec("pytest") is not None, os.environ["QUOTED"], sys.path

    own = {"QUOTED": '"a" \\b $C', "PYTHONPATH": "/opt/mine"}
    EC2Cluster(name="uv", boot="uv", lock=str(lock), environment=own, **SMALL).detach()
    lock.unlink()  # another computer would not have it
    with EC2Cluster.from_name("uv", progress=False) as cluster:
        cluster.scale(1)
        cluster.wait_for_workers(1, timeout=60)
        with Client(cluster) as client:
            prefix, has_pytest, quoted, path = client.submit(seen).result(timeout=60)
        console = cluster.provider.logs(cluster.scheduler_machine.id, lines=1000)

    assert prefix.endswith("/opt/dask-cloud")
    assert not has_pytest
    assert '"a" \\b $C' == quoted
    assert "/opt/mine" in path
    assert "dask-cloud-runtime: scheduler" in console
    assert nothing_left(cloud)


def test_what_uv_cannot_install_fails_the_boot(cloud, lock):
    """The error has uv's own words, and the machine is gone."""
    lock.write_text(lock.read_text().replace("zict==", "zict==99."))
    with pytest.raises(BootError, match=r"there is no version of zict==99\.") as error:
        EC2Cluster(name="uv", boot="uv", lock=str(lock), **SMALL)

    assert "make the lock again" in str(error.value)
    assert nothing_left(cloud)


def test_a_wrong_lock_is_refused_before_any_call(cloud, tmp_path):
    """Nothing is ordered for a lock whose machines could not speak with the client."""
    (tmp_path / "lock.txt").write_text("distributed==2020.1.0\n")
    before = len(cloud.calls)
    with pytest.raises(ConfigError, match=r"distributed 2020\.1\.0, the client has"):
        EC2Cluster(boot="uv", lock=str(tmp_path / "lock.txt"), **SMALL)

    assert before == len(cloud.calls)
