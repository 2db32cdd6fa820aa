"""Our bill and the embedded cloud's own ledger agree: to the second, and to the cent."""

from __future__ import annotations

import ipaddress
import math
import random
import time

import boto3
import pytest
from cloudruntime.boot import BOOT, Boot

from cloudprovider.bill import Meter
from cloudprovider.budget import Budget
from cloudprovider.emulator import Emulator
from cloudprovider.emulator.ledger import Ledger, fargate_hourly, ipv4_hourly
from cloudprovider.estate import Estate
from cloudprovider.events import Events
from cloudprovider.prices import fargate_rate, table
from cloudprovider.providers import _ecs_wire as wire
from cloudprovider.providers._aws import AWS
from cloudprovider.providers.ecs import ECSProvider, FargateConfig

#: Boots of 0.4 s, ends of 0.1 s.
TIME_SCALE = 0.01
YEAR = 365 * 24 * 3600.0


@pytest.fixture(scope="module")
def cloud():
    with Emulator("aws", profile="fargate", time_scale=TIME_SCALE, engine="none") as cloud, cloud.active():
        yield cloud


def an_estate(name, provider=ECSProvider, **options):
    config = FargateConfig.of(
        **{
            "name": name,
            "allow_from": "127.0.0.1/32",
            "region": "us-east-1",
            "launch_rate": 20 / TIME_SCALE,
            **options,
        }
    )
    estate = Estate(config, provider, Events(), "FargateCluster")
    estate.make()
    deadline = time.monotonic() + 30
    while estate.look_at_scheduler().private_address is None:
        assert time.monotonic() < deadline, "the scheduler has an address"
        time.sleep(0.02)
    return estate


def every(estate):
    """Every machine of an estate by id, as its bill knows it."""
    fleet = estate.fleet
    return {m.id: m for m in [estate.scheduler, *fleet.machines.values(), *fleet.ended.values()]}


def live(estate, cloud, chance, seconds):
    """Let a cluster have a random life: orders, returns, kills, interruptions, and looks at its bill."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        states = {machine.id: machine.state for machine in cloud.machines()}
        running = [id for id in estate.machines if states.get(id) == "RUNNING"]
        victims = chance.sample(sorted(estate.machines), min(len(estate.machines), chance.randint(0, 3)))
        match chance.randrange(6):
            case 0 | 1:
                estate.fleet.ask(chance.randint(0, 12))
            case 2:
                estate.fleet.release(victims)
            case 3:
                for id in victims:
                    cloud.kill(id)
            case 4:
                for id in victims:
                    if estate.machines[id].market == "spot":
                        cloud.interrupt(id)
            case 5:
                assert estate.cost().spent >= 0
        estate.reconcile(running)
        time.sleep(chance.uniform(0, 0.15))


LIVES = {
    "on demand": {"budget": "50 USD"},
    "spot": {"spot": True},
    "fallback": {"spot": "fallback", "worker_cpu": 4, "worker_memory": "16 GiB"},
    "arm": {"architecture": "arm64"},
    "arm spot": {"architecture": "arm64", "spot": True, "worker_cpu": 1, "worker_memory": "8 GiB"},
    "storage": {"ephemeral_storage": 100},
    "storage on spot": {"ephemeral_storage": 21, "spot": True},
    "private": {"public": False, "spot": "fallback", "tunnel": False, "allow_from": "10.0.0.0/8"},
}


@pytest.mark.parametrize("kind", LIVES)
def test_a_receipt_is_the_ledgers(cloud, kind):
    """After any life, each machine's seconds and the cluster's dollars are those of the cloud's own books."""
    options = {**LIVES[kind], **({"subnets": [behind_a_gateway()]} if kind == "private" else {})}
    before = len(cloud.ledger)
    estate = an_estate(f"life-{kind.replace(' ', '-')}", n_workers=12, **options)
    if kind == "fallback":
        cloud.inject("capacity", room=4, market="spot")
    live(estate, cloud, random.Random(f"life {kind}"), 3)
    estate.remove()
    cloud.clear()
    bill, entries, machines = estate.cost(), cloud.ledger[before:], every(estate)

    sizes = {entry.machine: entry for entry in entries if entry.kind != "public IPv4"}
    lived = {m.id: m.ended - m.billed_from for m in machines.values() if m.billed_from is not None}
    assert {id: pytest.approx(entry.seconds, abs=1e-3) for id, entry in sizes.items()} == lived
    assert {id: entry.market for id, entry in sizes.items()} == {id: machines[id].market for id in lived}
    assert sum(line.seconds for line in bill.lines) == sum(billed(entry) for entry in sizes.values())
    assert pytest.approx(sum(entry.price for entry in entries), abs=1e-9) == bill.spent
    assert (kind != "private") == any(entry.kind == "public IPv4" for entry in entries)
    assert {"on-demand", "spot"} == {e.market for e in entries} or kind in {"on demand", "arm", "storage"}
    assert len(lived) > 12


def billed(entry):
    """Whole seconds that an entry of the ledger bills: a minute at least."""
    return max(60, math.ceil(round(entry.seconds, 3)))


def test_a_task_is_told_what_the_budget_pays(cloud):
    """The scheduler's task has in its environment for how long the budget pays; workers are told nothing of it."""
    estate = an_estate("told", n_workers=1, budget="1 USD")
    estate.reconcile([])
    ecs = boto3.client("ecs")
    ids = [estate.scheduler.id, *estate.machines]
    scheduler, worker = (
        {one["name"]: one["value"] for one in task["overrides"]["containerOverrides"][0]["environment"]}
        for id in ids
        for task in ecs.describe_tasks(cluster="dask", tasks=[id])["tasks"]
    )
    estate.remove()
    boot = Boot.loads(scheduler[BOOT])
    assert 0 < boot.leases.budget < 3600 / estate.provider.rate(estate.scheduler).per_hour
    assert estate.provider.boot("scheduler").secret == boot.secret
    assert BOOT not in worker


def behind_a_gateway():
    """A subnet whose machines reach the outside through a NAT gateway."""
    ec2 = boto3.client("ec2")
    subnets = ec2.describe_subnets()["Subnets"]
    [vpc] = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    block = str(ipaddress.ip_network(vpc["CidrBlock"]).broadcast_address - 0xFFF) + "/20"
    subnet = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock=block)["Subnet"]["SubnetId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = ec2.create_nat_gateway(SubnetId=subnets[0]["SubnetId"], AllocationId=address)["NatGateway"]
    routes = ec2.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
    ec2.create_route(
        RouteTableId=routes, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway["NatGatewayId"]
    )
    ec2.associate_route_table(RouteTableId=routes, SubnetId=subnet)
    return subnet


def a_task(chance, number):
    """What DescribeTasks says of a task at the end of a random life of up to a day."""
    start = 1_790_000_000 + round(chance.uniform(0, YEAR), 3)
    lived = chance.choice(
        [0.0, 0.001, 30.0, 59.999, 60.0, 60.001, 3600.0, round(chance.expovariate(1e-3), 3)]
    )
    cpu, memory = chance.choice([(256, 512), (1024, 8192), (4096, 16384), (16384, 122880)])
    task = {
        "taskArn": f"arn:aws:ecs:us-east-1:1:task/dask/{number}",
        "lastStatus": "STOPPED",
        "cpu": str(cpu),
        "memory": str(memory),
        "ephemeralStorage": {"sizeInGiB": chance.choice([20, 21, 200])},
        "attributes": [{"name": "ecs.cpu-architecture", "value": chance.choice(["x86_64", "arm64"])}],
        "createdAt": start - chance.uniform(1, 60),
        "pullStartedAt": start,
        "stoppingAt": start + lived / 2,
        "executionStoppedAt": start + lived / 2,
        "stoppedAt": start + lived,
    }
    return task | ({"capacityProviderName": wire.SPOT} if chance.random() < 0.5 else {})


def looks(task, chance):
    """What was seen of a task before its end, as often as it happened to be looked at."""
    ended = ("stoppingAt", "executionStoppedAt", "stoppedAt")
    starting = {**task, "lastStatus": "PENDING", **dict.fromkeys(("pullStartedAt", *ended))}
    running = {**task, "lastStatus": "RUNNING", **dict.fromkeys(ended)}
    stopping = {**task, "lastStatus": "STOPPING", **dict.fromkeys(ended[1:])}
    deprovisioning = {**task, "lastStatus": "DEPROVISIONING", "stoppedAt": None}
    return [look for look in (starting, running, stopping, deprovisioning) if chance.random() < 0.5]


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_long_lives_agree_too(seed, public):
    """Hundreds of lives from nothing to hours, each seen as it happened to be: the same seconds and dollars."""
    chance = random.Random(seed)
    ledger, meter = Ledger(), Meter()
    config = FargateConfig.of(name="books", region="us-east-1", public=public, allow_from="10.0.0.0/8")
    provider = ECSProvider(config, config.identity())
    for number in range(200):
        task = a_task(chance, number)
        market = "spot" if "capacityProviderName" in task else "on-demand"
        hourly = fargate_hourly(
            "us-east-1",
            vcpu=int(task["cpu"]) / 1024,
            memory_gb=int(task["memory"]) / 1024,
            storage_gb=task["ephemeralStorage"]["sizeInGiB"],
            market=market,
            architecture=task["attributes"][0]["value"].upper(),
        )
        ledger.start(str(number), "size", market, hourly, task["pullStartedAt"])
        if public:
            ledger.start(str(number), "public IPv4", "on-demand", ipv4_hourly(), task["pullStartedAt"])
        ledger.stop(str(number), task["stoppedAt"])
        for look in [*looks(task, chance), task]:
            machine = wire.machine(look)
            meter.see(machine, provider.rate(machine), now=chance.uniform(0, 2e9))
    bill, entries = meter.bill(), ledger.entries()

    sizes = [entry for entry in entries if entry.kind == "size"]
    for market in ("spot", "on-demand"):
        seconds = sum(line.seconds for line in bill.lines if line.market == market)
        assert sum(billed(entry) for entry in sizes if entry.market == market) == seconds
    assert pytest.approx(sum(entry.price for entry in entries), abs=1e-6) == bill.spent


@pytest.mark.parametrize("region", [*table("fargate")["regions"], "mars-north-1"])
def test_a_price_is_known_to_both_or_to_neither(region):
    """Where the table lacks a price, our bill says unknown and the ledger has no number: neither has 0."""
    for architecture in ("X86_64", "ARM64"):
        for market in ("spot", "on-demand"):
            for storage in (20, 50):
                rate = fargate_rate(region, architecture, market, 1, 2, storage, public=False)
                hourly = fargate_hourly(
                    region,
                    vcpu=1,
                    memory_gb=2,
                    storage_gb=storage,
                    market=market,
                    architecture=architecture,
                )
                assert bool(rate.unknown) == math.isnan(hourly)
                assert rate.unknown or pytest.approx(hourly) == rate.per_hour


def test_a_cluster_without_a_price_says_so(cloud):
    """In a region without a price for its workers, the bill says at least what the rest costs."""
    estate = an_estate("unpriced", n_workers=2, region="sa-east-1", architecture="arm64", spot=True)
    live(estate, cloud, random.Random(0), 1)
    estate.remove()
    bill = estate.cost()
    by_role = {line.role: line for line in bill.lines}

    assert ("spot ARM64 tasks in sa-east-1",) == bill.unknown == by_role["worker"].unknown
    assert () == by_role["scheduler"].unknown
    assert bill.spent > by_role["scheduler"].spent > 0
    assert estate.paid.startswith(": at least $")


class Astray(ECSProvider):
    """A provider on a computer whose clock is wrong, and jumps whenever it is read."""

    def __init__(self, config, identity):
        super().__init__(config, identity)
        chance = random.Random(7)
        self.aws = AWS(config.region, clock=self._clock)
        self._error_s = YEAR
        self._chance = chance

    def _clock(self):
        return time.time() + self._error_s

    def describe(self, ids):
        """Describe, with another wrong clock than the last time."""
        self._error_s = self._chance.choice([-YEAR, -3600.0, 0.0, 3600.0, YEAR])
        return super().describe(ids)


def test_a_clock_that_jumps_costs_nothing(cloud):
    """With our clock off by hours and years, bill and budget follow the cloud's, and the receipt is exact."""
    before = len(cloud.ledger)
    estate = an_estate("astray", provider=Astray, n_workers=6)
    bills, lefts = [], []
    for _ in range(20):
        estate.reconcile([])
        bills.append(estate.cost())
        assert abs(bills[-1].until - time.time()) < 10
        assert 0 <= bills[-1].spent < 0.1
        lefts.append(Budget(usd=5).left_s(estate.committed()))
    estate.fleet.release(list(estate.machines)[:2])
    estate.remove()
    bill, entries = estate.cost(), cloud.ledger[before:]

    assert [one.spent for one in bills] == sorted(one.spent for one in bills)
    assert max(lefts) - min(lefts) < 0.02 * max(lefts)
    assert pytest.approx(sum(entry.price for entry in entries), abs=1e-9) == bill.spent


def test_without_the_cloud_the_bill_is_what_we_knew(cloud):
    """A bill is there when the cloud does not answer, and says so."""
    estate = an_estate("unanswered", n_workers=1)
    live(estate, cloud, random.Random(1), 1)
    before = estate.cost()
    with cloud.inject("denied", "DescribeTasks"):
        bill = estate.cost()
    estate.remove()

    assert before.spent <= bill.spent
    assert any("the cloud could not be asked" in note for note in bill.notes)
    assert not any("could not be asked" in note for note in before.notes)
