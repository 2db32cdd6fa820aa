"""What keeps a cluster on Azure from starting."""

from __future__ import annotations

import dataclasses
import json
import time
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.doctor import of_error, ok, problem, unknown
from cloudprovider.errors import ConfigError, CredentialsError
from cloudprovider.provider import Quota
from cloudprovider.providers import _azure_landing as land
from cloudprovider.providers import _azure_names as names
from cloudprovider.providers import _azure_roles as roles
from cloudprovider.providers import _azure_starts as starts
from cloudprovider.providers import _doctor as shared
from cloudprovider.providers._azure_errors import code
from cloudprovider.providers._azure_plan import kind_of
from cloudprovider.providers._azure_quotas import ADVICE, Limits
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date

    from cloudprovider.doctor import Check, Finding
    from cloudprovider.providers._azure import Azure

    Permissions = Sequence[Mapping[str, Any]]

__all__ = ["checks"]

#: What a cluster is made of, by the names of resource providers.
PROVIDERS = tuple(f"Microsoft.{name}" for name in ("Compute", "KeyVault", "ManagedIdentity", "Network"))
#: The limits on public addresses: of all, and of those that machines have.
# https://learn.microsoft.com/azure/azure-resource-manager/management/azure-subscription-service-limits
ADDRESSES = frozenset(
    {"publicipaddresses", "standardskupublicipaddresses", "ipv4standardskupublicipaddresses"}
)
#: What lets a caller into vaults, who then needs no right there before.
LETS_IN = "Microsoft.Authorization/roleAssignments/write"
#: Codes of who is known and may not.
FORBIDDEN = ("AuthorizationFailed", "Forbidden")
READS = "Azure's built-in role Reader has what reading takes."


def checks(provider: Any, today: date | None = None) -> list[Check]:
    """What to look at for clusters of a provider."""
    return AzureDoctor(provider, today).checks()


class AzureDoctor(shared.Doctor):
    """Looks at a subscription, and at the resource group in which a cluster would be."""

    extra = table = "azure"

    def __init__(self, provider: Any, today: date | None = None) -> None:
        super().__init__(provider, today)
        self.azure: Azure = provider.azure
        self.own_group = provider.config.resource_group is not None
        self.group: dict[str, Any] = {}  # as the API tells it; empty while there is none
        self.states: dict[str, str] = {}  # of resource providers; empty where that may not be read

    def looks(self) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
        """What is asked of every subscription."""
        return [
            ("providers", self.providers),
            ("permissions", self.permissions),
            ("network", self.network),
            ("types", self.types),
            *([("addresses", self.addresses)] if self.config.public else []),
        ]

    def plugin(self) -> str:
        """The program that tunnels go through."""
        from cloudprovider.providers._azure_tunnel import program

        return program()

    @property
    def scope(self) -> str:
        """The id of the resource group."""
        return f"/subscriptions/{self.azure.subscription}/resourceGroups/{self.config.resource_group}"

    # -- who ---------------------------------------------------------------------------------------------

    def credentials(self) -> Iterator[Finding]:
        """Whose they are, and whether Azure takes them for the subscription."""
        id, kind = self.azure.who
        self.config = land.settled(self.azure, self.config)
        group = self.config.resource_group
        found, *states = side_by_side(
            [
                partial(self._known, "resource_groups.get", group, fine=land.NOT_THERE),
                *(partial(self._known, "providers.get", name) for name in PROVIDERS),
            ]
        )
        self.group = found
        self.states = {one["namespace"]: one["registrationState"] for one in states if one}
        who = "user" if kind == "User" else "service principal"
        whose = f"You are {who} {id} of tenant {self.azure.tenant}"
        yield ok(
            "credentials",
            f"{whose}, in subscription {self.azure.subscription}, region {self.config.region}.",
        )
        yield shared.clock(self.azure.now() - time.time())
        if self.own_group and not found:
            fix = "`az group list` shows those there are: pass resource_group= one of them, or none."
            yield problem("landing", f"There is no resource group {group!r} that you may see.", fix)

    def _known(self, operation: str, *values: Any, fine: Sequence[str] = ()) -> dict[str, Any]:
        """What there is; nothing where the caller is known, and may not read it."""
        try:
            return self.azure.call("resources", operation, *values, fine=fine)
        except CredentialsError as error:
            if code(error) not in FORBIDDEN:
                raise
            return {}

    def providers(self) -> Iterator[Finding]:
        """Whether the subscription uses what a cluster is made of."""
        off = [name for name in PROVIDERS if self.states.get(name, "Registered") != "Registered"]
        if off:
            commands = "; ".join(f"`az provider register --namespace {name}`" for name in off)
            yield problem(
                "providers",
                f"The subscription is not registered for {', '.join(off)}.",
                f"{commands}. It takes some minutes.",
            )
        elif not self.states:
            yield unknown("providers", "Resource providers may not be read.", READS)
        else:
            yield ok("providers", f"All {len(PROVIDERS)} resource providers are registered.")

    # -- what they may do --------------------------------------------------------------------------------

    def permissions(self) -> Iterator[Finding]:
        """Whether the caller may do all that a start, a life and an end take, and make what is not there yet."""
        try:
            held = self._held()
        except CredentialsError as error:
            yield of_error("permissions", error, fix=f"{READS} {self.fix('azure')}")
            return
        wanted = ["azure", *(["azure-tunnel"] if self.config.tunnel else [])]
        for name in wanted:
            yield self._allowed("permissions", name, held)
        if missing := self._missing():
            made = self._allowed("landing", "azure-landing", held)
            what = f"Not there yet, and made by the first start: {', '.join(missing)}."
            yield dataclasses.replace(made, found=f"{what} {made.found if made.fix else ''}".strip())
        else:
            yield ok("landing", "All that clusters share in the resource group is there.")

    def fix(self, name: str) -> str:
        """How to come by a role of ours."""
        id, _ = self.azure.who
        return (
            f"Have the role that `dask cloud policy {name} --account {self.azure.subscription}` prints made "
            f"(`az role definition create`) and given to you (`az role assignment create --assignee {id} --scope "
            f"{self.scope}`)."
        )

    def _allowed(self, topic: str, name: str, held: Permissions) -> Finding:
        """Whether what a caller has includes a role of ours."""
        from cloudprovider.providers.azure import policy

        role = json.loads(policy(name))
        lacking = [one for one in role["Actions"] if not allows(held, one)]
        inside = [one for one in role.get("DataActions", ()) if not allows(held, one, data=True)]
        if inside and not allows(held, LETS_IN):
            lacking += inside
        if lacking:
            return problem(topic, f"You lack {', '.join(lacking)} on {self.scope}.", self.fix(name))
        count = len(role["Actions"]) + len(role.get("DataActions", ()))
        let_in = " (into vaults you may let yourself)" if inside else ""
        return ok(topic, f"All {count} actions of role {name} are yours{let_in}.")

    def _held(self) -> Permissions:
        """What the caller may do in the resource group; where there is none yet, in the subscription."""
        if self.group:
            operation = "permissions.list_for_resource_group"
            return self.azure.pages("authorization", operation, self.config.resource_group)
        principal, _ = self.azure.who
        # Also what comes by a group of people.
        # https://learn.microsoft.com/azure/role-based-access-control/role-assignments-list-rest
        given = self.azure.pages(
            "authorization", "role_assignments.list_for_subscription", filter=f"assignedTo('{principal}')"
        )
        here = f"{self.scope}/".lower()
        wanted = {
            one["properties"]["roleDefinitionId"]
            for one in given
            if here.startswith(f"{one['properties']['scope'].rstrip('/')}/".lower())
        }
        found = side_by_side(
            partial(self.azure.call, "authorization", "role_definitions.get_by_id", id)
            for id in sorted(wanted)
        )
        return [permission for one in found for permission in one["properties"]["permissions"]]

    def _missing(self) -> list[str]:
        """The parts of the landing that are not there."""
        config, group = self.config, self.config.resource_group or ""
        vaults = {whose: names.vault(self.azure.subscription, group, whose) for whose in roles.VAULTS}
        wanted: dict[str, tuple[str, str, str]] = {
            f"vault {name}": ("keyvault", "vaults.get", name) for name in vaults.values()
        }
        if config.vnet is None:
            wanted["virtual network"] = ("network", "virtual_networks.get", names.LANDING)
        if config.machine_identity is None:
            wanted["identity"] = ("msi", "user_assigned_identities.get", names.IDENTITY)
        if not self.group:
            return [f"resource group {group}", *wanted]
        answers = side_by_side(
            partial(self.azure.call, service, operation, group, name, fine=land.NOT_THERE)
            for service, operation, name in wanted.values()
        )
        return [what for what, found in zip(wanted, answers, strict=True) if not found]

    # -- where and what ----------------------------------------------------------------------------------

    def network(self) -> Iterator[Finding]:
        """Where machines would be, and whether a way leads out of there."""
        vnet = self._vnet()
        subnets = {one["name"]: one for one in vnet.get("properties", {}).get("subnets", ())}
        usable = [name for name in subnets if name not in land.TAKEN]
        wanted = self.config.subnet or (usable[0] if len(usable) == 1 else "")
        if self.config.vnet and wanted not in subnets:
            yield problem(
                "network",
                f"Virtual network {vnet['name']} has the subnets {shared.named(usable) or 'none'}: which?",
                f"Pass subnet= one of `az network vnet subnet list --vnet-name {vnet['name']}`.",
            )
            return
        where = f"{vnet['name']}/{wanted}" if vnet else f"{names.LANDING}, which the first start makes"
        yield ok("network", f"Machines would be in {where}.")
        yield self._way_out(subnets.get(wanted, {}))
        if self.config.tunnel:
            yield self._bastion(vnet)

    def _vnet(self) -> dict[str, Any]:
        """The virtual network; empty while it is one that the first start makes.

        Raises
        ------
        ConfigError
            When there is none that was named, or it is elsewhere.
        """
        config, group = self.config, self.config.resource_group or ""
        if config.vnet is None:
            if not self.group:
                return {}
            where = group, names.LANDING
            return self.azure.call("network", "virtual_networks.get", *where, fine=land.NOT_THERE)
        parts = config.vnet.split("/")
        named = (parts[4], parts[-1]) if config.vnet.startswith("/") else (group, config.vnet)
        found = self.azure.call("network", "virtual_networks.get", *named, fine=land.NOT_THERE)
        if not found:
            raise ConfigError(
                f"There is no virtual network {named[1]!r} in {named[0]}. `az network vnet list` shows those there "
                "are: pass vnet= one of them, or none."
            )
        return found

    def _way_out(self, subnet: Mapping[str, Any]) -> Finding:
        """Whether machines reach what is outside."""
        said = subnet.get("properties", {})
        if self.config.public:
            return ok("network", "Machines go out by addresses of their own.")
        if said.get("natGateway"):
            return ok("network", f"A NAT gateway leads out of it: {names.name_of(said['natGateway']['id'])}.")
        # New subnets have no way out by themselves.
        # https://learn.microsoft.com/azure/virtual-network/ip-services/default-outbound-access
        if said.get("defaultOutboundAccess") is True:
            return ok("network", "Azure's default outbound access leads out of it.")
        return problem(
            "network",
            "No way leads out of the subnet without public addresses: images cannot be pulled.",
            "`az network nat gateway create` and `az network vnet subnet update --nat-gateway NAME`, or leave out "
            "public=False.",
        )

    def _bastion(self, vnet: Mapping[str, Any]) -> Finding:
        """Whether a Bastion is there that programs may connect through."""
        every = self.azure.pages("network", "bastion_hosts.list")
        if self.config.bastion:
            found = [one for one in every if one["name"] == names.name_of(self.config.bastion)]
        else:
            within = f'"{vnet.get("id", "none")}/'.lower()
            found = [one for one in every if within in json.dumps(one).lower()]
        good = [
            one["name"]
            for one in found
            if one.get("sku", {}).get("name") in land.TUNNELLING and one["properties"].get("enableTunneling")
        ]
        if good:
            return ok("network", f"Bastion {good[0]} takes native clients.")
        if found:
            return problem(
                "network",
                f"Bastion {found[0]['name']} takes no native clients.",
                f"`az network bastion update --name {found[0]['name']} --sku Standard --enable-tunneling true`.",
            )
        return problem(
            "network",
            "There is no Bastion in the virtual network, and tunnel=True goes through one.",
            "`az network bastion create --sku Standard --enable-tunneling true` (it bills by the hour), or bastion=.",
        )

    def types(self) -> Iterator[Finding]:
        """Which sizes the machines would be of, from which image, and how many the subscription may run."""
        try:
            (choices, images), limits = side_by_side(
                [
                    partial(starts.choose, self.azure, self.config),
                    partial(Limits.ask, self.azure, self.config.region or ""),
                ]
            )
        except CredentialsError as error:  # a start asks the same
            found = of_error("types", error)
            yield problem(
                "permissions", found.found, self.fix("azure-offers").replace(self.scope, self._whole)
            )
            return
        for role, choice in choices.items():
            yield ok("types", f"{role.capitalize()}: {choice.reason}.")
        markets = ("on-demand", "spot")
        kinds = {role: kind_of(self.config, choices[role], images[role], markets) for role in names.ROLES}
        yield from self.quotas(lambda _, market: limits.quotas(kinds, "worker", [market]))

    def addresses(self) -> Iterator[Finding]:
        """How many machines with public addresses the subscription may run."""
        region = self.config.region or ""
        try:
            usages = self.azure.pages("network", "usages.list", region)
        except CredentialsError as error:
            yield of_error("quotas", error, fix=READS)
            return
        limits = [
            Quota(
                name=f"{usage['name'].get('localizedValue') or usage['name']['value']} in {region}",
                limit=float(usage["limit"]),
                unit="addresses",
                each=1.0,
                taken=1.0,
                used=float(usage["currentValue"]),
                advice=f"public=False takes none, where a NAT gateway leads out. {ADVICE}",
            )
            for usage in usages
            if usage["name"]["value"].lower() in ADDRESSES
        ]
        for limit in [min(limits, key=lambda one: one.free)] if limits else []:
            yield shared.quota(limit, "addresses", self.wanted, chosen=True)

    @property
    def _whole(self) -> str:
        return f"/subscriptions/{self.azure.subscription}"


def allows(held: Permissions, action: str, *, data: bool = False) -> bool:
    """Whether permissions, as the API lists them, include an action.

    https://learn.microsoft.com/azure/role-based-access-control/role-definitions
    """
    given, kept = ("dataActions", "notDataActions") if data else ("actions", "notActions")

    def has(patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)

    return any(has(one.get(given) or ()) and not has(one.get(kept) or ()) for one in held)
