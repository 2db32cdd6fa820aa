"""`price`: what a cluster would cost an hour, by the dated tables: no credentials, no call."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cloudprovider import prices
from cloudprovider.bill import HOUR, amount, bill, cells, remarks
from cloudprovider.cli.finding import json_option, region_option
from cloudprovider.cli.text import columns, wrapped
from cloudprovider.errors import ConfigError
from cloudprovider.provider import Machine, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.bill import Bill, Rate
    from cloudprovider.providers._machine_types import Catalogue, Wish
    from cloudprovider.providers._vm_config import VMConfig

__all__ = ["price"]

#: GiB of the machine image's root volume, where `--disk-size` does not say.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-optimized_AMI.html
# https://cloud.google.com/container-optimized-os/docs/how-to/create-configure-instance
# https://learn.microsoft.com/azure/virtual-machines/managed-disks-overview
ROOT_GIB = {"ec2": 30, "gcp": 10, "azure": 30}
RATES: dict[str, Callable[..., Rate]] = {
    "ec2": prices.ec2_rate,
    "gcp": prices.gce_rate,
    "azure": prices.azure_rate,
}


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a cluster would cost.

    Parameters
    ----------
    cloud, region
        Where.
    n_workers
        Dask workers that were asked for.
    date
        Of the prices.
    bill
        The bill of its first hour.
    """

    cloud: str
    region: str
    n_workers: int
    date: str
    bill: Bill

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        said = self.bill.as_json()
        kept = ("currency", "per_hour", "parts", "unknown", "left_out", "notes")
        lines = [
            {name: line[name] for name in ("role", "market", "kind", "machines", "per_hour", "unknown")}
            for line in said["lines"]
        ]
        facts = {"cloud": self.cloud, "region": self.region, "n_workers": self.n_workers, "date": self.date}
        return {**facts, **{name: said[name] for name in kept}, "machines": lines}

    def lines(self) -> list[str]:
        """For people."""
        total = "total", "", amount(self.bill.per_hour, self.bill.unknown)
        rows = [(machines, kind, hour) for machines, kind, *_, hour, _ in map(cells, self.bill.lines)]
        return [
            f"{self.cloud} in {self.region}, by prices of {self.date}:",
            "",
            *columns([("machines", "kind", "an hour"), *rows, total], right={2}),
            "",
            *wrapped(remarks(self.bill)),
        ]


@click.group(short_help="Say what a cluster would cost an hour.")
def price() -> None:
    """Say what a cluster would cost an hour, by dated tables: no credentials are needed."""


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every cloud has."""
    for decorate in (
        json_option,
        click.option("--public/--private", default=None, help="With public addresses, or without."),
        click.option("--spot/--on-demand", default=None, help="Workers on spare capacity, or not."),
        region_option,
        click.option("--n-workers", type=click.IntRange(0), default=1, show_default=True),
    ):
        command = decorate(command)
    return command


@price.command()
@_shared
@click.option("--worker-cpu", type=float, help="vCPUs.")
@click.option("--worker-memory", help="Such as '16 GiB'.")
@click.option("--scheduler-cpu", type=float, help="vCPUs.")
@click.option("--scheduler-memory", help="Such as '4 GiB'.")
@click.option("--architecture", type=click.Choice(["x86_64", "arm64"]))
@click.option("--ephemeral-storage", type=int, help="GiB of disk of each worker.")
@click.option("--workers-per-machine", type=int)
def fargate(*, as_json: bool, public: bool | None, **options: Any) -> None:
    """Price a FargateCluster: its sizes are checked as the cluster's own are."""
    from cloudprovider.providers._ecs_config import GB, FargateConfig

    config = FargateConfig.of(**options, **_access(public=public))
    region = _aws_region(config.region)
    _check_region(region, "fargate")
    architecture = config.architecture.upper()

    def machine(role: str, number: int) -> tuple[Machine, Rate]:
        cpu, memory = (size / GB for size in config.size(role))
        storage = config.ephemeral_storage if role == "worker" else None
        disk = f", {storage} GiB disk" if storage else ""
        kind = f"{cpu:g} vCPU, {memory:g} GiB, {architecture}{disk}"
        market = config.markets(role)[0]
        size = cpu, memory, storage or 20
        rate = prices.fargate_rate(region, architecture, market, *size, public=config.public)
        return _machine(role, number, kind, market), rate

    machines = -(-config.n_workers // (config.workers_per_machine or 1))
    _say("fargate", region, config.n_workers, machines, machine, as_json=as_json)


def _sized(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every cloud's virtual machines have."""
    for decorate in (
        click.option("--workers-per-machine", type=int),
        click.option("--disk-size", type=int, help="GiB of each machine's disk. [default: its image's]"),
        click.option("--scheduler-instance-type"),
        click.option("--architecture", type=click.Choice(["x86_64", "arm64"])),
        click.option("--gpu", type=int, help="GPUs, when no type is named."),
        click.option("--memory", help="Such as '16 GiB', when no type is named."),
        click.option("--cpu", type=float, help="vCPUs, when no type is named."),
        click.option("--instance-type", help="The workers', in the cloud's words."),
        _shared,
    ):
        command = decorate(command)
    return command


@price.command()
@_sized
def ec2(*, as_json: bool, public: bool | None, **options: Any) -> None:
    """Price an EC2Cluster; where no type is named, with the cheapest of the table that fits."""
    from cloudprovider.providers._ec2_config import EC2Config
    from cloudprovider.providers._ec2_types import EC2

    config = EC2Config.of(**options, **_access(public=public))
    catalogues = dict.fromkeys(("worker", "scheduler"), EC2)
    _machines("ec2", config, _aws_region(config.region), catalogues, as_json=as_json)


@price.command()
@_sized
@click.option("--gpu-type", help="Such as nvidia-tesla-t4.")
def gcp(*, as_json: bool, public: bool | None, **options: Any) -> None:
    """Price a GCPCluster; where no type is named, with the cheapest of the table that fits."""
    from cloudprovider.providers._gce_config import GCPConfig
    from cloudprovider.providers._gce_types import GCE, boot_disk, cards_of, for_workers
    from cloudprovider.providers._gcp import GCP

    config = GCPConfig.of(**options, **_access(public=public))
    region = config.place or GCP(None).region

    def more(role: str, name: str) -> dict[str, Any]:
        disk = config.disk_type or boot_disk(name)
        return {"disk_type": disk, "gpus": cards_of(config) if role == "worker" else {}}

    _machines("gcp", config, region, {"worker": for_workers(config), "scheduler": GCE}, more, as_json=as_json)


@price.command()
@_sized
def azure(*, as_json: bool, public: bool | None, **options: Any) -> None:
    """Price an AzureVMCluster; where no size is named, with the cheapest of the table that fits."""
    from cloudprovider.providers._azure import default_region
    from cloudprovider.providers._azure_config import AzureVMConfig
    from cloudprovider.providers._azure_types import AZURE

    config = AzureVMConfig.of(**options, **_access(public=public))
    catalogues, region = dict.fromkeys(("worker", "scheduler"), AZURE), config.region or default_region()
    more = {"disk_type": config.disk_type}
    _machines("azure", config, region, catalogues, lambda *_: more, as_json=as_json)


def _machines(
    cloud: str,
    config: VMConfig,
    region: str,
    catalogues: Mapping[str, Catalogue],
    more: Callable[[str, str], dict[str, Any]] = lambda *_: {},
    *,
    as_json: bool,
) -> None:
    """Price a scheduler's virtual machine and those of workers; `more` is what a role's machine of a type has too."""
    from cloudprovider.providers._machine_types import wishes_of

    _check_region(region, cloud)
    worker, scheduler = wishes_of(config)
    architecture = worker.architecture or _architecture(worker.named[0], catalogues["scheduler"])
    types = {
        wish.role: _type(wish, region, architecture, catalogues[wish.role]) for wish in (worker, scheduler)
    }

    def machine(role: str, number: int) -> tuple[Machine, Rate]:
        name, market, disk = types[role], config.markets(role)[0], config.disk_size or ROOT_GIB[cloud]
        has = {"disk_gib": disk, "public": config.public, **more(role, name)}
        return _machine(role, number, f"{name}, {disk} GiB disk", market), RATES[cloud](
            region, name, market, **has
        )

    gpus = catalogues["worker"].sizes(architecture).get(types["worker"], (0, 0, 0))[2]
    machines = -(-config.n_workers // (config.workers_per_machine or gpus or 1))
    _say(cloud, region, config.n_workers, machines, machine, as_json=as_json)


def _access(*, public: bool | None) -> dict[str, Any]:
    """The options that say whether machines have public addresses; without them some way in is needed."""
    return {"public": public, "tunnel": None if public is None else not public}


def _aws_region(region: str | None) -> str:
    """The region whose prices are asked for."""
    from cloudprovider.providers._aws import AWS

    return region or AWS(None).region


def _check_region(region: str, table: str) -> None:
    """Refuse a region that has no prices."""
    known: Mapping[str, Any] = prices.table(table)["regions"]
    if region not in known:
        near = difflib.get_close_matches(region, known, n=2)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise ConfigError(f"The prices of {prices.dated(table)} have no region {region!r}{hint}")


def _architecture(name: str, catalogue: Catalogue) -> str:
    """A type's architecture by the table, which does not have all."""
    return "arm64" if name in catalogue.sizes("arm64") else "x86_64"


def _type(wish: Wish, region: str, architecture: str, catalogue: Catalogue) -> str:
    """The type that a role's machines would have."""
    if wish.named:
        return _known(wish.named[0], region, catalogue)
    fitting = catalogue.nominated(wish, region, architecture)
    if not fitting:
        raise ConfigError(f"The table has no {architecture} {catalogue.word} with {wish}: name one.")
    return fitting[0]


def _known(name: str, region: str, catalogue: Catalogue) -> str:
    """A type that some region has a price for; elsewhere its price is unknown."""
    if all(catalogue.price(place, name, "on-demand") is None for place in (region, catalogue.known)):
        every = [*catalogue.sizes("x86_64"), *catalogue.sizes("arm64")]
        near = difflib.get_close_matches(name, every, n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise ConfigError(f"The table of prices has no {catalogue.word} {name!r}{hint}")
    return name


def _machine(role: str, number: int, kind: str, market: str) -> Machine:
    return Machine(
        id=f"{role}-{number}", role=role, state=State.running, kind=kind, market=market, billed_from=0.0
    )


def _say(
    cloud: str,
    region: str,
    n_workers: int,
    machines: int,
    machine: Callable[[str, int], tuple[Machine, Rate]],
    *,
    as_json: bool,
) -> None:
    """Print the bill of the first hour of a scheduler and so many workers' machines."""
    hired = [machine("scheduler", 0), *(machine("worker", number) for number in range(machines))]
    date = prices.table(cloud)["regions"][region].get("date") or prices.dated(cloud)
    quote = Quote(cloud=cloud, region=region, n_workers=n_workers, date=date, bill=bill(hired, HOUR))
    click.echo(json.dumps(quote.as_json(), indent=2) if as_json else "\n".join(quote.lines()))
