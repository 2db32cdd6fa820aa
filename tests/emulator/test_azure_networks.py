"""The embedded Azure's networks: what is made, what is refused, and what may not be deleted while it is used."""

from __future__ import annotations

import pytest
from azure_subscription import GROUP, LOCATION, Subscription, code, refused

RULE = {
    "priority": 100,
    "direction": "Inbound",
    "access": "Allow",
    "protocol": "Tcp",
    "sourceAddressPrefix": "203.0.113.7/32",
    "sourcePortRange": "*",
    "destinationAddressPrefix": "*",
    "destinationPortRange": "8786",
}


def rule(subscription, name="dask-c", **changes):
    """Make a rule."""
    return subscription.network.security_rules.begin_create_or_update(
        GROUP, "rules", name, {"properties": {**RULE, **changes}}
    )


def address(subscription, name="public", **changes):
    """Make a public address."""
    document = {"location": LOCATION, "sku": {"name": "Standard"}, "properties": {}, **changes}
    return subscription.network.public_ip_addresses.begin_create_or_update(GROUP, name, document)


def interface(subscription, name="nic", **own):
    """Make an interface."""
    configuration = {"name": "ip", "properties": {"subnet": {"id": subscription.subnet}, **own}}
    document = {"location": LOCATION, "properties": {"ipConfigurations": [configuration]}}
    return subscription.network.network_interfaces.begin_create_or_update(GROUP, name, document)


class TestRules:
    """Network security groups."""

    def test_rules_are_made_told_and_deleted(self, subscription):
        """A rule is a resource of its own within its group, and the group tells it beside Azure's own six."""
        rule(subscription).result()
        group = subscription.network.network_security_groups.get(GROUP, "rules")

        assert ["dask-c"] == [one.name for one in group.security_rules]
        assert 6 == len(group.default_security_rules)
        subscription.network.security_rules.begin_delete(GROUP, "rules", "dask-c").result()
        assert [] == list(subscription.network.security_rules.list(GROUP, "rules"))

    def test_a_priority_is_given_once_a_direction(self, subscription):
        """Two rules of one direction cannot have the same priority; a rule is changed by putting it again."""
        rule(subscription).result()
        rule(subscription, sourceAddressPrefix="203.0.113.8/32").result()

        assert (400, "SecurityRuleConflict") == code(rule, subscription, "other")
        assert "Outbound" == rule(subscription, "other", direction="Outbound").result().direction

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"priority": 99}, "SecurityRuleInvalidPriority"),
            ({"priority": 4097}, "SecurityRuleInvalidPriority"),
            ({"sourcePortRange": None}, "SecurityRuleParameterMissing"),
            ({"access": "Perhaps"}, "InvalidParameter"),
        ],
    )
    def test_what_cannot_be_a_rule_is_refused(self, subscription, changes, expected):
        """Priorities are from 100 to 4096, and a rule says from where, to where and what."""
        own = {key: value for key, value in {**RULE, **changes}.items() if value is not None}
        call = subscription.network.security_rules.begin_create_or_update

        assert (400, expected) == code(call, GROUP, "rules", "one", {"properties": own})


class TestAddresses:
    """Interfaces and public addresses."""

    def test_an_interface_has_an_address_of_this_computer(self, subscription):
        """Whatever the block of its subnet is, an interface can be bound here."""
        made = interface(subscription).result()

        assert made.ip_configurations[0].private_ip_address.startswith("127.")

    def test_a_public_address_is_its_interfaces(self, subscription):
        """On loopback both are the same, and the address says whose it is."""
        public = address(subscription).result()
        made = interface(subscription, publicIPAddress={"id": public.id}).result()

        found = subscription.network.public_ip_addresses.get(GROUP, "public")
        assert public.ip_address == found.ip_address == made.ip_configurations[0].private_ip_address
        assert made.ip_configurations[0].id == found.ip_configuration.id
        again = code(interface, subscription, "second", publicIPAddress={"id": public.id})
        assert (400, "PublicIPAddressInUse") == again

    def test_a_public_address_bills_until_it_is_deleted(self, subscription):
        """Its entry in the ledger is its own."""
        address(subscription).result()
        subscription.network.public_ip_addresses.begin_delete(GROUP, "public").result()

        assert [("public", "public IPv4")] == [(one.machine, one.kind) for one in subscription.cloud.ledger]

    def test_a_limit_on_public_addresses_is_named(self, emulated_azure):
        """One address more than the subscription may have is refused."""
        emulated_azure.reset(quotas={"PublicIPAddresses": 1})
        subscription = Subscription.of(emulated_azure).prepare()
        address(subscription).result()

        assert (400, "PublicIPCountLimitReached") == code(address, subscription, "second")

    def test_basic_addresses_are_retired(self, subscription):
        """Only Standard addresses are given, and those are static."""
        call = code(address, subscription, sku={"name": "Basic"})
        assert (400, "IPv4BasicSkuPublicIpCountLimitReached") == call
        dynamic = code(address, subscription, properties={"publicIPAllocationMethod": "Dynamic"})
        assert (400, "PublicIPAddressSkuAllocationMethodMismatch") == dynamic

    def test_a_full_subnet_takes_no_more(self, subscription):
        """A subnet has as many addresses as its block, less the five that Azure keeps."""
        small = {"properties": {"addressPrefix": "10.58.200.0/29"}}
        subnet = subscription.network.subnets.begin_create_or_update(GROUP, "net", "small", small).result()
        for number in range(3):
            interface(subscription, f"n{number}", subnet={"id": subnet.id}).result()

        assert (400, "SubnetIsFull") == code(interface, subscription, "last", subnet={"id": subnet.id})

    def test_what_an_interface_names_must_be_there(self, subscription):
        """A subnet that is not there is an invalid reference."""
        missing = {"id": f"{subscription.subnet}-not"}

        assert (400, "InvalidResourceReference") == code(interface, subscription, subnet=missing)


class TestInUse:
    """What is used is not deleted."""

    def test_everything_says_by_whom_it_is_used(self, subscription):
        """Address, group of rules, subnet and network are kept while an interface uses them."""
        network = subscription.network
        public = address(subscription).result()
        configuration = {
            "name": "ip",
            "properties": {"subnet": {"id": subscription.subnet}, "publicIPAddress": {"id": public.id}},
        }
        own = {"ipConfigurations": [configuration], "networkSecurityGroup": {"id": subscription.rules}}
        network.network_interfaces.begin_create_or_update(
            GROUP, "nic", {"location": LOCATION, "properties": own}
        ).result()

        for expected, call, names in (
            ("PublicIPAddressCannotBeDeleted", network.public_ip_addresses, ("public",)),
            ("InUseNetworkSecurityGroupCannotBeDeleted", network.network_security_groups, ("rules",)),
            ("InUseSubnetCannotBeDeleted", network.subnets, ("net", "default")),
            ("InUseSubnetCannotBeDeleted", network.virtual_networks, ("net",)),
        ):
            error = refused(call.begin_delete, GROUP, *names)
            assert (400, expected) == (error.status_code, error.error.code)
            assert "nic" in error.message
        network.network_interfaces.begin_delete(GROUP, "nic").result()
        network.virtual_networks.begin_delete(GROUP, "net").result()
        network.public_ip_addresses.begin_delete(GROUP, "public").result()
        assert [] == list(network.virtual_networks.list_all())

    def test_subnets_are_part_of_their_network(self, subscription):
        """Blocks must lie within the network, beside each other; a put network has the subnets it names."""
        call = subscription.network.subnets.begin_create_or_update
        outside = {"properties": {"addressPrefix": "10.99.0.0/24"}}
        overlapping = {"properties": {"addressPrefix": "10.58.1.0/24"}}

        assert (400, "NetcfgInvalidSubnet") == code(call, GROUP, "net", "a", outside)
        assert (400, "NetcfgSubnetRangesOverlap") == code(call, GROUP, "net", "a", overlapping)
        empty = {"location": LOCATION, "properties": {"addressSpace": {"addressPrefixes": ["10.58.0.0/16"]}}}
        subscription.network.virtual_networks.begin_create_or_update(
            GROUP, "net", {**empty, "properties": {**empty["properties"], "subnets": []}}
        ).result()
        assert [] == list(subscription.network.subnets.list(GROUP, "net"))

    def test_a_bastion_is_found(self, subscription):
        """A Bastion that somebody has made is listed, with its place."""
        public = address(subscription).result()
        place = {"properties": {"addressPrefix": "10.58.250.0/26"}}
        subnet = subscription.network.subnets.begin_create_or_update(
            GROUP, "net", "AzureBastionSubnet", place
        ).result()
        configuration = {
            "name": "ip",
            "properties": {"subnet": {"id": subnet.id}, "publicIPAddress": {"id": public.id}},
        }
        document = {
            "location": LOCATION,
            "sku": {"name": "Standard"},
            "properties": {"enableTunneling": True, "ipConfigurations": [configuration]},
        }
        hosts = subscription.network.bastion_hosts
        hosts.begin_create_or_update(GROUP, "bastion", document).result()

        found = next(iter(hosts.list_by_resource_group(GROUP)))
        assert ("bastion", "Standard", True) == (found.name, found.sku.name, found.enable_tunneling)
        assert ["bastion"] == [one.name for one in hosts.list()]


def test_leftovers_are_all_but_the_landing(subscription):
    """What carries the landing's tag is none, nor what belongs to it; a cluster's own rule in it is one."""
    tags = {"dask-landing": "network"}
    subscription.resources.resource_groups.create_or_update(GROUP, {"location": LOCATION, "tags": tags})
    subscription.network.virtual_networks.update_tags(GROUP, "net", {"tags": tags})
    subscription.network.network_security_groups.update_tags(GROUP, "rules", {"tags": tags})
    rule(subscription, "shared", priority=200).result()
    assert [] == subscription.cloud.leftovers()

    rule(subscription, "dask-c-1").result()
    address(subscription).result()

    expected = [
        "Microsoft.Network/networkSecurityGroups/securityRules: dask-c-1",
        "Microsoft.Network/publicIPAddresses: public",
    ]
    assert expected == subscription.cloud.leftovers()
