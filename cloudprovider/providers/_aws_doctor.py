"""What keeps a cluster on AWS from starting: whatever its machines are, on Fargate, ECS or EC2."""

from __future__ import annotations

import dataclasses
import json
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from cloudprovider.config import listed
from cloudprovider.doctor import Verdict, of_error, ok, problem, unknown, warning
from cloudprovider.errors import CloudError, CredentialsError
from cloudprovider.providers import _aws_rehearsal as rehearsal
from cloudprovider.providers import _aws_simulation as simulation
from cloudprovider.providers import _doctor as shared
from cloudprovider.providers._aws import ahead, code
from cloudprovider.providers._aws_landing import GROUP, LOG_GROUP, network_of, subnets_request
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date

    from cloudprovider.doctor import Check, Finding
    from cloudprovider.providers._aws import AWS
    from cloudprovider.providers._aws_landing import Network

__all__ = ["Doctor", "checks"]

#: From where boto3 has credentials, in words: botocore.credentials names the methods.
SOURCES = {
    "assume-role": "a role that your AWS config assumes",
    "assume-role-with-web-identity": "a role, by web identity",
    "config-file": "your AWS config",
    "container-role": "this container's role",
    "custom-process": "a program that your AWS config names",
    "env": "the environment",
    "iam-role": "this instance's role",
    "login": "`aws login`",
    "shared-credentials-file": "your AWS credentials file",
    "sso": "AWS IAM Identity Center",
}
#: Ways out of a network, as a route calls them.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Route.html
WAYS = (
    "CarrierGatewayId",
    "CoreNetworkArn",
    "InstanceId",
    "LocalGatewayId",
    "NatGatewayId",
    "NetworkInterfaceId",
    "TransitGatewayId",
    "VpcPeeringConnectionId",
)
OUTSIDE = "0.0.0.0/0"
#: What machines without a way out need from inside their network, when their image is in ECR.
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html
ENDPOINTS = ("ecr.api", "ecr.dkr", "logs", "s3", "ssm")
READS = (
    "Reading takes more rights than starting: AWS's own policies ReadOnlyAccess or SecurityAudit have them."
)


def checks(provider: Any, today: date | None = None) -> list[Check]:
    """What to look at for clusters of a provider."""
    from cloudprovider.providers import _ec2_doctor, _ecs_doctor

    kind = _ec2_doctor.EC2Doctor if provider.config.service == "ec2" else _ecs_doctor.ECSDoctor
    return kind(provider, today).checks()


class Doctor(shared.Doctor):
    """Looks at an account on AWS; what a service has of its own is a subclass's."""

    extra = "aws"
    #: The policy of whoever starts clusters; its landing's and its tunnel's are called after it.
    policy: str

    def __init__(self, provider: Any, today: date | None = None) -> None:
        super().__init__(provider, today)
        self.aws: AWS = provider.aws
        self.account = self.arn = ""
        self.network: Network | None = None

    def looks(self) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
        """What is asked of every account."""
        return [
            ("permissions", self.permissions),
            ("landing", self.landing),
            ("network", self.networks),
            *self.more(),
        ]

    # -- what a service has of its own -----------------------------------------------------------------

    @abstractmethod
    def more(self) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
        """Further checks, by topic."""

    def parts(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        """The parts of the landing, and whether each is there."""
        config = self.config
        if config.log_group is None:
            yield f"log group {LOG_GROUP}", self._has_log_group
        if config.security_groups is None:
            yield f"security group {GROUP}", self._has_group

    @abstractmethod
    def text(self, name: str) -> str:
        """A policy of ours for this account and region, as JSON."""

    @abstractmethod
    def roles(self) -> Mapping[str, str | None]:
        """By the name of a role or instance profile of ours, the one of the user's instead; None where none is needed."""

    def rehearsals(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """EC2's calls that can be rehearsed: action, operation and request."""
        yield "ec2:CreateSecurityGroup", "create_security_group", rehearsal.group_request_of(self.network)

    def plugin(self) -> str:
        """The program that tunnels go through."""
        from cloudprovider.providers._aws_tunnel import plugin

        return plugin()

    # -- who ---------------------------------------------------------------------------------------------

    def credentials(self) -> Iterator[Finding]:
        """Whose they are, and whether AWS takes them."""
        try:
            said = self.aws.call("sts", "get_caller_identity")
        except CredentialsError as error:
            skew = ahead(getattr(error.__cause__, "response", {}), time.time())
            yield of_error("credentials", error)
            if abs(skew) > shared.ASKEW_S:
                yield shared.clock(skew)
            return
        self.arn, self.account = said["Arn"], said["Account"]
        source = SOURCES.get(self.aws.source, self.aws.source)
        yield ok("credentials", f"You are {self.arn} by {source}, in {self.aws.region}.")
        yield shared.clock(self.aws.now() - time.time())

    def source(self) -> str:
        """The ARN that IAM knows the caller by: a user's own, or the role's of a session; empty for others."""
        _, _, service, _, _, name = self.arn.split(":", 5)
        kind, _, rest = name.partition("/")
        if service == "iam":
            return self.arn if kind == "user" else ""
        if kind != "assumed-role":
            return ""
        role = rest.partition("/")[0]
        try:  # its path is only here
            return str(self.aws.call("iam", "get_role", RoleName=role)["Role"]["Arn"])
        except CredentialsError:
            return f"arn:{self.aws.partition}:iam::{self.account}:role/{role}"

    # -- what they may do --------------------------------------------------------------------------------

    def permissions(self) -> Iterator[Finding]:
        """Whether the caller may do all that a start, a life and an end take."""
        if self.is_root:
            yield warning(
                "permissions",
                "These are the account's own (root) keys: they may do everything, as may who finds them.",
                f"Make a user or a role with what `dask cloud policy {self.policy}` prints, and use its.",
            )
            return
        more = {
            "tunnel": self.config.tunnel,
            "roles": self.config.autonomous and self.config.scheduler_role is None,
        }
        names = [self.policy, *(f"{self.policy}-{part}" for part, wanted in more.items() if wanted)]
        found = [self.allowed(name, "permissions", self.fix(name)) for name in names]
        yield from dict.fromkeys(found)
        if found[0].verdict is Verdict.unknown:
            yield from self._rehearsed()

    @property
    def is_root(self) -> bool:
        """Whether the caller is the account itself."""
        return self.arn.endswith(":root")

    def fix(self, name: str) -> str:
        """How to come by a policy's rights."""
        command = f"`dask cloud policy {name} --region {self.aws.region} --account {self.account}`"
        return f"Have what {command} prints attached to {self.arn}."

    def allowed(self, name: str, topic: str, fix: str) -> Finding:
        """Whether all of a policy is allowed, by simulation."""
        text = simulation.with_roles(self.text(name), self.roles())
        try:
            missing = simulation.lacks(self.aws, self.source() or self.arn, text)
        except CloudError as error:
            why = f"IAM could not simulate: {error}"
            if code(error) in {"AccessDenied", "AccessDeniedException"}:
                why = "You may not simulate policies, and so nobody can tell what is missing."
            return unknown(topic, why, f"Ask for iam:SimulatePrincipalPolicy on {self.arn}.")
        if missing:
            return problem(topic, f"You lack {_listed(missing)}.", f"{_above(missing)}{fix}")
        count = len(simulation.actions(json.loads(text)))
        return ok(topic, f"All {count} actions of policy {name} are allowed, by simulation.")

    def _rehearsed(self) -> Iterator[Finding]:
        """What EC2 says to rehearsals, where nobody may simulate."""
        try:
            self._networked()
            refused, passed = rehearsal.rehearsed(self.aws, [*self.rehearsals()])
        except (
            CloudError
        ):  # without a network or a type there is nothing to rehearse, and their own checks say so
            return
        if refused:
            found = f"You lack {', '.join(refused)}: EC2 refused the rehearsal."
            yield problem("permissions", found, self.fix(self.policy))
        if passed:
            yield ok("permissions", f"EC2 would allow {', '.join(passed)}.")

    def landing(self) -> Iterator[Finding]:
        """Whether what clusters share is there, or may be made."""
        parts = [*self.parts()]
        there = side_by_side(look for _, look in parts)
        missing = [name for (name, _), found in zip(parts, there, strict=True) if not found]
        if not missing:
            yield ok("landing", "All that clusters share in the account is there.")
            return
        said = f"Not there yet, and made by the first start: {', '.join(missing)}."
        name = f"{self.policy}-landing"
        fix = (
            f"Somebody with the rights that `dask cloud policy {name}` prints starts the first cluster, once."
        )
        found = ok("landing", "") if self.is_root else self.allowed(name, "landing", fix)
        yield dataclasses.replace(found, found=f"{said} {found.found if found.fix else ''}".strip())

    def _has_log_group(self) -> bool:
        found = self.aws.call("logs", "describe_log_groups", logGroupNamePrefix=LOG_GROUP)["logGroups"]
        return any(group["logGroupName"] == LOG_GROUP for group in found)

    def _has_group(self) -> bool:
        filters = [{"Name": "group-name", "Values": [GROUP]}]
        found = self.aws.call("ec2", "describe_security_groups", Filters=filters)["SecurityGroups"]
        return any(group.get("IpPermissions") for group in found)

    def has_role(self, name: str) -> bool:
        """Whether there is such a role; one that is named by its ARN is taken for there."""
        return name.startswith("arn:") or bool(
            self.aws.call("iam", "get_role", RoleName=name, fine=["NoSuchEntity"])
        )

    # -- where -------------------------------------------------------------------------------------------

    def _networked(self) -> list[dict[str, Any]]:
        """The subnets that machines may be in; they are in a network."""
        found: list[dict[str, Any]] = self.aws.call(
            "ec2", "describe_subnets", **subnets_request(self.config)
        )["Subnets"]
        self.network = network_of(found, self.config, self.aws.region)
        return [one for one in found if one["SubnetId"] in self.network.subnets]

    def networks(self) -> Iterator[Finding]:
        """Where machines would be, and whether a way leads out of there and to them."""
        subnets = self._networked()
        free = sum(subnet.get("AvailableIpAddressCount", 0) for subnet in subnets)
        zones = sorted({subnet["AvailabilityZone"] for subnet in subnets})
        vpc = subnets[0]["VpcId"]
        yield ok(
            "network",
            f"{vpc}: {len(subnets)} subnets in {shared.named(zones)}, with {free:,} free addresses.",
        )
        yield from self._groups()
        try:
            yield self._way_out(vpc, [subnet["SubnetId"] for subnet in subnets])
        except CredentialsError as error:
            yield of_error("network", error, fix=READS)

    def _groups(self) -> Iterator[Finding]:
        """Whether the groups that the user named are there."""
        if self.config.security_groups is None:
            return
        wanted = listed(self.config.security_groups)
        filters = [{"Name": "group-id", "Values": wanted}]
        found = self.aws.call("ec2", "describe_security_groups", Filters=filters)["SecurityGroups"]
        there = {group["GroupId"] for group in found}
        if missing := [one for one in wanted if one not in there]:
            yield problem(
                "network",
                f"There is no security group {', '.join(missing)} in {self.aws.region}.",
                "`aws ec2 describe-security-groups` lists them: pass security_groups= of those, or none.",
            )

    def _way_out(self, vpc: str, subnets: Sequence[str]) -> Finding:
        filters = [{"Name": "vpc-id", "Values": [vpc]}]
        tables = self.aws.pages("ec2", "describe_route_tables", "RouteTables", Filters=filters)
        routes = {subnet: default_routes(tables, subnet) for subnet in subnets}
        return self._reached(routes) if self.config.public else self._left(vpc, routes)

    def _reached(self, routes: Mapping[str, Sequence[Mapping[str, Any]]]) -> Finding:
        """Whether public addresses are of use."""
        cut = [
            name
            for name, some in routes.items()
            if not any(str(r.get("GatewayId", "")).startswith("igw-") for r in some)
        ]
        if not cut:
            return ok("network", "A route leads to an internet gateway from each subnet.")
        found = f"No route leads to an internet gateway from {shared.named(cut)}: public addresses are of no use there."
        fix = (
            f"`aws ec2 create-route --route-table-id RTB --destination-cidr-block {OUTSIDE} --gateway-id IGW`, "
            "or pass subnets= public ones, or public=False and tunnel=True where there is a NAT gateway."
        )
        return (problem if len(cut) == len(routes) else warning)("network", found, fix)

    def _left(self, vpc: str, routes: Mapping[str, Sequence[Mapping[str, Any]]]) -> Finding:
        """Whether machines without public addresses reach what is outside."""
        cut = [name for name, some in routes.items() if not any(r.get(way) for r in some for way in WAYS)]
        if not cut:
            return ok("network", "A route leads out of each subnet, by a NAT gateway or the like.")
        filters = [{"Name": "vpc-id", "Values": [vpc]}]
        found = self.aws.pages("ec2", "describe_vpc_endpoints", "VpcEndpoints", Filters=filters)
        there = {one["ServiceName"].partition(f".{self.aws.region}.")[2] for one in found}
        missing = [one for one in ENDPOINTS if one not in there]
        in_ecr = ".dkr.ecr." in (self.config.image or "")
        if in_ecr and not missing:
            return ok("network", "Machines reach AWS by the endpoints of their VPC, and nothing else.")
        lacking = f" Nor has its VPC endpoints for {', '.join(missing)}." if in_ecr else ""
        return problem(
            "network",
            f"No way leads out of {shared.named(cut)} without a public address: images cannot be pulled.{lacking}",
            "Leave out public=False, or make a NAT gateway and a route to it (`aws ec2 create-nat-gateway`), "
            "or endpoints and an image in ECR.",
        )


def default_routes(tables: Sequence[Mapping[str, Any]], subnet: str) -> list[Mapping[str, Any]]:
    """The routes by which a subnet's packets leave their network: of its own table, or else of the main one."""

    def of(key: str, value: Any) -> list[Mapping[str, Any]]:
        return [t for t in tables if any(one.get(key) == value for one in t.get("Associations", ()))]

    found = of("SubnetId", subnet) or of("Main", True)
    return [
        route
        for table in found
        for route in table.get("Routes", ())
        if route.get("DestinationCidrBlock") == OUTSIDE and route.get("State") != "blackhole"
    ]


def _listed(missing: Sequence[simulation.Lack]) -> str:
    """Each action once, with the resource where only some of a kind are meant."""
    by_action: dict[str, list[str]] = {}
    for lack in missing:
        resource = lack.resource.split(":", 5)[-1]
        by_action.setdefault(lack.action, []).append(
            resource if simulation.SAMPLE not in resource else resource.partition("/")[0]
        )
    said = []
    for action, resources in by_action.items():
        where = [one for one in dict.fromkeys(resources) if one != "*"]
        said.append(f"{action} (on {', '.join(where)})" if where else action)
    return ", ".join(said)


def _above(missing: Sequence[simulation.Lack]) -> str:
    """Where a right of one's own would not help, what would."""
    if any(lack.above == "organization" for lack in missing):
        return "Your organization's policies forbid it: ask its administrators. "
    if any(lack.above == "boundary" for lack in missing):
        return "A permissions boundary leaves it out: ask whoever set it. "
    if any(lack.why == "explicitDeny" for lack in missing):
        return "A policy denies it explicitly, which no other can allow. "
    return ""
