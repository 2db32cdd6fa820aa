"""Machines of the embedded Azure: what they boot, when they bill, how they end, and what they can ask."""

from __future__ import annotations

import time

import pytest
import requests
from azure_subscription import GROUP, KEY, LOCATION, Subscription, code, refused
from contract import until

from cloudprovider import prices

SPOT = {
    "properties__priority": "Spot",
    "properties__evictionPolicy": "Delete",
    "properties__billingProfile": {"maxPrice": -1},
}


#: A machine with a service that takes its time to stop.
SLOW = """#cloud-config
write_files:
  - path: /etc/systemd/system/slow.service
    content: |
      [Service]
      ExecStart=/bin/sh -c "trap '' TERM; while :; do sleep 1; done"
      TimeoutStopSec=60
runcmd:
  - systemctl daemon-reload
  - systemctl start slow.service
  - echo it is slow
"""


def metadata(subscription, name, path, method="GET", headers=None, **given):
    """What a machine's metadata service answers."""
    url = f"{subscription.cloud.endpoint}/_cloud/azure/{name}/metadata/{path}"
    headers = {"Metadata": "true"} if headers is None else headers
    return requests.request(method, url, headers=headers, timeout=10, **given)


class TestBoot:
    """From an order to an operating system."""

    def test_a_machine_runs_its_custom_data(self, subscription):
        """The custom data is executed, and boot diagnostics keep what the serial console says."""
        made = subscription.order("one", "echo it runs")

        assert "Succeeded" == made.provisioning_state
        assert until(lambda: "it runs" in subscription.console(), 30, "the custom data has run")

    def test_the_console_goes_with_its_machine(self, subscription):
        """The serial console's address carries its own right; the console is gone when its machine is."""
        subscription.order("one", "echo it runs")
        machines = subscription.compute.virtual_machines
        url = machines.retrieve_boot_diagnostics_data(GROUP, "one").serial_console_log_blob_uri
        seen = [requests.get(one, timeout=10).status_code for one in (url, f"{url}x")]
        machines.begin_delete(GROUP, "one").wait()

        assert [200, 403] == seen
        assert 404 == requests.get(url, timeout=10).status_code

    def test_secrets_are_never_told(self, subscription):
        """Custom data and passwords are taken, and not told again."""
        made = subscription.order(
            "one",
            properties__osProfile__adminPassword="Secret-123-secret",
            properties__osProfile__linuxConfiguration=None,
        )

        assert (None, None) == (made.os_profile.custom_data, made.os_profile.admin_password)

    def test_what_belongs_to_it_is_made_with_it(self, subscription):
        """An interface, a public address and a disk are made by the one call, the disk with the machine's tags."""
        made = subscription.order("one", public=True)

        interface = next(iter(subscription.network.network_interfaces.list(GROUP)))
        address = next(iter(subscription.network.public_ip_addresses.list(GROUP)))
        disk = subscription.compute.disks.get(GROUP, made.storage_profile.os_disk.name)
        assert made.id == interface.virtual_machine.id == disk.managed_by
        assert interface.id == made.network_profile.network_interfaces[0].id
        assert interface.ip_configurations[0].private_ip_address == address.ip_address
        assert {"dask-cluster": "c"} == disk.tags

    def test_an_interface_of_its_own_can_be_named(self, subscription):
        """A machine can have an interface that is there, which nobody else may have then."""
        configuration = {"name": "ip", "properties": {"subnet": {"id": subscription.subnet}}}
        document = {"location": LOCATION, "properties": {"ipConfigurations": [configuration]}}
        interface = subscription.network.network_interfaces.begin_create_or_update(
            GROUP, "n", document
        ).result()
        profile = {"networkInterfaces": [{"id": interface.id}]}

        subscription.order("one", properties__networkProfile=profile)

        assert (400, "NicInUse") == code(subscription.order, "two", properties__networkProfile=profile)
        assert (400, "NicInUse") == code(subscription.network.network_interfaces.begin_delete, GROUP, "n")

    def test_a_machine_is_put_once(self, subscription):
        """Putting the same machine again makes no second one, and changes its tags."""
        first = subscription.order("one")
        second = subscription.order("one", tags={"other": "tag"})

        assert first.vm_id == second.vm_id
        assert {"other": "tag"} == second.tags
        assert 1 == len(subscription.cloud.machines())

    def test_lists_know_groups_places_and_states(self, subscription):
        """Machines are listed by group, by subscription and by place, with what they do if asked."""
        subscription.order("one")
        machines = subscription.compute.virtual_machines

        assert ["one"] == [one.name for one in machines.list(GROUP)]
        assert ["one"] == [one.name for one in machines.list_by_location(LOCATION)]
        assert [] == list(machines.list_by_location("eastus"))
        shown = next(iter(machines.list_all(status_only="true")))
        assert "PowerState/running" in [status.code for status in shown.instance_view.statuses]
        assert (400, "BadRequest") == code(machines.list, GROUP, filter="name eq 'one'")

    def test_a_list_may_be_stale(self, subscription):
        """A list shows a machine only some time after it was made."""
        subscription.cloud.inject("stale", seconds=60)
        subscription.order("one")

        assert [] == list(subscription.compute.virtual_machines.list(GROUP))
        assert "one" == subscription.compute.virtual_machines.get(GROUP, "one").name

    def test_machines_without_a_way_out_pull_nothing(self, subscription):
        """A private machine in a new subnet has no way to a registry, unless the subnet says so."""
        subnets = subscription.network.subnets
        closed = subnets.begin_create_or_update(
            GROUP, "net", "closed", {"properties": {"addressPrefix": "10.58.128.0/24"}}
        ).result()
        pull = "docker pull ghcr.io/dask/dask:latest || echo no way"
        document = subscription.machine("one", pull)
        document["properties"]["storageProfile"]["imageReference"] = {
            "publisher": "microsoft-dsvm",
            "offer": "ubuntu-hpc",
            "sku": "2204",
            "version": "latest",
        }
        nic = document["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]["properties"]
        nic["ipConfigurations"][0]["properties"]["subnet"]["id"] = closed.id

        subscription.compute.virtual_machines.begin_create_or_update(GROUP, "one", document).result()

        assert until(lambda: "no way" in subscription.console(), 30, "the pull has failed")


class TestEnds:
    """When a machine ends, and what bills until then."""

    def test_a_machine_that_powers_itself_off_bills_on(self, subscription):
        """A guest that shuts down is stopped and not deallocated: it bills in full until it is deleted."""
        subscription.order("one", "shutdown -h now")
        assert subscription.becomes("stopped")
        before = subscription.bills()["Standard_D2s_v5"]
        assert until(lambda: subscription.bills()["Standard_D2s_v5"] > before, 30, "it bills on")

        subscription.compute.virtual_machines.begin_delete(GROUP, "one").result()

        after = subscription.bills()["Standard_D2s_v5"]
        time.sleep(0.2)
        assert after == subscription.bills()["Standard_D2s_v5"]

    def test_deleting_ends_all_that_is_to_go_with_it(self, subscription):
        """With deleteOption=Delete interface, address and disk go with the machine, and nothing bills any more."""
        subscription.order("one", public=True)

        subscription.compute.virtual_machines.begin_delete(GROUP, "one", force_deletion=True).result()

        assert [] == list(subscription.network.network_interfaces.list_all())
        assert [] == list(subscription.network.public_ip_addresses.list_all())
        assert [] == list(subscription.compute.disks.list())
        after = subscription.bills()
        assert {"Standard_D2s_v5", "StandardSSD_LRS 30 GiB", "public IPv4"} == set(after)
        time.sleep(0.2)
        assert after == subscription.bills()

    def test_what_is_to_be_kept_stays_and_bills(self, subscription):
        """A disk without deleteOption is detached, stays, and bills until it is deleted itself."""
        made = subscription.order("one", properties__storageProfile__osDisk__deleteOption=None)
        name = made.storage_profile.os_disk.name
        disks = subscription.compute.disks
        assert (409, "OperationNotAllowed") == code(disks.begin_delete, GROUP, name)

        subscription.compute.virtual_machines.begin_delete(GROUP, "one").result()

        before = subscription.bills()["StandardSSD_LRS 30 GiB"]
        assert until(lambda: subscription.bills()["StandardSSD_LRS 30 GiB"] > before, 30, "the disk bills")
        assert any(name in line for line in subscription.cloud.leftovers())
        disks.begin_delete(GROUP, name).result()
        assert [] == list(disks.list())

    def test_deallocated_is_billed_no_more_and_can_start_again(self, subscription):
        """Deallocating ends what the machine costs, and leaves its disk."""
        machines = subscription.compute.virtual_machines
        subscription.order("one")

        machines.begin_deallocate(GROUP, "one").result()

        assert "deallocated" == subscription.power()
        after = subscription.bills()
        time.sleep(0.2)
        assert after["Standard_D2s_v5"] == subscription.bills()["Standard_D2s_v5"]
        assert after["StandardSSD_LRS 30 GiB"] < subscription.bills()["StandardSSD_LRS 30 GiB"]
        machines.begin_start(GROUP, "one").result()
        assert "running" == subscription.power()

    def test_powered_off_bills_on(self, subscription):
        """PowerOff stops the operating system, and the bill goes on."""
        subscription.order("one")

        subscription.compute.virtual_machines.begin_power_off(GROUP, "one", skip_shutdown=True).result()

        assert "stopped" == subscription.power()
        before = subscription.bills()["Standard_D2s_v5"]
        assert until(lambda: subscription.bills()["Standard_D2s_v5"] > before, 30, "it bills on")

    def test_deleting_what_is_not_there_is_no_error(self, subscription):
        """A second delete is answered 204."""
        machines = subscription.compute.virtual_machines
        machines.begin_delete(GROUP, "nobody").result()

        assert "" == subscription.cloud.calls[-1].error

    def test_a_machine_deleted_on_its_way_never_runs(self, emulated_azure):
        """Deleting a machine that is still being made ends its order as preempted."""
        emulated_azure.reset(running_s=30.0)
        subscription = Subscription.of(emulated_azure).prepare()
        machines = subscription.compute.virtual_machines
        order = machines.begin_create_or_update(GROUP, "one", subscription.machine("one"))

        machines.begin_delete(GROUP, "one").result()

        assert (200, "OperationPreempted") == code(order.result)
        assert {"StandardSSD_LRS 30 GiB"} == set(subscription.bills())

    def test_a_forced_deletion_does_not_wait_for_the_first(self, subscription):
        """A machine whose operating system takes its time to shut down is gone at once when it is forced."""
        subscription.order("one", SLOW)
        assert until(lambda: "it is slow" in subscription.console(), 30, "the service has started")
        machines = subscription.compute.virtual_machines
        first = machines.begin_delete(GROUP, "one")
        time.sleep(0.5)
        assert not first.done()

        machines.begin_delete(GROUP, "one", force_deletion=True).result()

        assert subscription.is_gone()
        first.wait(30)

    def test_a_killed_machine_stops_and_bills(self, subscription):
        """When its host fails, a machine is stopped without notice; what it holds still bills."""
        subscription.order("one", "sleep 600")

        subscription.cloud.kill("one")

        assert subscription.becomes("stopped")
        assert [] == [machine.pid for machine in subscription.cloud.machines() if machine.pid]

    def test_a_restart_boots_again(self, subscription):
        """Restart lets the operating system begin again; the machine runs all the while."""
        subscription.order("one", "echo first boot")
        assert until(lambda: "first boot" in subscription.console(), 30, "it has booted")

        subscription.compute.virtual_machines.begin_restart(GROUP, "one").result()

        assert until(lambda: 2 == subscription.console().count("running 'init'"), 30, "it boots again")
        assert "running" == subscription.power()

    def test_prices_are_the_tables(self, subscription):
        """A second costs what the price table says, without a minimum."""
        subscription.order("one")
        subscription.compute.virtual_machines.begin_delete(GROUP, "one").result()

        entry = next(one for one in subscription.cloud.ledger if one.kind == "Standard_D2s_v5")
        hourly = prices.azure_price(LOCATION, "Standard_D2s_v5")
        assert entry.price <= (entry.seconds + 1) * hourly / 3600
        assert entry.price >= entry.seconds * hourly / 3600

    def test_an_ephemeral_disk_costs_nothing_and_cannot_be_deallocated(self, subscription):
        """An OS disk on the machine's own storage is no disk resource, and its machine cannot be deallocated."""
        disk = {
            "createOption": "FromImage",
            "caching": "ReadOnly",
            "diffDiskSettings": {"option": "Local", "placement": "ResourceDisk"},
        }
        subscription.order(
            "one",
            properties__hardwareProfile={"vmSize": "Standard_D2ads_v5"},
            properties__storageProfile__osDisk=disk,
        )

        assert [] == list(subscription.compute.disks.list())
        assert {"Standard_D2ads_v5"} == set(subscription.bills())
        call = subscription.compute.virtual_machines.begin_deallocate
        assert (409, "OperationNotAllowed") == code(call, GROUP, "one")


class TestSpot:
    """Spot machines and their notices."""

    def events(self, subscription, name="one"):
        """The scheduled events that a machine reads."""
        return metadata(subscription, name, "scheduledevents?api-version=2020-07-01").json()["Events"]

    def test_an_eviction_is_announced_and_then_deletes(self, emulated_azure):
        """A Preempt event comes at least half a minute before; then the machine is deleted with all of its own."""
        emulated_azure.reset(time_scale=0.04)
        subscription = Subscription.of(emulated_azure).prepare()
        subscription.order("one", **SPOT)
        assert [] == self.events(subscription)

        emulated_azure.interrupt("one")

        event = self.events(subscription)[0]
        told = ("Preempt", "VirtualMachine", ["one"], "Scheduled", "Platform")
        names = ("EventType", "ResourceType", "Resources", "EventStatus", "EventSource")
        assert told == tuple(event[name] for name in names)
        assert event["NotBefore"].endswith("GMT")
        assert subscription.is_gone()
        assert [] == list(subscription.compute.disks.list())
        assert "Evicted" in emulated_azure.machines()[0].reason

    def test_a_machine_that_is_ready_is_evicted_at_once(self, subscription):
        """StartRequests approves the event, so that nothing waits for the rest of its time."""
        subscription.order("one", **SPOT)
        subscription.cloud.interrupt("one")
        id = self.events(subscription)[0]["EventId"]

        body = {"StartRequests": [{"EventId": id}]}
        answer = metadata(subscription, "one", "scheduledevents?api-version=2020-07-01", "POST", json=body)

        assert 200 == answer.status_code
        assert subscription.is_gone()

    def test_without_delete_it_is_deallocated(self, subscription):
        """The default eviction policy keeps the machine, deallocated."""
        subscription.order("one", properties__priority="Spot")
        subscription.compute.virtual_machines.simulate_eviction(GROUP, "one")
        body = {"StartRequests": [{"EventId": self.events(subscription)[0]["EventId"]}]}

        metadata(subscription, "one", "scheduledevents?api-version=2020-07-01", "POST", json=body)

        assert subscription.becomes("deallocated")

    def test_only_spot_machines_are_evicted(self, subscription):
        """A machine of regular priority has no eviction policy, and is not taken back."""
        subscription.order("one")

        assert (409, "OperationNotAllowed") == code(
            subscription.order, "two", properties__evictionPolicy="Delete"
        )
        call = subscription.compute.virtual_machines.simulate_eviction
        assert (409, "OperationNotAllowed") == code(call, GROUP, "one")
        with pytest.raises(ValueError, match="no Spot machine"):
            subscription.cloud.interrupt("one")

    def test_spot_costs_less(self, subscription):
        """The ledger has spot machines at the spot price."""
        subscription.order("one", **SPOT)

        entry = next(one for one in subscription.cloud.ledger if one.kind == "Standard_D2s_v5")
        assert "spot" == entry.market
        assert prices.azure_price(LOCATION, "Standard_D2s_v5", "spot") < prices.azure_price(
            LOCATION, "Standard_D2s_v5"
        )


class TestMetadata:
    """The instance metadata service."""

    def test_it_tells_who_the_machine_is(self, subscription):
        """Name, place, size, tags, addresses and the scale set, as document and as text."""
        made = subscription.order("one", public=True, zones=["2"])
        told = metadata(subscription, "one", "instance?api-version=2021-02-01").json()

        compute, interface = told["compute"], told["network"]["interface"][0]
        assert ("one", LOCATION, "Standard_D2s_v5", "2") == tuple(
            compute[name] for name in ("name", "location", "vmSize", "zone")
        )
        assert [{"name": "dask-cluster", "value": "c"}] == compute["tagsList"]
        assert made.vm_id == compute["vmId"]
        address = subscription.cloud.machines()[0].address
        assert address.startswith("127.")
        assert {"privateIpAddress": address, "publicIpAddress": address} == interface["ipv4"]["ipAddress"][0]
        path = "instance/compute/resourceId?api-version=2021-02-01&format=text"
        assert made.id == metadata(subscription, "one", path).text

    @pytest.mark.parametrize(
        ("path", "headers", "expected"),
        [
            ("instance?api-version=2021-02-01", {}, 400),
            ("instance?api-version=2021-02-01", {"Metadata": "true", "X-Forwarded-For": "1.2.3.4"}, 400),
            ("instance", None, 400),
            ("instance?api-version=2199-01-01", None, 400),
            ("instance/compute/nothing?api-version=2021-02-01", None, 404),
            ("teapot?api-version=2021-02-01", None, 404),
            ("identity/oauth2/token?api-version=2018-02-01&resource=x", None, 400),
        ],
    )
    def test_it_is_as_strict_as_azures(self, subscription, path, headers, expected):
        """The header is needed, a proxy is refused, versions are checked, and there is no token without identity."""
        subscription.order("one")

        assert expected == metadata(subscription, "one", path, headers=headers).status_code

    def test_a_machine_deletes_itself_by_its_own_identity(self, subscription):
        """With a role on its group a machine's identity may delete it; without one it is refused, and may nothing else."""
        from azure.mgmt.authorization import AuthorizationManagementClient
        from azure.mgmt.msi import ManagedServiceIdentityClient

        config = subscription.compute._config
        given = (config.credential, subscription.id)
        front = config.credential_scopes[0].removesuffix("/.default")
        options = {"base_url": front, "credential_scopes": config.credential_scopes}
        identity = ManagedServiceIdentityClient(*given, **options).user_assigned_identities.create_or_update(
            GROUP, "machines", {"location": LOCATION}
        )
        wanted = {"type": "UserAssigned", "userAssignedIdentities": {identity.id: {}}}
        made = subscription.order("one", identity=wanted)
        asked = f"identity/oauth2/token?api-version=2018-02-01&resource={front}/"
        token = metadata(subscription, "one", asked).json()["access_token"]
        headers, url = {"Authorization": f"Bearer {token}"}, f"{front}{made.id}?api-version=2024-07-01"
        assert 403 == requests.delete(url, headers=headers, timeout=10).status_code

        roles = AuthorizationManagementClient(*given, **options)
        scope = f"/subscriptions/{subscription.id}/resourceGroups/{GROUP}"
        role = next(
            iter(roles.role_definitions.list(scope, filter="roleName eq 'Virtual Machine Contributor'"))
        )
        roles.role_assignments.create(
            scope,
            "00000000-0000-0000-0000-000000000001",
            {
                "role_definition_id": role.id,
                "principal_id": identity.principal_id,
                "principal_type": "ServicePrincipal",
            },
        )

        assert 202 == requests.delete(f"{url}&forceDeletion=true", headers=headers, timeout=10).status_code
        assert subscription.is_gone()

    def test_nobody_has_an_identity_that_is_not_there(self, subscription):
        """An order with an identity that does not exist is refused."""
        id = subscription.path("Microsoft.ManagedIdentity", "userAssignedIdentities", "nobody")
        identity = {"type": "UserAssigned", "userAssignedIdentities": {id: {}}}

        error = refused(subscription.order, "one", identity=identity)

        assert "FailedIdentityOperation" == error.error.code


def test_a_public_key_is_part_of_the_order(subscription):
    """The keys that may log in are told again."""
    made = subscription.order("one")

    assert KEY == made.os_profile.linux_configuration.ssh.public_keys[0].key_data
