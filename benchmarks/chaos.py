"""Nothing outlives its lease: `python benchmarks/chaos.py [--cloud NAME] [--kind KIND] [--limit N] [--json FILE]`.

Clusters on every embedded cloud, and on this computer, in whose lives something goes wrong: the client is killed at
each of its calls, each call fails in every way, the scheduler's machine dies, the network is cut, clocks are wrong.
Then the leases pass. A case is good when by the cloud's own ledger nothing bills then, when a sweep or the next start
leaves nothing but the landing, and when no result is lost that could be drained.

Each cloud runs in a process of its own; as root each is in a network namespace of its own, where connections can be
cut. `--log FILE` keeps every verdict as a line of JSON, and goes on where an earlier run ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from machine import described, save, show

UNSHARE = ("unshare", "--net")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cloud", action="append", help="only this one; may be given again")
    parser.add_argument("--kind", action="append", help="only this kind of case; may be given again")
    parser.add_argument("--case", action="append", help="only the cases whose name has this in it")
    parser.add_argument("--limit", type=int, help="so many cases of each cloud, of every kind in turn")
    parser.add_argument("--seed", default="0", help="which cases a limit takes")
    parser.add_argument("--jobs", type=int, default=2, help="clouds at a time (default 2)")
    parser.add_argument(
        "--log", metavar="FILE", help="one line of JSON a case; those that are there are not run"
    )
    parser.add_argument("--list", action="store_true", help="name the cases, and run none")
    parser.add_argument("--json", metavar="FILE", help="write the table and all verdicts to this file, too")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    asked = arguments()
    if asked.worker:
        return work(asked)
    from chaos_cases import KINDS
    from embedded import ACCOUNTS

    known = {"cloud": list(ACCOUNTS), "kind": list(KINDS)}
    for option, names in known.items():
        if wrong := set(getattr(asked, option) or ()) - set(names):
            sys.exit(f"There is no {option} {', '.join(sorted(wrong))}: use {', '.join(names)}.")
    began, machine = time.monotonic(), described()
    waiting, running, verdicts = list(asked.cloud or ACCOUNTS), [], []
    while waiting or running:
        while waiting and len(running) < asked.jobs:
            running.append(start(waiting.pop(0)))
        verdicts += heard(running.pop(0)) if len(running) == asked.jobs or not waiting else []
    rows = table(verdicts)
    show({"table": rows}, {**machine, "seconds": f"{time.monotonic() - began:.0f}", "seed": asked.seed}, None)
    for verdict in verdicts:
        if not verdict["survived"]:
            sys.stdout.write(f"{verdict['case']}: {said(verdict)}\n")
    save({"table": rows, "verdicts": verdicts}, {**machine, "seed": asked.seed}, asked.json)
    return 0 if all(verdict["survived"] for verdict in verdicts) else 1


def start(cloud):
    """Try one cloud's cases in a process of its own, in a network of its own where that is allowed."""
    command = [sys.executable, __file__, "--worker", *sys.argv[1:], "--cloud", cloud]
    if (
        os.geteuid() == 0
        and subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode == 0
    ):
        command = [*UNSHARE, *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def heard(process):
    """The verdicts of one cloud."""
    with process:
        lines = [line for line in process.stdout if line.startswith("{")]
    if process.returncode:
        sys.stderr.write(f"{process.args} ended with {process.returncode}: its other cases were not tried.\n")
    return [json.loads(line) for line in lines]


def work(asked):
    """Try the cases of the last cloud that is named, and print each verdict as JSON."""
    import chaos_network
    from chaos_cases import sample
    from chaos_suite import Clock, Suite

    walled = chaos_network.available()
    if walled:
        chaos_network.open_network()
    clock = Clock()
    with clock.preloaded() as preloaded, opened(asked.cloud[-1]) as account:
        if walled:
            chaos_network.watch()
        suite = Suite(account, clock if preloaded else None, walled=walled, alone=True)
        every = [case for case in suite.cases() if wanted(case, asked)]
        if asked.limit is not None:
            every = sample(every, f"{asked.seed} {account.name}", asked.limit)
        done = finished(asked.log)
        for line in [done[case.id] for case in every if case.id in done]:
            sys.stdout.write(line)
        left = [case for case in every if case.id not in done]
        if asked.list:
            sys.stderr.write("".join(f"{case.id}\n" for case in left))
            return 0
        for verdict in suite.run(left):
            line = json.dumps({**verdict.document(), "survived": verdict.survived}) + "\n"
            sys.stdout.write(line)
            sys.stdout.flush()
            if asked.log:
                with Path(asked.log).open("a", encoding="utf-8") as file:
                    file.write(line)
    return 0


def wanted(case, asked):
    return (not asked.kind or case.kind in asked.kind) and all(part in case.id for part in asked.case or ())


def finished(log):
    """The lines of an earlier run, by case."""
    lines = (
        Path(log).read_text(encoding="utf-8").splitlines(keepends=True) if log and Path(log).exists() else []
    )
    return {json.loads(line)["case"]: line for line in lines}


@contextlib.contextmanager
def opened(cloud):
    """The account of a cloud."""
    import tempfile

    from embedded import ACCOUNTS

    from cloudprovider.emulator import Emulator

    kind = ACCOUNTS[cloud]
    if kind.emulator:
        with Emulator(kind.emulator) as process, process.active():
            yield kind(process)
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[kind.folder] = folder
            yield kind(None)


def said(verdict):
    """What was wrong, in a line."""
    parts = {name: verdict[name] for name in ("ended", "billing", "left", "results") if verdict[name]}
    return ", ".join(f"{name}: {what}" for name, what in parts.items())


def table(verdicts):
    """A row for each cloud and kind of case, and one for all."""
    rows = {}
    for verdict in verdicts:
        for key in ((verdict["cloud"], verdict["kind"]), ("all", "")):
            counts = rows.setdefault(key, Counter())
            counts["cases"] += verdict["happened"]
            counts["billing"] += bool(verdict["billing"])
            counts["left"] += bool(verdict["left"])
            counts["kept"] += verdict["results"] == "kept"
            counts["lost"] += verdict["results"].startswith("lost")
            counts["wrong"] += verdict["ended"].startswith(("bug", "hung"))
    every = rows.pop(("all", ""), Counter())
    return [
        {
            "cloud": cloud,
            "kind": kind,
            "cases": counts["cases"],
            "billing after the lease": counts["billing"],
            "left after the sweep": counts["left"],
            "results checked": counts["kept"] + counts["lost"],
            "results lost": counts["lost"],
            "hung, or no error of ours": counts["wrong"],
        }
        for (cloud, kind), counts in [*sorted(rows.items()), (("all", ""), every)]
    ]


if __name__ == "__main__":
    sys.exit(main())
