"""Compute Engine's instances with something inside: booted, told who they are, taken away, and paid for."""

from __future__ import annotations

import json
import threading
import time

import gce_account
import pytest
from gce_account import PLATFORM, ZONE, disk, script, spot

from cloudprovider.emulator import Emulator
from cloudprovider.emulator.images import dask_image

OUTSIDE = [{"access_configs": [{"name": "outside", "type_": "ONE_TO_ONE_NAT"}]}]
ACCOUNT = "machine-1@{}.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def made(emulated_gcp_process):
    """The clients of a project."""
    with emulated_gcp_process.active():
        project = gce_account.Project(emulated_gcp_process)
        assert project.credentials
        return project


@pytest.fixture
def project(emulated_gcp, made):
    """A project whose machines have an inside, as on its first day."""
    del emulated_gcp
    return made


def until(wanted, timeout_s=60):
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not (found := wanted()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def states(project):
    """The machines' states, seen from behind."""
    return {one.id: one.state for one in project.cloud.machines()}


def bill(project):
    """The ledger by what bills."""
    return {(entry.machine, entry.kind): entry for entry in project.cloud.ledger}


def machine_account(project, *bindings):
    """A service account for machines, which may do this and no more; its email."""
    email = ACCOUNT.format(project.id)
    path = "/iam/v1/projects/{project}/serviceAccounts"
    assert 200 == project.web("POST", path, {"accountId": "machine-1"})[0]
    path = "/cloudresourcemanager/v1/projects/{project}:%sIamPolicy"
    _, policy = project.web("POST", path % "get", {"options": {"requestedPolicyVersion": 3}})
    policy["bindings"] += [{**one, "members": [f"serviceAccount:{email}"]} for one in bindings]
    assert 200 == project.web("POST", path % "set", {"policy": {**policy, "version": 3}})[0]
    return email


class TestMetadata:
    """The metadata server."""

    def test_a_machine_is_told_who_it_is(self, project):
        """Its name, number, zone, address, attributes, and project; folders are lists of names."""
        found = project.run("a", metadata=script("true"), tags={"items": ["dask"]}, labels={"x": "y"})
        about = {
            "instance/name": "a",
            "instance/id": str(found.id),
            "instance/zone": f"projects/123456789012/zones/{ZONE}",
            "instance/hostname": f"a.{ZONE}.c.{project.id}.internal",
            "instance/network-interfaces/0/ip": found.network_interfaces[0].network_i_p,
            "instance/preempted": "FALSE",
            "instance/maintenance-event": "NONE",
            "instance/tags": '["dask"]',
            "project/project-id": project.id,
            "project/numeric-project-id": "123456789012",
        }
        assert about == {path: project.metadata("a", path) for path in about}
        assert "#cloud-config" in project.metadata("a", "instance/attributes/user-data")
        assert "access-configs/\nip\nmac\nmtu\nnetwork\n" == project.metadata(
            "a", "instance/network-interfaces/0/"
        )
        whole = json.loads(project.metadata("a", "instance/", recursive="true", alt="json"))
        assert (found.id, "a", "FALSE") == (whole["id"], whole["name"], whole["preempted"])
        assert found.network_interfaces[0].network_i_p == whole["networkInterfaces"][0]["ip"]

    def test_only_machines_are_told(self, project):
        """Without its header nothing is told, nor to a proxy, nor of what there is not."""
        project.run("a")
        assert 403 == project.metadata("a", "instance/name", flavor=None)
        assert 404 == project.metadata("a", "instance/colour")
        assert 404 == project.metadata("b", "instance/name")
        project.delete("a")
        assert 404 == project.metadata("a", "instance/name")

    def test_who_waits_is_told_of_a_change(self, project):
        """`wait_for_change` answers when a value has another, or when the time is over."""
        found = project.run("a")
        assert 404 == project.metadata("a", "instance/attributes/k", wait_for_change="true", timeout_sec="0")
        told = []
        waiting = threading.Thread(
            target=lambda: told.append(project.metadata("a", "instance/attributes/", wait_for_change="true"))
        )
        waiting.start()
        body = {"items": [{"key": "k", "value": "v"}], "fingerprint": found.metadata.fingerprint}
        time.sleep(0.2)
        project.done(
            project.ask("instances", "set_metadata_unary", zone=ZONE, instance="a", metadata_resource=body)
        )
        waiting.join(30)
        assert ["k\n"] == told

    def test_without_an_account_there_is_no_token(self, project):
        """A machine that runs as nobody has no service accounts."""
        project.run("a")
        assert 404 == project.metadata("a", "instance/service-accounts/default/token")


class TestIdentity:
    """What a machine may do by its own service account."""

    def test_its_own_cluster_and_no_other(self, project):
        """By a condition on names it deletes machines of its cluster; the refusal names the permission."""
        own = f"resource.name.startsWith('projects/{project.id}/zones/{ZONE}/instances/dask-a-')"
        role = {"role": "roles/compute.instanceAdmin.v1", "condition": {"title": "own", "expression": own}}
        email = machine_account(project, role)
        account = [{"email": email, "scopes": [PLATFORM]}]
        project.run("dask-a-w-1", service_accounts=account)
        project.run("dask-b-w-1", service_accounts=account)

        assert email == project.metadata("dask-a-w-1", "instance/service-accounts/default/email")
        token = json.loads(project.metadata("dask-a-w-1", "instance/service-accounts/default/token"))
        path = f"/compute/v1/projects/{{project}}/zones/{ZONE}/instances/dask-%s-w-1"
        refused = project.web("DELETE", path % "b", token=token["access_token"])
        assert 403 == refused[0]
        assert "Required 'compute.instances.delete' permission for" in refused[1]["error"]["message"]
        status, operation = project.web("DELETE", path % "a", token=token["access_token"])
        assert (200, email) == (status, operation["user"])
        until(lambda: "DELETED" == states(project)["dask-a-w-1"])
        assert "RUNNING" == states(project)["dask-b-w-1"]

    def test_no_more_than_its_scopes(self, project):
        """A token without the scope of an API does not do for it."""
        account = [{"email": "default", "scopes": ["https://www.googleapis.com/auth/logging.write"]}]
        project.run("a", service_accounts=account)
        token = json.loads(project.metadata("a", "instance/service-accounts/default/token"))["access_token"]
        path = f"/compute/v1/projects/{{project}}/zones/{ZONE}/instances/a"
        status, answer = project.web("GET", path, token=token)
        assert (403, "Request had insufficient authentication scopes.") == (
            status,
            answer["error"]["message"],
        )


class TestLife:
    """From the order to the end."""

    def test_user_data_runs_and_the_console_tells(self, project):
        """cloud-init does what the user data says, and the serial console says so, from any place on."""
        project.run("a", metadata=script("echo hello from $(uname -n)", "curl -s -H Metadata-Flavor:Google "
                                         "http://$GCE_METADATA_HOST/computeMetadata/v1/instance/name"))  # fmt: skip
        text = project.console("a", "hello from")
        assert "Container-Optimized OS" in text
        ask = {"zone": ZONE, "instance": "a", "start": len(text) + 10_000_000}
        assert "" == project.ask("instances", "get_serial_port_output", **ask).contents

    def test_a_machine_that_powers_off_still_has_a_disk(self, project):
        """It is TERMINATED and bills no more, but its disk stays and bills on until it is deleted."""
        project.run("a", metadata=script("shutdown -h now"))
        project.wait("a", "TERMINATED")
        machine, boot = (bill(project)["a", kind] for kind in ("n2-standard-2", "pd-balanced 10 GB"))
        time.sleep(0.3)
        later = bill(project)
        assert machine.seconds == later["a", "n2-standard-2"].seconds
        assert boot.seconds < later["a", "pd-balanced 10 GB"].seconds
        assert ["compute disk: a 10 GB", "compute instance: a TERMINATED"] == project.cloud.leftovers()
        project.delete("a")
        assert [] == project.cloud.leftovers()
        ended = bill(project)["a", "pd-balanced 10 GB"].seconds
        assert ended == bill(project)["a", "pd-balanced 10 GB"].seconds

    def test_images_come_from_outside(self, project):
        """A machine without an address outside pulls no image, unless its network has Cloud NAT."""
        pull = script(f"docker pull {dask_image()} && echo pulled || echo alone")
        project.run("a", metadata=pull)
        assert "Client.Timeout exceeded" in project.console("a", "alone")
        router = {"name": "out", "network": "global/networks/default", "nats": [{"name": "nat"}]}
        project.done(project.ask("routers", "insert_unary", region="us-central1", router_resource=router))
        project.run("b", metadata=pull)
        project.console("b", "pulled")

    def test_stopped_and_started(self, project):
        """It keeps its disk and its address, and boots again."""
        first = project.run(
            "a", metadata=script("echo begin >> /home/count; echo lines $(wc -l < /home/count)")
        )
        project.console("a", "lines 1")
        project.done(project.ask("instances", "stop_unary", zone=ZONE, instance="a"))
        assert "TERMINATED" == project.get("a").status
        project.done(project.ask("instances", "start_unary", zone=ZONE, instance="a"))
        second = project.get("a")
        assert "RUNNING" == second.status
        assert first.network_interfaces[0].network_i_p == second.network_interfaces[0].network_i_p
        assert 2 == sum(entry.kind == "n2-standard-2" for entry in project.cloud.ledger)

    def test_a_failed_host_lets_it_begin_again(self, project):
        """A standard machine is restarted where it may be; another is TERMINATED."""
        project.run("a")
        project.run("b", scheduling={"automatic_restart": False})
        for name in ("a", "b"):
            project.cloud.kill(name)
        until(lambda: {"a": "RUNNING", "b": "TERMINATED"} == states(project))
        kinds = {one.operation_type for one in project.ask("zone_operations", "list", zone=ZONE)}
        assert {"compute.instances.hostError", "compute.instances.automaticRestart"} <= kinds

    def test_a_spot_machine_is_told_half_a_minute_before(self, project):
        """Its metadata says `preempted`, it may end its work, and then it is stopped."""
        watch = (
            "until curl -s -H Metadata-Flavor:Google "
            "http://$GCE_METADATA_HOST/computeMetadata/v1/instance/preempted | grep TRUE; do sleep 0.2; done"
        )
        project.run(
            "a",
            scheduling=spot(preemption_notice_duration={"seconds": 3}),
            metadata=script(watch, "echo told in time"),
        )
        project.run("b")
        with pytest.raises(ValueError, match="only a Spot VM is preempted"):
            project.cloud.interrupt("b")
        project.cloud.interrupt("a")
        assert "TRUE" == project.metadata("a", "instance/preempted")
        project.console("a", "told in time")
        project.wait("a", "TERMINATED")
        assert "preempted" == next(one.reason for one in project.cloud.machines() if one.id == "a")
        operations = project.ask("zone_operations", "list", zone=ZONE)
        assert "compute.instances.preempted" in {one.operation_type for one in operations}

    def test_a_spot_machine_may_be_deleted_instead(self, project):
        """With DELETE nothing of it is left."""
        project.run("a", scheduling=spot(instance_termination_action="DELETE"))
        project.cloud.interrupt("a")
        until(lambda: "DELETED" == states(project)["a"])
        assert [] == project.cloud.leftovers()

    def test_a_maintained_machine_is_told_and_begins_again(self, project):
        """One that may not move while it runs is told a minute before; then it is stopped and started."""
        project.cloud.reset(time_scale=0.02)
        project.run("a", scheduling={"on_host_maintenance": "TERMINATE"})
        project.done(project.ask("instances", "simulate_maintenance_event_unary", zone=ZONE, instance="a"))
        assert "TERMINATE_ON_HOST_MAINTENANCE" == project.metadata("a", "instance/maintenance-event")
        until(lambda: 2 == sum(entry.kind == "n2-standard-2" for entry in project.cloud.ledger))
        assert ("RUNNING", "NONE") == (
            project.get("a").status,
            project.metadata("a", "instance/maintenance-event"),
        )

    def test_a_limited_machine_ends(self, project):
        """After maxRunDuration, in the cloud's time, it is deleted without anybody asking."""
        project.cloud.reset(time_scale=0.02)
        limit = {"max_run_duration": {"seconds": 60}, "instance_termination_action": "DELETE"}
        project.run("a", scheduling=limit)
        until(lambda: "DELETED" == states(project)["a"])
        assert [] == project.cloud.leftovers()


def test_machines_have_no_namespaces():
    """They are on loopback: another network is refused before any process starts."""
    with pytest.raises(ValueError, match="use network='loopback'"):
        Emulator("gcp", network="namespaces")


class TestBill:
    """What it costs."""

    def test_a_minute_at_the_least(self, project):
        """Each machine bills by its seconds, a minute at the least; Spot VMs, disks and addresses by their prices."""
        project.run("a", network_interfaces=OUTSIDE)
        project.run("b", scheduling=spot(), disks=[disk(size_gb=20)])
        project.delete("a")
        project.delete("b")
        told = bill(project)
        minute = {key: entry.price * 60 for key, entry in told.items()}
        assert {
            ("a", "n2-standard-2"),
            ("a", "pd-balanced 10 GB"),
            ("a", "public IPv4"),
            ("b", "n2-standard-2"),
            ("b", "pd-balanced 20 GB"),
        } == set(minute)
        assert minute["b", "n2-standard-2"] < minute["a", "n2-standard-2"] == pytest.approx(0.0971, rel=0.01)
        assert 0.005 == pytest.approx(minute["a", "public IPv4"])
        assert 2 * minute["a", "pd-balanced 10 GB"] == pytest.approx(minute["b", "pd-balanced 20 GB"])
        assert ["on-demand", "spot"] == [told[name, "n2-standard-2"].market for name in "ab"]


class TestLogs:
    """The containers' logs."""

    def test_gcplogs(self, project):
        """What a container writes under `gcplogs` is in Cloud Logging, with the machine that it is of."""
        email = machine_account(project, {"role": "roles/logging.logWriter"})
        command = (
            f"docker run --name work --log-driver gcplogs {dask_image()} python -c 'print(\"said by work\")'"
        )
        account = [{"email": email, "scopes": [PLATFORM]}]
        own = {"service_accounts": account, "network_interfaces": OUTSIDE}
        found = project.run("a", metadata=script(command, "echo over"), **own)
        project.console("a", "over")
        body = {
            "resourceNames": [f"projects/{project.id}"],
            "filter": f'resource.labels.instance_id = "{found.id}" AND jsonPayload.message = "said by work"',
        }
        entries = until(lambda: project.web("POST", "/logging/v2/entries:list", body)[1].get("entries"))
        assert "/work" == entries[0]["jsonPayload"]["container"]["name"]
