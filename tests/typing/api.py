"""What type checkers see of the public names. Checked by mypy, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from cloudprovider import (
    AccessError,
    BootError,
    CapacityError,
    CloudCluster,
    CloudError,
    ConfigError,
    FargateCluster,
    ProcessCluster,
)
from cloudprovider.bill import Bill, Line, Meter, Rate
from cloudprovider.compat import translated_options
from cloudprovider.config import Config
from cloudprovider.events import Event, Events, Phase
from cloudprovider.prices import fargate_rate
from cloudprovider.timeline import Step, Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.provider import Machine


def a_cluster_is_what_it_was_made_as() -> None:
    """The lazy table does not hide the classes."""
    assert_type(FargateCluster(n_workers=2, spot="fallback"), FargateCluster)
    assert_type(ProcessCluster.from_name("mine"), ProcessCluster)
    some: type[CloudCluster] = FargateCluster
    assert_type(some(), CloudCluster)


async def a_cluster_can_be_awaited() -> None:
    """Awaiting and `async with` give the cluster itself."""
    assert_type(await FargateCluster(asynchronous=True), FargateCluster)
    async with ProcessCluster(asynchronous=True) as cluster:
        assert_type(cluster, ProcessCluster)


def a_cluster_says_what_it_has_and_costs(cluster: CloudCluster) -> None:
    """What users read of a cluster is typed."""
    assert_type(cluster.workers, dict[str, "Machine"])
    assert_type(cluster.cost(), Bill)
    assert_type(cluster.events, Events)
    assert_type(cluster.detach(), str)


def a_bill_is_plain_data(bill: Bill) -> None:
    """Money is float, None where no price is known; lines are a tuple."""
    assert_type(bill.spent, float | None)
    assert_type(bill.lines, tuple[Line, ...])
    assert_type(bill.as_json(), dict[str, Any])


def a_meter_takes_machines_and_rates(meter: Meter, machine: Machine) -> None:
    """Providers price machines; the meter does not."""
    rate = fargate_rate("us-east-1", "X86_64", "spot", 4, 16, public=True)
    assert_type(rate, Rate)
    assert_type(rate.per_second, float)
    meter.see(machine, rate)
    assert_type(meter.bill(), Bill)
    Rate(0.5)  # type: ignore[call-arg]  # keywords only


def events_can_be_heard(events: Events) -> None:
    """Iterating and listening give events."""
    for event in events:
        assert_type(event, Event)
    stop: Callable[[], None] = events.listen(print)
    stop()
    assert_type(events.of(Phase.arrived), list[Event])
    assert_type(timeline(events), Timeline)
    assert_type(timeline(events).steps, tuple[Step, ...])
    assert_type(timeline(events).seconds, float | None)


def errors_are_a_tree(error: CloudError) -> None:
    """Each kind can be caught by itself, and a ConfigError is a ValueError."""
    wrong: ValueError = ConfigError("no")
    if isinstance(error, BootError):
        assert_type(error.logs, str)
    elif isinstance(error, (CapacityError, AccessError)):
        assert_type(error, CapacityError | AccessError)
    raise wrong


def options_are_a_config() -> None:
    """A cloud's Config is made by name."""
    assert_type(Config.of(n_workers=3), Config)
    assert_type(translated_options("fargate", {"fargate_spot": True}), dict[str, Any])
