"""Flexible scale sets of the embedded Azure: many machines by one call, and what becomes of half of them."""

from __future__ import annotations

import re

import pytest
from azure_subscription import GROUP, SIZE, Subscription, changed, code, refused
from contract import until


def sets(subscription):
    """The SDK's operations on scale sets."""
    return subscription.compute.virtual_machine_scale_sets


class TestCapacity:
    """As many machines as its capacity."""

    def test_one_call_makes_all(self, subscription):
        """Its machines are machines like any, named after it, with its tags, in the zones it names."""
        made = subscription.order_set(count=4, zones=["1", "3"])

        machines = list(subscription.compute.virtual_machines.list(GROUP))
        assert 4 == made.sku.capacity == len(machines)
        for machine in machines:
            assert re.fullmatch(r"many_[0-9a-f]{8}", machine.name)
            assert made.id == machine.virtual_machine_scale_set.id
            assert {"dask-cluster": "c"} == machine.tags
            assert machine.zones[0] in ("1", "3")
            assert re.fullmatch(r"dask-[0-9A-Z]{6}", machine.os_profile.computer_name)
        assert sorted(machine.name for machine in machines) == subscription.names()
        chosen = subscription.compute.virtual_machines.list(
            GROUP, filter=f"'virtualMachineScaleSet/id' eq '{made.id}'"
        )
        assert 4 == len(list(chosen))

    def test_a_scale_set_without_a_profile_is_a_name(self, subscription):
        """Without profile and capacity it has no machines, costs nothing, and is there."""
        made = subscription.order_set("name", sku=None, properties__virtualMachineProfile=None)

        assert ("Succeeded", []) == (made.provisioning_state, subscription.names("name"))
        assert ["name"] == [one.name for one in sets(subscription).list(GROUP)]

    def test_capacity_changes_by_put_and_by_patch(self, subscription):
        """More capacity makes more machines, less takes some away; tags change beside it."""
        subscription.order_set(count=1)
        subscription.order_set(count=2)
        assert 2 == len(subscription.names())

        sets(subscription).begin_update(GROUP, "many", {"sku": {"capacity": 3}, "tags": {"a": "b"}}).result()
        assert 3 == len(subscription.names())
        sets(subscription).begin_update(GROUP, "many", {"sku": {"capacity": 1}}).result()

        assert 1 == len(subscription.names()) == sets(subscription).get(GROUP, "many").sku.capacity

    def test_a_machine_can_join(self, subscription):
        """A machine that names a scale set is one of it, and is counted; the scale set must be there."""
        made = subscription.order_set(count=1)

        subscription.order("one", properties__virtualMachineScaleSet={"id": made.id})

        assert "one" in subscription.names()
        assert 2 == sets(subscription).get(GROUP, "many").sku.capacity
        missing = {"id": f"{made.id}-not"}
        expected = (400, "InvalidResourceReference")
        assert expected == code(subscription.order, "two", properties__virtualMachineScaleSet=missing)

    def test_machines_are_added_in_a_zone(self, subscription):
        """ScaleOut adds machines, all in one zone."""
        subscription.order_set(count=1, zones=["1", "2"])

        sets(subscription).begin_scale_out(
            GROUP, "many", {"capacity": 2, "properties": {"zone": "2"}}
        ).result()

        machines = subscription.compute.virtual_machines.list(GROUP)
        assert 3 == len(zones := [machine.zones[0] for machine in machines])
        assert 2 <= zones.count("2")

    def test_a_thousand_is_the_most(self, subscription):
        """A scale set has a thousand machines at most."""
        assert (400, "InvalidParameter") == code(subscription.order_set, count=1001)

    def test_long_lists_come_in_pages(self, emulated_azure):
        """The SDK follows from page to page."""
        emulated_azure.reset(running_s=3600.0)
        subscription = Subscription.of(emulated_azure).prepare()
        sets(subscription).begin_create_or_update(GROUP, "many", subscription.scale_set(501))

        found = [one.name for one in subscription.compute.virtual_machines.list(GROUP)]

        assert 501 == len(found) == len(set(found))
        assert 2 == sum("VirtualMachines.List" == call.operation for call in emulated_azure.calls)


class TestEnds:
    """Fewer machines, or none."""

    def test_many_are_deleted_by_one_call(self, subscription):
        """DeleteInstances ends those it names with all of theirs, and the capacity follows."""
        subscription.order_set(count=3)
        first, *rest = subscription.names()

        wanted = {"instanceIds": [*rest, "many_00000000"]}
        sets(subscription).begin_delete_instances(GROUP, "many", wanted, force_deletion=True).result()

        assert [first] == subscription.names()
        assert 1 == sets(subscription).get(GROUP, "many").sku.capacity
        assert 1 == len(list(subscription.network.network_interfaces.list(GROUP)))
        assert 1 == len(list(subscription.compute.disks.list()))

    def test_a_machine_that_deletes_itself_leaves_its_place(self, subscription):
        """Deleting a machine by itself takes it out of its scale set: it is not made again."""
        subscription.order_set(count=2)
        gone, stays = subscription.names()

        subscription.compute.virtual_machines.begin_delete(GROUP, gone).result()

        assert [stays] == subscription.names()
        assert 1 == sets(subscription).get(GROUP, "many").sku.capacity

    def test_it_goes_with_its_machines(self, subscription):
        """Deleting a scale set deletes its machines."""
        subscription.order_set(count=2)

        sets(subscription).begin_delete(GROUP, "many", force_deletion=True).result()

        assert [] == list(subscription.compute.virtual_machines.list(GROUP))
        assert (404, "ResourceNotFound") == code(sets(subscription).get, GROUP, "many")
        sets(subscription).begin_delete(GROUP, "many").result()

    def test_an_eviction_is_told_to_all_of_its_set(self, subscription):
        """Every machine of a scale set reads the events of the others, which say whose they are."""
        import requests

        spot = {
            "properties__virtualMachineProfile__priority": "Spot",
            "properties__virtualMachineProfile__evictionPolicy": "Delete",
        }
        subscription.order_set(count=2, **spot)
        one, other = subscription.names()
        subscription.cloud.interrupt(one)

        url = f"{subscription.cloud.endpoint}/_cloud/azure/{other}/metadata/scheduledevents"
        query, headers = {"api-version": "2020-07-01"}, {"Metadata": "true"}
        told = requests.get(url, params=query, headers=headers, timeout=10).json()
        assert [[one]] == [event["Resources"] for event in told["Events"]]


class TestHalf:
    """What comes stays."""

    def test_what_there_is_room_for_comes_and_the_rest_has_failed(self, subscription):
        """The operation fails after it was accepted; machines that came run and bill, the others are there, failed."""
        subscription.cloud.inject("capacity", room=2)

        error = refused(subscription.order_set, count=3)

        assert "AllocationFailed" == error.error.code
        states = sorted(machine.state for machine in subscription.cloud.machines())
        assert ["failed", "running", "running"] == states
        assert "Failed" == sets(subscription).get(GROUP, "many").provisioning_state
        failed = [one for one in subscription.cloud.machines() if one.state == "failed"]
        view = subscription.compute.virtual_machines.instance_view(GROUP, failed[0].id)
        assert "ProvisioningState/failed/AllocationFailed" == view.statuses[0].code
        assert failed[0].id not in {entry.machine for entry in subscription.cloud.ledger}
        sets(subscription).begin_delete_instances(GROUP, "many", {"instanceIds": [failed[0].id]}).result()
        assert 2 == len(subscription.names())

    def test_a_full_subnet_gives_as_many_as_it_has_addresses(self, subscription):
        """Machines come as long as there are addresses; then the operation fails, and leaves nothing half made."""
        small = {"properties": {"addressPrefix": "10.58.200.0/29"}}
        subnet = subscription.network.subnets.begin_create_or_update(GROUP, "net", "small", small).result()
        document = subscription.scale_set(5, public=True)
        profile = document["properties"]["virtualMachineProfile"]["networkProfile"]
        nic = profile["networkInterfaceConfigurations"][0]["properties"]
        nic["ipConfigurations"][0]["properties"]["subnet"] = {"id": subnet.id}

        error = refused(sets(subscription).begin_create_or_update, GROUP, "many", document)

        assert "SubnetIsFull" == error.error.code
        assert 3 == len(subscription.names())
        assert 3 == len(list(subscription.network.public_ip_addresses.list(GROUP)))

    def test_what_was_refused_at_once_makes_nothing(self, subscription):
        """Too few vCPUs in the quota refuse the whole order, before it is accepted."""
        subscription.cloud.inject("quota", room=4)

        error = refused(subscription.order_set, count=3)

        assert (409, "OperationNotAllowed") == (error.status_code, error.error.code)
        assert "Total Regional Cores quota" in error.message
        assert "Current Limit: 4" in error.message
        assert (404, "ResourceNotFound") == code(sets(subscription).get, GROUP, "many")

    def test_it_goes_on_when_one_of_its_machines_is_deleted_meanwhile(self, emulated_azure):
        """A machine that is deleted on its way is not missed by the order."""
        emulated_azure.reset(running_s=1.0)
        subscription = Subscription.of(emulated_azure).prepare()
        order = sets(subscription).begin_create_or_update(GROUP, "many", subscription.scale_set(2))
        subscription.compute.virtual_machines.begin_delete(GROUP, subscription.names()[0]).result()

        assert "Succeeded" == order.result().provisioning_state
        assert until(lambda: 1 == len(subscription.names()), 30, "one is left")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"properties__orchestrationMode": "Uniform"}, (501, "NotImplemented")),
        ({"properties__platformFaultDomainCount": None}, (400, "InvalidParameter")),
        ({"properties__singlePlacementGroup": True}, (400, "InvalidParameter")),
        ({"properties__virtualMachineProfile": None}, (400, "InvalidParameter")),
        (
            {"properties__virtualMachineProfile__networkProfile__networkApiVersion": None},
            (400, "InvalidParameter"),
        ),
        ({"sku__name": "Standard_Nothing"}, (400, "InvalidParameter")),
        ({"zones": ["4"]}, (400, "InvalidAvailabilityZone")),
        (
            {"properties__virtualMachineProfile__osProfile__computerNamePrefix": "_"},
            (400, "InvalidParameter"),
        ),
    ],
)
def test_what_cannot_be_a_scale_set_is_refused(subscription, changes, expected):
    """Before anything is made, what Flexible scale sets need is asked for."""
    document = changed(subscription.scale_set(1), changes)

    assert expected == code(sets(subscription).begin_create_or_update, GROUP, "many", document)
    assert SIZE != document["sku"]["name"] or [] == subscription.cloud.machines()
