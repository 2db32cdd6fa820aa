"""`policy` and `demo`: what needs no cloud account."""

from __future__ import annotations

import dataclasses
import json

import click

from cloudprovider.demo import STAGES

__all__ = ["POLICIES", "demo", "policy"]

#: The files under templates/policies.
POLICIES = (
    "aws-fargate",
    "aws-fargate-landing",
    "aws-fargate-execution",
    "aws-fargate-tunnel",
    "aws-fargate-tunnel-role",
    "aws-fargate-autonomous",
    "aws-fargate-roles",
    "aws-ec2",
    "aws-ec2-landing",
    "aws-ec2-machine",
    "aws-ec2-machine-ssm",
    "aws-ec2-tunnel",
    "aws-ec2-autonomous",
    "aws-ec2-roles",
    "azure",
    "azure-landing",
    "azure-machine",
    "azure-operations",
    "azure-scheduler",
    "azure-offers",
    "azure-tunnel",
    "gcp",
    "gcp-landing",
    "gcp-machine",
    "gcp-scheduler",
    "gcp-tunnel",
)


@click.command(short_help="Print a least-privilege policy.")
@click.argument("name", type=click.Choice(POLICIES))
@click.option("--region", default="*", show_default=True)
@click.option("--account", default="*", show_default=True, help="On Azure the subscription.")
@click.option("--resource-group", default="*", show_default=True, help="Of Azure.")
@click.option("--cluster", default="*", show_default=True, help="Of an autonomous cluster's role.")
def policy(name: str, region: str, account: str, resource_group: str, cluster: str) -> None:
    """Print a least-privilege policy: of whoever starts clusters (aws-fargate, aws-ec2, azure, gcp), or of a role."""
    from cloudprovider.providers import azure, ec2, ecs, gce

    of = next(
        module.policy
        for prefix, module in (("aws-ec2", ec2), ("aws", ecs), ("azure", azure), ("gcp", gce))
        if name.startswith(prefix)
    )
    values = {
        "region": region,
        "account": account,
        "subscription": account,
        "resource_group": resource_group,
        "cluster_name": cluster,
    }
    click.echo(json.dumps(json.loads(of(name, **values)), indent=2))


@click.command(short_help="Show it all on an embedded cloud.")
@click.option(
    "--cloud", "name", type=click.Choice([*STAGES]), default="fargate", show_default=True, help="Which."
)
@click.option("--keep", is_flag=True, help="Leave the embedded cloud up and print how to connect.")
@click.option(
    "--json",
    "report",
    is_flag=False,
    flag_value="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="[FILE]",
    help="The report for programs, on stdout or into a file.",
)
def demo(name: str, report: str | None, *, keep: bool) -> None:
    """Start a cluster on an embedded cloud, compute, scale, lose a spot worker, see the bill."""
    from cloudprovider.demo import run

    result = run(name, keep=keep, aside=report == "-")
    if report:
        text = json.dumps(dataclasses.asdict(result), indent=2, default=str)
        with click.open_file(report, "w", encoding="utf-8") as file:
            click.echo(text, file=file)
    raise SystemExit(0 if result.ok else 1)
