"""CloudCluster on machines that are processes: what the user holds, end to end."""

from __future__ import annotations

import asyncio
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import dask
import pytest
from contract import until
from distributed import Client
from distributed.security import Security

from cloudprovider import (
    AccessError,
    BootError,
    CloudError,
    ConfigError,
    ProcessCluster,
)
from cloudprovider.events import Phase
from cloudprovider.providers.local import LocalConfig, LocalProvider
from cloudprovider.security import make_secrets


@pytest.fixture
def options(tmp_path):
    return {"directory": str(tmp_path), "progress": False}


@pytest.fixture
def cluster(options):
    with ProcessCluster(n_workers=2, **options) as cluster:
        cluster.wait_for_workers(2, timeout=60)
        yield cluster


def left(directory) -> list[str]:
    """Machines and clusters that are left in a directory."""
    config = LocalConfig.of(directory=str(directory))
    provider = LocalProvider(config, config.identity())
    return [*(m.id for m in provider.list()), *(path.name for path in provider.config.root.iterdir())]


def test_keys_of_the_user(options):
    """A `distributed.Security` of the user's own is used on every connection; another's is refused."""
    own = Security.temporary()
    with ProcessCluster(n_workers=1, security=own, **options) as cluster:
        with Client(cluster.scheduler_address, security=own) as client:
            assert 1 == client.submit(lambda: 1).result(timeout=60)
        with pytest.raises(OSError, match="TLS certificate does not match"):
            Client(cluster.scheduler_address, security=Security.temporary(), timeout=3)


def test_keys_that_lack_a_part(options):
    """A `Security` without a scheduler's certificate is an error before anything starts."""
    own = Security.temporary()
    lacking = Security(require_encryption=True, tls_ca_file=own.tls_ca_file)
    with pytest.raises(ConfigError, match="tls_scheduler_cert"):
        ProcessCluster(security=lacking, **options)


def test_last_copy_is_kept(cluster):
    """A machine that holds data which has nowhere to go is kept, and the cluster says so."""
    with Client(cluster) as client:
        future = client.scatter({"a": 1}, hash=False)
        cluster.scale(0)

        assert 1 == len(cluster.workers)
        [kept] = cluster.events.of(Phase.kept)
        assert "last copy" in kept.message
        assert {"a": 1} == {"a": future["a"].result(timeout=10)}


async def test_asynchronous(options, tmp_path):
    """The same with `async with` and `await`."""
    async with ProcessCluster(n_workers=1, asynchronous=True, **options) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            assert 3 == await client.submit(lambda: 3)
            await cluster.scale(2)
            await client.wait_for_workers(2, timeout=60)
            logs = await cluster.get_logs()
            assert 4 <= len(logs)
    assert [] == left(tmp_path)


async def test_awaiting_without_a_block(options, tmp_path):
    """`await Cluster(asynchronous=True)` starts it, and `await close()` ends it."""
    cluster = await ProcessCluster(asynchronous=True, **options)
    assert "running" == cluster.status.name
    await cluster.close()
    assert [] == left(tmp_path)


async def test_close_while_starting(options, tmp_path):
    """Closing a cluster that starts ends the start with an error, and leaves nothing."""
    cluster = ProcessCluster(n_workers=1, asynchronous=True, **options)
    start = asyncio.ensure_future(cluster._start())
    await asyncio.sleep(0.3)
    await cluster.close()

    with pytest.raises(CloudError, match="closed while it started"):
        await start
    assert [] == left(tmp_path)


def test_closing_twice(options):
    """A second close does nothing."""
    cluster = ProcessCluster(**options)
    cluster.close()
    cluster.close()
    assert "closed" == cluster.status.name


def test_scale_after_close_is_an_error(options):
    """A closed cluster says so."""
    cluster = ProcessCluster(**options)
    cluster.close()
    with pytest.raises(CloudError, match="closed"):
        cluster.scale(1)


def test_scale_down_right_after_an_arrival(options):
    """What Dask saw before the fleet did is returned once, and nobody in its place stays."""
    with ProcessCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
        for _ in range(4):
            cluster.scale(2)
            client.wait_for_workers(2, timeout=60)
            cluster.scale(0)
            assert {} == cluster.workers


def test_cluster_in_a_thread(options):
    """A cluster can be made, used and closed in a thread."""
    results = []

    def use():
        with ProcessCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
            results.append(client.submit(lambda: 7).result(60))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(90)
    assert [7] == results


def test_cluster_that_cannot_be_reached_stays(options, tmp_path):
    """`from_name` from where nobody can reach the cluster raises, and ends nothing of it."""
    ProcessCluster(name="afar", **options).detach()
    provider = LocalProvider(LocalConfig.of(**options), LocalConfig.of(name="afar").identity())
    secret = tmp_path / "afar" / "client.secret"
    before = secret.read_text()
    secret.write_text(make_secrets(provider.identity).client)
    with pytest.raises(AccessError, match="keys of another cluster"):
        ProcessCluster.from_name("afar", **options)
    secret.write_text(before)
    assert 1 == len(provider.list("afar"))
    ProcessCluster.from_name("afar", **options).close()


def test_unknown_name_lists_what_there_is(options, cluster):
    """`from_name` with a wrong name says which clusters there are."""
    with pytest.raises(CloudError, match=cluster.name):
        ProcessCluster.from_name("nobody", **options)


def test_several_workers_a_machine(options):
    """Four workers on two machines: counts are workers, and scale-down never splits a machine."""
    with ProcessCluster(n_workers=4, workers_per_machine=2, worker_nthreads=1, **options) as cluster:
        cluster.wait_for_workers(4, timeout=60)
        assert 2 == len(cluster.fleet.machines)
        assert cluster.observed == cluster.requested
        cluster.scale(2)
        assert 1 == len(cluster.fleet.machines)
        until(lambda: cluster.observed == cluster.requested, 20, "both workers of a machine are gone")


def test_looks_like_a_dask_cluster(cluster):
    """repr, HTML, widget and logs are Dask's own."""
    text = repr(cluster)
    assert text.startswith("ProcessCluster(")
    assert "workers=2" in text
    assert cluster.name in cluster._repr_html_()
    assert "Workers" in cluster._scaling_status()
    assert cluster._widget() is not None
    logs = cluster.get_logs()
    assert {"Cluster", "Scheduler"} < logs.keys()
    assert "scheduler" in logs["Cluster"]


def test_no_key_in_what_it_shows(cluster):
    """Neither repr nor logs nor events have key material."""
    shown = repr(cluster) + repr(cluster.config) + cluster._repr_html_() + str(cluster.get_logs())
    shown += "".join(map(repr, cluster.events))
    assert "PRIVATE" not in shown


def test_pickling_says_what_to_do(cluster):
    """A cluster cannot be pickled, and the error says what to send instead."""
    with pytest.raises(TypeError, match="from_name"):
        pickle.dumps(cluster)


def test_process_wide_config_is_left_alone(options):
    """Making a cluster changes nothing in Dask's config."""
    before = dask.config.serialize(dask.config.config)
    with ProcessCluster(**options):
        assert before == dask.config.serialize(dask.config.config)
    assert before == dask.config.serialize(dask.config.config)


def test_misspelt_option(options):
    """A misspelt keyword is an error before anything starts, with the right one."""
    with pytest.raises(ConfigError, match="did you mean 'n_workers'"):
        ProcessCluster(n_worker=1, **options)


def test_workers_that_cannot_boot_end_the_wait(options, tmp_path):
    """Workers that always die end `wait_for_workers` with a BootError, not with a time-out."""
    with ProcessCluster(worker_options={"no_such_option": 1}, n_workers=1, **options) as cluster:
        with pytest.raises(BootError, match="in a row"):
            cluster.wait_for_workers(1, timeout=120)
    assert [] == left(tmp_path)


def test_made_from_dask_config(options):
    """JupyterLab's Dask extension makes a cluster from `labextension.factory`."""
    factory = {
        "labextension": {
            "factory": {"module": "cloudprovider", "class": "ProcessCluster", "args": [], "kwargs": options}
        }
    }
    with dask.config.set(factory):
        import importlib

        chosen = dask.config.get("labextension.factory")
        made = getattr(importlib.import_module(chosen["module"]), chosen["class"])
        with made(*chosen["args"], **chosen["kwargs"]) as cluster:
            assert "running" == cluster.status.name


def run(script: str, **options) -> subprocess.Popen:
    code = textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


@pytest.mark.parametrize("delay", [0.0, 0.4, 1.5])
def test_interrupt_while_starting(tmp_path, delay):
    """Ctrl-C during the start leaves nothing, whenever it comes."""
    script = f"""
        from cloudprovider import ProcessCluster
        print("starting", flush=True)
        ProcessCluster(n_workers=2, directory={str(tmp_path)!r}, progress=False)
        import time; time.sleep(60)
    """
    process = run(script)
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)
    assert "KeyboardInterrupt" in output
    assert [] == left(tmp_path)
