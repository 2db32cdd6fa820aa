"""What nobody must see or reach, on every cloud: keys, ports, and what user code finds."""

from __future__ import annotations

import json
import os
import socket
import ssl

import embedded
import pytest
from distributed import Client

#: An environment in which whatever is written into another language breaks.
ODD = {"ODD": 'it\'s "odd"\nand $HOME ${x} %{y} \\ é', "EMPTY": ""}


@pytest.fixture(scope="module", params=embedded.ACCOUNTS)
def account(request, tmp_path_factory):
    """An account of each cloud in turn, for all tests of this module."""
    with embedded.lasting(request.param, request, tmp_path_factory) as account:
        yield account


@pytest.fixture(scope="module")
def cluster(account):
    """A cluster that runs while its tests look at it."""
    with account.start(n_workers=1, environment=ODD) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        yield cluster


def test_nothing_is_open_to_the_world(account, cluster):
    """The cloud's rules let in who was named, and nobody else."""
    assert sorted(cluster.config.sources()) == sorted(account.admitted())


def test_no_key_is_shown(account, cluster):
    """Neither the cloud's own view of machines nor logs, events and reprs have a key or a token."""
    shown = account.shown(cluster)
    assert cluster.name in shown
    logs = cluster.get_logs()
    assert {"Cluster", "Scheduler"} < logs.keys()
    shown += repr(cluster) + repr(cluster.config) + repr(cluster.provider.__dict__) + cluster._repr_html_()
    shown += str(logs) + "".join(map(repr, cluster.events))
    shown += "".join(
        account.provider(cluster.name).logs(machine, 1000)
        for machine in (*cluster.workers, cluster.scheduler_machine.id)
    )
    keys = json.loads(cluster.estate.client_secret)
    assert "PRIVATE KEY" not in shown
    assert keys["token"] not in shown
    assert keys["key"].split("\n")[1] not in shown


def test_user_code_finds_no_key(cluster):
    """User code sees its own variables, whatever is in them, and no key."""
    with Client(cluster) as client:
        seen = client.submit(lambda: dict(os.environ)).result(timeout=60)
    assert ODD == {name: seen.get(name) for name in ODD}
    assert not [name for name, value in seen.items() if "PRIVATE" in value]
    assert "DASK_CLOUD_SECRET" not in seen


def answer_without_a_certificate(host: str, port: int) -> bytes:
    """What a TLS server says to a client that has no certificate; raises when it refuses the connection."""
    context = ssl._create_unverified_context()
    with socket.create_connection((host, port), timeout=10) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return tls.recv(1)


@pytest.mark.parametrize("service", ["scheduler", "front", "worker"])
def test_without_a_certificate_a_machine_refuses(cluster, service):
    """A port speaks TLS, and says nothing to who has no certificate of this cluster's."""
    machine = cluster.scheduler_machine
    host, port = (machine.public_address or machine.private_address), 8786
    if service == "front":
        port = cluster.scheduler_info["services"]["front"]
    elif service == "worker":
        [address] = cluster.scheduler_info["workers"]
        host, _, port = address.removeprefix("tls://").rpartition(":")
    # TLS 1.3 tells it by an alert, or by hanging up; a port that is closed would be another error.
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        if not answer_without_a_certificate(host, int(port)):
            raise ConnectionResetError("hung up without a word")
