"""Least-privilege policies: the shipped ones, as one option or another of a cluster changes them.

What is shipped are documents under `templates/policies`. A manager's own has all that it may need; here what no
option asks for is left out of it, roles of one's own take the place of ours, and what a further option needs is added.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider import templates
from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["FORMS", "NAMES", "PROVIDERS", "Wanted", "document", "parted", "written"]

#: What a provider's manager is called on the command line, and its policy.
PROVIDERS = {"fargate": "aws-fargate", "ecs": "aws-ecs", "ec2": "aws-ec2", "gcp": "gcp", "azure": "azure"}
#: In which module each cloud's policies are rendered, by how their names begin.
MODULES = (("aws-ec2", "ec2"), ("aws", "ecs"), ("azure", "azure"), ("gcp", "gce"))
#: On container instances of the user's, in an ECS cluster of theirs, machines have no public address and no quota.
LESS = {
    "aws-ecs": (
        "aws-fargate",
        {"ec2:DescribeNetworkInterfaces", "ecs:DescribeClusters", "servicequotas:GetServiceQuota"},
    ),
    "aws-ecs-landing": (
        "aws-fargate-landing",
        {"ecs:CreateCluster", "ecs:TagResource", "iam:CreateServiceLinkedRole"},
    ),
}
#: Who may take a role is no policy of what it may do.
TRUST = frozenset({"aws-ec2-trust", "aws-ecs-trust"})
FOLDER = "policies/"
#: Every policy: those under templates/policies, and those that are others with something left out.
NAMES = sorted(
    {
        *LESS,
        *(name[len(FOLDER) : -len(".json")] for name in templates.names() if name.startswith(FOLDER)),
    }
    - TRUST
)
#: What a further option adds, by the manager's policy. There is a part for each option where a cloud knows it.
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "aws-fargate": {
        "landing": ("aws-fargate-landing",),
        "tunnel": ("aws-fargate-tunnel",),
        "autonomous": ("aws-fargate-roles",),
    },
    "aws-ecs": {
        "landing": ("aws-ecs-landing",),
        "tunnel": ("aws-fargate-tunnel",),
        "autonomous": ("aws-fargate-roles",),
    },
    "aws-ec2": {
        "landing": ("aws-ec2-landing",),
        "tunnel": ("aws-ec2-tunnel",),
        "autonomous": ("aws-ec2-roles",),
    },
    **{name: {"tunnel": ()} for name in ("aws-fargate-landing", "aws-ecs-landing", "aws-ec2-landing")},
    "gcp": {"landing": ("gcp-landing",), "tunnel": ("gcp-tunnel",)},
    "azure": {"landing": ("azure-landing",), "tunnel": ("azure-tunnel",)},
}
#: Our roles on AWS, and the option that asks for each; a role of the user's takes its place.
ROLES = {"dask-execution": "execution_role", "dask-task": "role", "dask-machine": "role"}
TUNNELLED = ("dask-tunnel", "dask-machine-ssm")
#: Characters of a managed policy, white space left out.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MOST = 6144
FORMS = ("json", "terraform", "cli")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a policy is to be for.

    Parameters
    ----------
    account, region
        Where: of AWS both, of Azure the subscription, of Google Cloud the project as the account. `*` means any.
    resource_group
        Of Azure.
    cluster
        Of an autonomous cluster's own role: the cluster's name.
    ecs_cluster, log_group
        Of AWS; None for ours.
    role, execution_role
        Of AWS: name or ARN of a role of yours that machines have, and of one that starts them. Ours are then neither
        looked at nor handed over.
    landing, tunnel, autonomous
        Also what makes the landing, what `tunnel=True` needs, and what `autonomous=True` needs.
    """

    account: str = "*"
    region: str = "*"
    resource_group: str = "*"
    cluster: str = "*"
    ecs_cluster: str | None = None
    log_group: str | None = None
    role: str | None = None
    execution_role: str | None = None
    landing: bool = False
    tunnel: bool = False
    autonomous: bool = False

    def holes(self) -> dict[str, str]:
        """What fills the holes of the templates."""
        values = {
            "account": self.account,
            "region": self.region,
            "subscription": self.account,
            "resource_group": self.resource_group,
            "cluster_name": self.cluster,
            "ecs_cluster": self.ecs_cluster,
            "log_group": self.log_group,
        }
        return {name: value for name, value in values.items() if value is not None}


def document(name: str, wanted: Wanted = Wanted()) -> dict[str, Any]:
    """A policy, as what its JSON says.

    Parameters
    ----------
    name
        One of `NAMES`, or a provider's of `PROVIDERS`.
    wanted
        What it is to be for.

    Raises
    ------
    ConfigError
        When there is no such policy, or an option changes nothing about it.

    Examples
    --------
    >>> document("ec2", Wanted(account="123456789012"))["Statement"][0]["Sid"]
    'Look'
    """
    name = PROVIDERS.get(name, name)
    if name not in NAMES:
        raise ConfigError(f"There is no policy {name!r}; there are {', '.join((*PROVIDERS, *NAMES))}.")
    options = [one for one in ("landing", "tunnel", "autonomous") if getattr(wanted, one)]
    parts = PARTS.get(name, {})
    if unknown := [one for one in options if one not in parts]:
        raise ConfigError(f"--{unknown[0]} changes nothing about {name}.")
    added = [_rendered(part, wanted) for option in options for part in parts[option]]
    whole = _joined(_rendered(name, wanted), added)
    if "Statement" not in whole or name not in PARTS:
        return whole
    return {**whole, "Statement": [*filter(None, (_for(one, wanted) for one in whole["Statement"]))]}


def _rendered(name: str, wanted: Wanted) -> dict[str, Any]:
    """One of the shipped documents, or what one with less says."""
    base, left_out = LESS.get(name, (name, set[str]()))
    module = next(module for start, module in MODULES if base.startswith(start))
    policy: Callable[..., str] = importlib.import_module(f"cloudprovider.providers.{module}").policy
    holes = wanted.holes()
    if name != base:
        holes.setdefault("ecs_cluster", "*")
    said: dict[str, Any] = json.loads(policy(base, **holes))
    if not left_out:
        return said
    return {**said, "Statement": [*filter(None, (_less(one, left_out) for one in said["Statement"]))]}


def _less(statement: Mapping[str, Any], left_out: set[str]) -> dict[str, Any] | None:
    """A statement without some actions; None when none is left."""
    actions = [action for action in listed(statement["Action"]) if action not in left_out]
    if actions == listed(statement["Action"]):
        return dict(statement)
    return {**statement, "Action": actions} if actions else None


def _joined(said: dict[str, Any], more: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A document with what others allow as well: policies of AWS, roles of Google Cloud or of Azure."""
    for other in more:
        for key in ("Statement", "includedPermissions", "Actions", "DataActions"):
            if key in other:
                known = said.get(key, [])
                said[key] = known + [one for one in other[key] if one not in known]
                if key != "Statement":
                    said[key] = sorted(said[key])
    return said


# -- roles on AWS ------------------------------------------------------------------------------------------


def _for(statement: Mapping[str, Any], wanted: Wanted) -> dict[str, Any] | None:
    """A statement about the roles that are wanted; None when it is about none of them."""
    resources = [_resource(one, statement, wanted) for one in listed(statement["Resource"])]
    kept = [*dict.fromkeys(one for one in resources if one)]
    if kept == listed(statement["Resource"]):
        return dict(statement)
    return {**statement, "Resource": kept} if kept else None


def _resource(arn: str, statement: Mapping[str, Any], wanted: Wanted) -> str | None:
    """An ARN as wanted: that of the user's role in the place of ours, None for what is not wanted."""
    head, _, name = arn.rpartition("/")
    if ":iam:" not in arn:
        return arn
    if name in TUNNELLED:
        return arn if wanted.tunnel and not wanted.role else None
    mine = getattr(wanted, ROLES[name]) if name in ROLES else None
    if mine is None:
        return arn
    passes = "iam:PassRole" in listed(statement["Action"])
    if not passes:  # what the user names is not made, and an ARN is not even looked at
        looks = (
            "iam:GetRole" in listed(statement["Action"]) and head.endswith(":role") and name != "dask-machine"
        )
        return f"{head}/{mine}" if looks and not mine.startswith("arn:") else None
    return mine if mine.startswith("arn:") else f"{head}/{mine}"


def listed(value: Any) -> list[Any]:
    """What may be one or several, as several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


# -- how it is written -------------------------------------------------------------------------------------


def written(name: str, said: Mapping[str, Any], form: str, wanted: Wanted = Wanted()) -> str:
    """A policy as JSON, as a Terraform resource, or as the command of the cloud's own tool that makes it.

    Parameters
    ----------
    name
        What it is called.
    said
        As `document` returned it.
    form
        One of `FORMS`.
    wanted
        What it is for: where to make it.
    """
    name = PROVIDERS.get(name, name)
    if form == "json":
        return json.dumps(said, indent=2)
    cloud = name.partition("-")[0]
    return WRITERS[form, cloud](name, said, wanted)


def parted(name: str, said: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A policy of AWS as so many as IAM takes it in, by their names."""
    some: list[list[Any]] = [[]]
    for statement in said["Statement"]:
        if len(_compact({**said, "Statement": [*some[-1], statement]})) > MOST:
            some.append([])
        some[-1].append(statement)
    names = [name, *(f"{name}-{number}" for number in range(2, len(some) + 1))]
    return {one: {**said, "Statement": part} for one, part in zip(names, some, strict=True)}


def _compact(said: Mapping[str, Any]) -> str:
    return json.dumps(said, separators=(",", ":"))


def _aws_terraform(name: str, said: Mapping[str, Any], _: Wanted) -> str:
    return "\n\n".join(
        f'resource "aws_iam_policy" "{_label(one)}" {{\n  name = "{_called(one)}"\n'
        f"  policy = jsonencode({_indented(json.dumps(part, indent=2, separators=(',', ' : ')))})\n}}"
        for one, part in parted(name, said).items()
    )


def _gcp_terraform(name: str, said: Mapping[str, Any], wanted: Wanted) -> str:
    project = f'  project     = "{wanted.account}"\n' if wanted.account != "*" else ""
    return (
        f'resource "google_project_iam_custom_role" "{_label(name)}" {{\n{project}'
        f'  role_id     = "{_id(name)}"\n  title       = {json.dumps(said["title"])}\n'
        f"  description = {json.dumps(said['description'])}\n"
        f"  permissions = {_indented(json.dumps(said['includedPermissions'], indent=2))}\n}}"
    )


def _azure_terraform(name: str, said: Mapping[str, Any], wanted: Wanted) -> str:
    known = wanted.account != "*"
    scope = f'"/subscriptions/{wanted.account}"' if known else "data.azurerm_subscription.current.id"
    head = "" if known else 'data "azurerm_subscription" "current" {}\n\n'
    kinds = (
        ("actions", "Actions"),
        ("not_actions", "NotActions"),
        ("data_actions", "DataActions"),
        ("not_data_actions", "NotDataActions"),
    )
    lines = [
        f"    {ours} = {_indented(json.dumps(said[theirs], indent=2), 4)}"
        for ours, theirs in kinds
        if said.get(theirs)
    ]
    return (
        f'{head}resource "azurerm_role_definition" "{_label(name)}" {{\n  name        = {json.dumps(said["Name"])}\n'
        f"  scope       = {scope}\n  description = {json.dumps(said['Description'])}\n\n  permissions {{\n"
        + "\n".join(lines)
        + f"\n  }}\n\n  assignable_scopes = [{scope}]\n}}"
    )


def _aws_cli(name: str, said: Mapping[str, Any], _: Wanted) -> str:
    return "\n".join(
        f"aws iam create-policy --policy-name {_called(one)} --policy-document '{_compact(part)}'"
        for one, part in parted(name, said).items()
    )


def _gcp_cli(name: str, said: Mapping[str, Any], wanted: Wanted) -> str:
    project = wanted.account if wanted.account != "*" else '"$GOOGLE_CLOUD_PROJECT"'
    return (
        f"gcloud iam roles create {_id(name)} --project={project} --title='{said['title']}' --stage=GA "
        f"--permissions={','.join(said['includedPermissions'])}"
    )


def _azure_cli(_: str, said: Mapping[str, Any], __: Wanted) -> str:
    return f"az role definition create --role-definition '{_compact(said)}'"


WRITERS: dict[tuple[str, str], Callable[[str, Mapping[str, Any], Wanted], str]] = {
    ("terraform", "aws"): _aws_terraform,
    ("terraform", "gcp"): _gcp_terraform,
    ("terraform", "azure"): _azure_terraform,
    ("cli", "aws"): _aws_cli,
    ("cli", "gcp"): _gcp_cli,
    ("cli", "azure"): _azure_cli,
}


def _indented(text: str, by: int = 2) -> str:
    return text.replace("\n", "\n" + " " * by)


def _label(name: str) -> str:
    return f"dask_{name.replace('-', '_')}"


def _called(name: str) -> str:
    return f"dask-{name}"


def _id(name: str) -> str:
    """What a custom role of Google Cloud may be called."""
    return "dask" + "".join(part.capitalize() for part in name.split("-"))
