"""`policy`: the least rights that a manager, a machine or a role needs."""

from __future__ import annotations

import click

from cloudprovider.policies import FORMS, NAMES, PROVIDERS

__all__ = ["policy"]


@click.command(short_help="Print a least-privilege policy.")
@click.argument("name", metavar="PROVIDER|POLICY", type=click.Choice([*PROVIDERS, *NAMES]))
@click.option("--format", "form", type=click.Choice(FORMS), default="json", show_default=True)
@click.option("--region", default="*", show_default=True, help="Of AWS.")
@click.option(
    "--account",
    default="*",
    show_default=True,
    help="On Azure the subscription, on Google Cloud the project.",
)
@click.option("--resource-group", default="*", show_default=True, help="Of Azure.")
@click.option("--cluster", default="*", show_default=True, help="Of an autonomous cluster's role: its name.")
@click.option("--ecs-cluster", help="Of AWS: an ECS cluster of yours.")
@click.option("--log-group", help="Of AWS: a log group of yours.")
@click.option("--role", help="Of AWS: name or ARN of a role of yours that machines have.")
@click.option("--execution-role", help="Of AWS: name or ARN of a role of yours that starts tasks.")
@click.option("--landing", is_flag=True, help="Also what makes, once, what clusters share in an account.")
@click.option("--tunnel", is_flag=True, help="Also what tunnel=True needs.")
@click.option("--autonomous", is_flag=True, help="Also what autonomous=True needs.")
def policy(name: str, form: str, account: str, **options: str | bool | None) -> None:
    """Print the least rights of whoever starts clusters (fargate, ecs, ec2, gcp, azure), or of a role.

    The other names are parts of those, and the policies of what machines may do: each is a file under
    templates/policies.
    """
    from cloudprovider.policies import Wanted, document, parted, written

    wanted = Wanted(account=account, **options)  # type: ignore[arg-type]
    said = document(name, wanted)
    if form == "json" and "Statement" in said and (parts := len(parted(name, said))) > 1:
        click.echo(
            f"IAM takes no policy this long: print its parts, or {parts} policies by --format terraform.",
            err=True,
        )
    click.echo(written(name, said, form, wanted))
