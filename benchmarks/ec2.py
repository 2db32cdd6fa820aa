"""EC2 machines on the embedded AWS, by the hundred and by the thousand: `python benchmarks/ec2.py`.

*Orders*: from nothing until the cloud has accepted the orders of a scheduler and 50 or 100 workers. The machines have
no processes (`Emulator(engine="none")`), and boots take no time, so that the seconds are the manager's; once no
rate holds, once AWS's published ones. *Thousand*: 1,000 machines through one fleet until all have arrived.
*Boot data*: the bytes of user data as the cloud has them. *Left*: what stays when programs end, with real machines.
Each start is measured in a process of its own, in an account in which somebody has started a cluster before.

`--against dask-cloudprovider` measures dask-cloudprovider 2025.9.0 in the same runs, from PyPI in an environment of its
own, at the same Dask.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import incumbent
from machine import add_json, described, save, show, throttled
from start import OURS, Manager, asked, finished, spoken
from thousand import peak_mb

from cloudprovider.emulator import Emulator
from cloudprovider.emulator.profiles import EC2_CALLS, EC2_RESOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cloudruntime.boot import Boot

    from cloudprovider.providers.ec2 import EC2Provider

#: The emulated cloud's rates, by how the tables call them.
RATES: dict[str, dict[str, Any]] = {
    "none": {},
    "AWS's": {"calls": EC2_CALLS, "resources": dict(EC2_RESOURCES)},
}
#: From the order of a machine until Dask sees it on EC2, at the least: the profile's boot, network and pull.
ARRIVES_S = 37.0
#: After this a role is known all over AWS: before, two more calls make sure of it.
OLD_S = 61.0
#: Seconds between the passes of a cluster's manager while machines are on their way.
PASS_S = 0.5
MANY, LONGEST_S = 1000, 300.0
MAX_USER_DATA = 16_384
CARRIES = "registry.example/dask-cloud-runtime:1"
#: Of the clusters whose remains are counted: workers, seconds of their leases, seconds they are watched.
FEW, LEASE_S, WATCHED_S = 2, 5, 40.0
ENDED = ("shutting-down", "terminated")
#: What dask-cloudprovider needs to start at all, beside what it asks for.
NEEDS = "cryptography"
PROGRAM = """
import json, sys, time
from dask_cloudprovider.aws import EC2Cluster
workers, how, group, ami, image, tls = int(sys.argv[1]), *sys.argv[2:6], sys.argv[6] == "tls"
cpu, began = time.process_time(), time.perf_counter()
with EC2Cluster(
    n_workers=workers, docker_image=image, security_groups=[group], ami=ami, bootstrap=False, security=tls
) as cluster:
    wall, used, until = time.perf_counter() - began, time.process_time() - cpu, time.time()
    if how != "order":
        cluster.wait_for_workers(workers, timeout=120)
    print(json.dumps({"wall": wall, "cpu": used, "until": until}), flush=True)
    while how == "stay":
        time.sleep(1)
"""


# -- ours ------------------------------------------------------------------------------------------------


def begin(workers: int, how: str) -> subprocess.Popen[str]:
    """Start this program as one that orders, or starts one cluster."""
    command = [sys.executable, __file__, "--one", str(workers), "--then", how]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def prepared(name: str, image: str | None = None) -> EC2Provider:
    """A provider whose cluster can be ordered."""
    from cloudprovider.providers.ec2 import EC2Config, EC2Provider
    from cloudprovider.security import make_secrets

    config = EC2Config.of(name=name, allow_from="127.0.0.1/32", image=image)
    provider = EC2Provider(config, config.identity())
    boots = [config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
    provider.prepare(boots, make_secrets(provider.identity))
    return provider


def scheduled(provider: EC2Provider) -> Boot:
    """Order the scheduler; the Boot of its workers, who are told its address."""
    [scheduler] = provider.create(provider.boot("scheduler"), 1).machines
    address = f"tls://{scheduler.private_address}:8786"
    return dataclasses.replace(provider.boot("worker"), scheduler=address)


def order(workers: int) -> None:
    """Order a scheduler and its workers, and say what this process used (runs in a process of its own)."""
    _, said = ordered(workers)
    print(json.dumps(said), flush=True)


def ordered(workers: int) -> tuple[Any, dict[str, float]]:
    """The fleet when all are ordered, and what that took."""
    from cloudprovider.events import Events
    from cloudprovider.fleet import Fleet

    cpu, began = time.process_time(), time.perf_counter()
    provider = prepared("ordered")
    boot = scheduled(provider)
    fleet = Fleet(provider, lambda: boot, Events())
    fleet.ask(workers)
    last = time.perf_counter()
    if refusal := fleet.reconcile(()):
        raise refusal
    now = time.perf_counter()
    used = time.process_time() - cpu
    return fleet, {"wall": now - began, "order": now - last, "cpu": used, "until": time.time()}


def bring_up(machines: int) -> None:
    """The same, and wait until all have arrived, as this process is told (runs in a process of its own)."""
    cpu, began = time.process_time(), time.perf_counter()
    fleet, said = ordered(machines)
    arrived: set[str] = set()
    threading.Thread(target=lambda: arrived.update(line.strip() for line in sys.stdin), daemon=True).start()
    while not fleet.machines.keys() <= arrived:
        if refusal := fleet.reconcile(arrived.copy()):
            raise refusal
        if time.perf_counter() - began > LONGEST_S:
            raise TimeoutError(f"{len(arrived)} of {machines} machines ran within {LONGEST_S:g} s.")
        time.sleep(PASS_S)
    used = {"arrived": time.perf_counter() - began, "until": time.time(), "peak": peak_mb()}
    print(json.dumps({**said, "cpu": time.process_time() - cpu, **used}), flush=True)


def live(workers: int, how: str) -> None:
    """Start one cluster of real machines, and end it, or stay (runs in a process of its own)."""
    from cloudprovider import EC2Cluster

    leases = {"client_timeout": LEASE_S, "scheduler_timeout": LEASE_S} if how == "stay" else {}
    with EC2Cluster(n_workers=workers, progress=False, **leases) as cluster:
        cluster.wait_for_workers(workers, timeout=120)
        print(json.dumps({"name": cluster.name}), flush=True)
        while how == "stay":
            time.sleep(1)


# -- theirs ----------------------------------------------------------------------------------------------


def begin_theirs(workers: int, how: str) -> subprocess.Popen[str]:
    """Start its program, with what it cannot find or make by itself."""
    import boto3

    ec2, ssm = boto3.client("ec2"), boto3.client("ssm")
    mine = [{"Name": "group-name", "Values": ["default"]}]
    group = ec2.describe_security_groups(Filters=mine)["SecurityGroups"][0]["GroupId"]
    path = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
    ami = ssm.get_parameter(Name=path)["Parameter"]["Value"]
    given = [str(workers), how, group, ami, incumbent.IMAGE, "plain" if how == "order" else "tls"]
    return subprocess.Popen(
        [incumbent.python(NEEDS), "-c", PROGRAM, *given],
        env=incumbent.environ(),
        cwd=incumbent.folder(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it says much at its end, which would fill a pipe that nobody reads
    )


MANAGERS = (Manager(OURS, begin), Manager(incumbent.NAME, begin_theirs))


@contextlib.contextmanager
def scheduler_everywhere() -> Iterator[None]:
    """A Dask scheduler without TLS on every address: who waits for its own before it orders need not wait."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "8786", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **quiet) as process:
        try:
            if not any("Scheduler at" in line for line in process.stderr or ()):
                raise RuntimeError("Dask's scheduler did not start.")
            threading.Thread(target=lambda: [*(process.stderr or ())], daemon=True).start()
            yield
        finally:
            process.kill()


# -- tables ----------------------------------------------------------------------------------------------


def orders(managers: tuple[Manager, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each number of workers, rates and manager."""
    for workers in options.workers:
        for rates in options.rates:
            for manager in managers:
                # Who closes its cluster ends the scheduler: each needs another.
                waits = manager.name != OURS
                with (
                    scheduler_everywhere() if waits else contextlib.nullcontext(),
                    account(figures=RATES[rates], engine="none") as cloud,
                ):
                    process = manager.begin(workers, "order")
                    before = len(cloud.calls)  # what is called to begin is none of its; it still imports
                    said = finished(process, options.patience)
                    calls = cloud.calls[before:]
                row = {"workers": workers, "rates": rates, "manager": manager.name}
                yield {**row, **spent(said, calls)}


def spent(said: dict[str, Any], calls: list[Any]) -> dict[str, Any]:
    """What a start took until everything was ordered."""
    known = "wall" in said
    last = max((call.end for call in calls if call.operation in ("RunInstances", "CreateFleet")), default=0)
    first = min((call.end for call in calls if call.operation == "RunInstances"), default=0)
    return {
        "s until all are ordered": round(said["wall"], 2) if known else said["why"],
        "s from the scheduler's order on": round(last - first, 2) if known else "",
        "client CPU s": round(said["cpu"], 2) if known else "",
        **asked(calls, said.get("until", time.time())),
    }


def thousand(_: tuple[Manager, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for machines that arrive at once, and one for those that boot as on EC2."""
    for arrives_s in (0.1, ARRIVES_S):
        figures = {"running_s": arrives_s, "guest_s": 0.0}
        with account(OLD_S, profile="ec2", figures=figures, engine="none") as cloud:
            before = len(cloud.calls)
            process = begin(options.machines, "all")
            told: set[str] = set()
            while process.poll() is None and process.stdin is not None:
                running = {machine.id for machine in cloud.machines() if machine.state == "running"}
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.writelines(f"{id}\n" for id in running - told)
                    process.stdin.flush()
                told |= running
                time.sleep(1.0)
            said = spoken(process.stdout.read() if process.stdout else "")
            calls = cloud.calls[before:]
        yield {
            "machines": options.machines,
            "arrive after s": f"{arrives_s:g}",
            "s until all are ordered": round(said["wall"], 2),
            "s until all have arrived": round(said["arrived"], 1),
            "client CPU s": round(said["cpu"], 2),
            "peak memory MB": round(said["peak"]),
            "calls": len(calls),
            "throttled": throttled(calls),
            "calls by operation": dict(Counter(call.operation for call in calls).most_common()),
        }


def boot_data(managers: tuple[Manager, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each role's user data: ours with and without the runtime in the image, and theirs; all with TLS."""
    images = ((CARRIES, "carries the runtime"), (None, "has Dask only"))
    with account(engine="none", images=[{"name": CARRIES, "carries_runtime": True}]) as cloud:
        for number, (image, carries) in enumerate(images):
            provider = prepared(f"boots{number}", image)
            provider.create(scheduled(provider), 1)
            yield from sizes(cloud, OURS, carries)
            provider.sweep(provider.identity.name)
    if len(managers) > 1:
        with account() as cloud:
            incumbent.add_image(cloud)
            process = begin_theirs(1, "stay")
            timer = threading.Timer(options.patience, process.kill)
            timer.start()
            process.stdout.readline() if process.stdout else None
            yield from sizes(cloud, incumbent.NAME, "has Dask only")
            timer.cancel()
            process.kill()
            process.communicate()


def sizes(cloud: Emulator, manager: str, image: str) -> Iterator[dict[str, Any]]:
    """The bytes of user data of a scheduler's machine and a worker's."""
    import boto3

    ec2 = boto3.client("ec2")
    live = [machine for machine in cloud.machines() if machine.state not in ENDED]
    for machine, role in zip(live, ("scheduler", "worker"), strict=True):  # as they were ordered
        answer = ec2.describe_instance_attribute(InstanceId=machine.id, Attribute="userData")
        size = len(base64.b64decode(answer["UserData"]["Value"]))
        row = {"manager": manager, "image": image, "role": role, "bytes": size}
        yield {**row, "of EC2's 16,384": f"{size / MAX_USER_DATA:.0%}"}


def remains(managers: tuple[Manager, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each way to end, and each manager."""
    for after, end in (("a clean end", cleanly), ("a failed start", failing), ("kill -9", killed)):
        for manager in managers:
            with account() as cloud:
                incumbent.add_image(cloud)
                yield {"after": after, "manager": manager.name, **end(cloud, manager, options.patience)}


def cleanly(cloud: Emulator, manager: Manager, patience_s: float) -> dict[str, Any]:
    """What the account has when a program has started and ended a cluster."""
    finished(manager.begin(FEW, "close"), patience_s)
    return watched(cloud)


def failing(cloud: Emulator, manager: Manager, patience_s: float) -> dict[str, Any]:
    """The same when the cloud has room for the scheduler only."""
    cloud.inject("capacity", room=1)
    finished(manager.begin(FEW, "close"), patience_s)
    return watched(cloud)


def killed(cloud: Emulator, manager: Manager, patience_s: float) -> dict[str, Any]:
    """The same when the program is killed while its cluster runs; then what a sweep leaves."""
    process = manager.begin(FEW, "stay")
    timer = threading.Timer(patience_s, process.kill)
    timer.start()
    said = spoken(process.stdout.readline() if process.stdout else "")
    timer.cancel()
    process.kill()
    process.communicate()
    row = watched(cloud)
    if "name" not in said:
        return {**row, "left after a sweep": "has none"}
    program = "from cloudprovider.cli import cloud; cloud()"
    sweep = [sys.executable, "-c", program, "sweep", "--yes", "--cloud", "ec2", said["name"]]
    subprocess.run(sweep, check=True, stdout=subprocess.DEVNULL)
    return {**row, "left after a sweep": len(cloud.leftovers())}


def watched(cloud: Emulator) -> dict[str, Any]:
    """What is left at once and when it has been watched, and how long machines went on."""
    at_once, began = billing(cloud), time.monotonic()
    while billing(cloud) and time.monotonic() - began < WATCHED_S:
        time.sleep(0.5)
    went_on = f"over {WATCHED_S:g}" if billing(cloud) else round(time.monotonic() - began)
    time.sleep(1.0)  # interfaces and disks go with their machines
    after = cloud.leftovers()
    return {
        "machines at once": len(at_once),
        "machines go on for s": went_on,
        "left": len(after),
        "left after a sweep": "",
        "what is left": dict(Counter(line.partition(":")[0] for line in after)),
    }


def billing(cloud: Emulator) -> list[str]:
    """Machines that bill."""
    return [machine.id for machine in cloud.machines() if machine.state not in ENDED]


@contextlib.contextmanager
def account(since_s: float = 0.0, **options: Any) -> Iterator[Emulator]:
    """An embedded cloud in whose account somebody has started a cluster before, so many seconds ago."""
    with Emulator("aws", **options) as cloud, cloud.active():
        provider = prepared("before")
        provider.sweep("before")
        time.sleep(since_s)
        yield cloud


# -- the command -----------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[tuple[Manager, ...], argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "orders": orders,
    "thousand": thousand,
    "boot data": boot_data,
    "left": remains,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=(50, 100), metavar="N")
    parser.add_argument(
        "--rates", nargs="+", default=tuple(RATES), choices=RATES, help="of calls: default both"
    )
    parser.add_argument("--machines", type=int, default=MANY, help=f"of the table thousand ({MANY})")
    parser.add_argument("--against", choices=(incumbent.NAME,), help="measure that one, too")
    parser.add_argument("--tables", nargs="+", default=tuple(TABLES), choices=TABLES, help="default: all")
    parser.add_argument("--patience", type=float, default=300, metavar="SECONDS", help="of one start (300)")
    add_json(parser)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--then", default="close", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        alone(options.one, options.then)
        return
    managers = MANAGERS if options.against else MANAGERS[:1]
    if options.against:
        incumbent.python(NEEDS)
        incumbent.own_network()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and end what was started
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    machine = {**described(), **({incumbent.NAME: incumbent.VERSION} if options.against else {})}
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in options.tables}
    with contextlib.suppress(KeyboardInterrupt):  # what there is by then is shown
        for name, rows in tables.items():
            for row in TABLES[name](managers, options):
                rows.append(row)
                print(f"# {name}: {', '.join(str(value) for value in [*row.values()][:5])}", file=sys.stderr)
                save(tables, machine, options.json)
    show(tables, machine, options.json)


def alone(workers: int, how: str) -> None:
    """What a process of its own does."""
    if how == "order":
        order(workers)
    elif how == "all":
        bring_up(workers)
    else:
        live(workers, how)


if __name__ == "__main__":
    main()
