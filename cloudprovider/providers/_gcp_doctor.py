"""What keeps a cluster on Google Cloud from starting."""

from __future__ import annotations

import json
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cloudprovider.doctor import of_error, ok, problem, unknown, warning
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.providers import _doctor as shared
from cloudprovider.providers import _gce_names as names
from cloudprovider.providers import _gce_starts as starts
from cloudprovider.providers import _gce_wire as wire
from cloudprovider.providers._calls import chunks, side_by_side
from cloudprovider.providers._gce_plan import kind_of
from cloudprovider.providers._gce_quotas import Limits
from cloudprovider.providers._gcp import code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import date

    from cloudprovider.doctor import Check, Finding
    from cloudprovider.providers._gcp import GCP

__all__ = ["checks"]

#: What a start asks, by the names of Service Usage.
SERVICES = tuple(
    f"{name}.googleapis.com"
    for name in ("cloudresourcemanager", "compute", "iam", "logging", "secretmanager")
)
TUNNEL = "iap.googleapis.com"
#: How Google says that an API is not enabled in the project.
DISABLED = ("SERVICE_DISABLED", "accessNotConfigured")
#: Permissions that one call tests.
# https://cloud.google.com/resource-manager/reference/rest/v1/projects/testIamPermissions
TESTED = 100
ACT_AS = "iam.serviceAccounts.actAs"
#: Of regions and zones: https://cloud.google.com/compute/docs/reference/rest/v1/regions
UP = "UP"


def checks(provider: Any, today: date | None = None) -> list[Check]:
    """What to look at for clusters of a provider."""
    return GCPDoctor(provider, today).checks()


class GCPDoctor(shared.Doctor):
    """Looks at a project."""

    extra = table = "gcp"

    def __init__(self, provider: Any, today: date | None = None) -> None:
        super().__init__(provider, today)
        self.gcp: GCP = provider.gcp
        self.held: set[str] = set()  # of the permissions that are needed
        self.untested = ""  # why they are not known

    def looks(self) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
        """What is asked of every project."""
        return [
            ("permissions", self.permissions),
            ("apis", self.apis),
            ("landing", self.landing),
            ("network", self.network),
            ("types", self.types),
        ]

    def plugin(self) -> str:
        """The program that tunnels go through."""
        from cloudprovider.providers._gce_tunnel import plugin

        return plugin()

    @property
    def host(self) -> str:
        """The project whose network it is."""
        return self.config.host_project or self.gcp.project

    # -- who, and what they may do -----------------------------------------------------------------------

    @property
    def roles(self) -> list[str]:
        """The roles of ours that a start needs: who names a service account needs make none."""
        landing = [] if self.config.service_account else ["gcp-landing"]
        return ["gcp", *landing, *(["gcp-tunnel"] if self.config.tunnel else [])]

    def needed(self) -> dict[str, str]:
        """Every permission that a start needs, and the role of ours that has it."""
        from cloudprovider.providers.gce import policy

        wanted: dict[str, str] = {}
        for role in self.roles:
            for permission in json.loads(policy(role))["includedPermissions"]:
                wanted.setdefault(permission, role)
        if self.config.service_account:  # where a right on it alone will do
            wanted.pop(ACT_AS, None)
        return wanted

    def credentials(self) -> Iterator[Finding]:
        """Whose they are, and whether Google takes them: it tells everybody what they may do."""
        project, region = self.gcp.project, self.gcp.region
        try:
            self.held = self._held(f"projects/{project}", [*self.needed()])
        except CloudError as error:
            # One that it cannot test has it refuse them all, as a disabled API does; both times it knows who asks.
            refused = getattr(error.__cause__, "code", None) == HTTPStatus.BAD_REQUEST
            if code(error) not in DISABLED and not refused:
                raise
            self.untested = str(error)
        yield ok("credentials", f"You are {self.gcp.who}, in project {project}, region {region}.")
        yield shared.clock(self.gcp.now() - time.time())

    def _held(self, resource: str, permissions: list[str], service: str = "cloudresourcemanager") -> set[str]:
        """Which of these permissions the caller has on a resource."""
        path = f"{resource}:testIamPermissions"
        answers = side_by_side(
            partial(self.gcp.ask, service, "POST", path, {"permissions": some})
            for some in chunks(permissions, TESTED)
        )
        return {permission for answer in answers for permission in answer.get("permissions", ())}

    def permissions(self) -> Iterator[Finding]:
        """Whether the caller may do all that a start, a life and an end take."""
        if self.untested:
            yield unknown("permissions", "They could not be tested.", self.untested)
        else:
            yield from self._missing()
        if self.config.service_account:
            yield from self._acting(self.config.service_account)

    def _missing(self) -> Iterator[Finding]:
        needed = self.needed()
        lacking = {name: role for name, role in needed.items() if name not in self.held}
        project = self.gcp.project
        if len(lacking) == len(needed):
            yield problem(
                "permissions",
                f"You have none of the {len(needed)} permissions in project {project}: is it the right one?",
                "`gcloud projects list` shows yours: pass project=, or ask its owner for the roles that "
                f"`dask cloud policy {' | '.join(self.roles)}` print.",
            )
            return
        for role in dict.fromkeys(lacking.values()):
            these = sorted(name for name, of in lacking.items() if of == role)
            instead = ", or pass service_account= one that is there" if role == "gcp-landing" else ""
            yield problem(
                "permissions",
                f"You lack {', '.join(these)} in project {project}.",
                f"Have the custom role that `dask cloud policy {role}` prints made and given to you "
                f"(`gcloud iam roles create`, `gcloud projects add-iam-policy-binding`){instead}.",
            )
        if not lacking:
            yield ok("permissions", f"All {len(needed)} permissions of {', '.join(self.roles)} are yours.")

    def _acting(self, email: str) -> Iterator[Finding]:
        """Whether machines may be started under a service account of the user's."""
        resource = f"projects/-/serviceAccounts/{email}"
        try:
            may = self._held(resource, [ACT_AS], "iam")
        except CloudError as error:
            if code(error) not in {"notFound", "NOT_FOUND"}:
                raise
            fix = (
                "`gcloud iam service-accounts list` shows those there are: pass service_account= one of them."
            )
            yield problem("permissions", f"There is no service account {email}.", fix)
            return
        if not may:
            yield problem(
                "permissions",
                f"You lack {ACT_AS} on {email}.",
                f"`gcloud iam service-accounts add-iam-policy-binding {email} --member user:YOU "
                "--role roles/iam.serviceAccountUser`, by its owner.",
            )

    # -- the project -------------------------------------------------------------------------------------

    def apis(self) -> Iterator[Finding]:
        """Whether the project has enabled what is asked."""
        wanted = [*SERVICES, *([TUNNEL] if self.config.tunnel else [])]
        project = self.gcp.project
        path = f"projects/{project}/services:batchGet"
        named = [f"projects/{project}/services/{name}" for name in wanted]
        fix = f"`gcloud services enable {' '.join(wanted)} --project {project}` does what is missing."
        try:
            found = self.gcp.ask("serviceusage", "GET", path, names=named)["services"]
        except CredentialsError as error:
            yield of_error("apis", error, fix=fix)
            return
        off = [one["config"]["name"] for one in found if one["state"] != "ENABLED"]
        if off:
            yield problem(
                "apis",
                f"Project {project} has not enabled {', '.join(off)}.",
                f"`gcloud services enable {' '.join(off)} --project {project}`; it takes a minute to be known.",
            )
        else:
            yield ok("apis", f"All {len(wanted)} APIs are enabled.")

    def landing(self) -> Iterator[Finding]:
        """Whether what clusters share is there; who may make it, `permissions` says."""
        project = self.gcp.project
        parts: dict[str, Callable[[], Any]] = {
            f"firewall rule {rule}": partial(
                self.gcp.call, "firewalls", "get", fine=[404], project=self.host, firewall=rule
            )
            for rule in names.landing_firewalls(self.config.network)
        }
        if not self.config.service_account:
            email = f"{names.ACCOUNT}@{project.partition(':')[0]}.iam.gserviceaccount.com"
            for what, where in (
                (f"service account {names.ACCOUNT}", f"serviceAccounts/{email}"),
                (f"role {names.MACHINE_ROLE}", f"roles/{names.MACHINE_ROLE}"),
            ):
                parts[what] = partial(self.gcp.ask, "iam", "GET", f"projects/{project}/{where}", fine=[404])
        answers = side_by_side(parts.values())
        missing = [what for what, found in zip(parts, answers, strict=True) if not found]
        if missing:
            yield ok("landing", f"Not there yet, and made by the first start: {', '.join(missing)}.")
        else:
            yield ok("landing", "All that clusters share in the project is there.")

    # -- where and what ----------------------------------------------------------------------------------

    def network(self) -> Iterator[Finding]:
        """Where machines would be, and whether a way leads out of there."""
        config, host, region = self.config, self.host, self.gcp.region
        found, nat = side_by_side(
            [
                partial(self.gcp.call, "networks", "get", fine=[404], project=host, network=config.network),
                self._nat,
            ]
        )
        if found is None:
            yield problem(
                "network",
                f"There is no network {config.network!r} in {host}.",
                f"`gcloud compute networks create {config.network} --subnet-mode auto --project {host}`, or pass "
                "network= one of `gcloud compute networks list`.",
            )
            return
        yield self._subnetwork(found, region)
        if nat:
            yield ok("network", "A Cloud NAT leads out of it.")
        elif nat is None:
            yield unknown(
                "network", "Routers could not be listed.", "Have compute.routers.list given to you."
            )
        elif not config.public:
            yield problem(
                "network",
                f"No way leads out of {config.network} in {region} without an address outside: there is no Cloud NAT.",
                f"`gcloud compute routers create dask --network {config.network} --region {region}` and `gcloud "
                f"compute routers nats create dask --router dask --region {region} --auto-allocate-nat-external-ips "
                "--nat-all-subnet-ip-ranges`, or leave out public=False.",
            )
        else:
            yield ok("network", "Machines go out by addresses of their own.")

    def _subnetwork(self, network: Any, region: str) -> Finding:
        """Whether the network is in the region."""
        config = self.config
        here = [wire.last(one) for one in network.subnetworks if f"/regions/{region}/" in one]
        fix = f"`gcloud compute networks subnets create NAME --network {config.network} --region {region} --range "
        if config.subnetwork and config.subnetwork not in here:
            there = f" There: {shared.named(here)}." if here else ""
            found = f"Network {config.network} has no subnetwork {config.subnetwork!r} in {region}.{there}"
            return problem("network", found, f"Pass subnetwork= another, or {fix}10.58.0.0/16`.")
        if not here and not network.auto_create_subnetworks:
            found = f"Network {config.network} has no subnetwork in {region}."
            return problem("network", found, f"{fix}10.58.0.0/16`, or pass another network= or region=.")
        return ok("network", f"Network {config.network} is in {region}: {shared.named(here) or 'by itself'}.")

    def _nat(self) -> bool | None:
        """Whether a Cloud NAT leads out; None when nobody may say."""
        try:
            routers = self.gcp.items("routers", project=self.host, region=self.gcp.region)
        except CredentialsError:
            return None
        return any(one.nats and wire.last(one.network) == self.config.network for one in routers)

    def types(self) -> Iterator[Finding]:
        """Which types the machines would be of, from which image, and how many the region may run."""
        place = self.gcp.call("regions", "get", region=self.gcp.region)
        if place.status != UP:
            fix = "https://status.cloud.google.com tells more; another region= may do meanwhile."
            yield warning("types", f"Google says that {self.gcp.region} is {place.status}.", fix)
        choices, images = starts.choose(self.gcp, self.config, lambda: place)
        for role, choice in choices.items():
            yield ok("types", f"{role.capitalize()}: {choice.reason}, from {wire.last(images[role].id)}.")
        markets = ("on-demand", "spot")
        kinds = {role: kind_of(choices[role], images[role], self.config, markets) for role in names.ROLES}
        limits = Limits.of(place, self.gcp.project, kinds, nat=bool(self._nat()))
        yield from self.quotas(lambda config, market: limits.quotas(config, "worker", [market]))
