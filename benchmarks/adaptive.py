"""Adaptive scaling compared: dollars, makespan, waiting, orders and machine-seconds, in simulated time.

    python benchmarks/adaptive.py [--json FILE] [--picture FILE.svg] [--maximum N] [--boot SECONDS]

Every policy sees the same workloads on the same simulated Fargate (`adaptive_world.py`): boots of 40 s that
differ by 10 %, billing from 10 s after the order, 60 s at least, then by the second; prices are those of the
package's table for us-east-1, x86, on-demand, with a public address, the scheduler's included. Workers have
2 vCPU and 8 GiB, as by default. Repeatable: the same seeds give the same figures.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from pathlib import Path

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 20)
#: How much longer people may wait for the fixed cluster of the best size than for Dask's Adaptive.
SLACK = 1.05
MEASURES = ("dollars", "makespan", "waited", "orders", "machine_seconds", "bound")


def repeatable():
    """Start again with a fixed order of sets: Dask's code picks from sets of names."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})


def fargate(boot_s):
    from adaptive_world import Cloud

    from cloudprovider.prices import fargate_rate

    worker = fargate_rate("us-east-1", "X86_64", "on-demand", 2, 8, public=True)
    scheduler = fargate_rate("us-east-1", "X86_64", "on-demand", 1, 4, public=True)
    return Cloud(
        boot_s=boot_s,
        minimum_s=worker.minimum_s,
        per_second=worker.per_second,
        scheduler_per_second=scheduler.per_second,
    )


def policies(maximum):
    """What is compared, by name; the fixed cluster is chosen for each workload."""
    from adaptive_policies import Dask, Ours

    return {
        "Dask, defaults": lambda: Dask(maximum),
        "Dask, Coiled's constants": lambda: Dask(maximum, interval=5.0, target_s=180.0, wait_count=24),
        "dask-cloud": lambda: Ours(maximum),
    }


def measured(workload, cloud, make, seeds):
    """The measures of one workload under one policy: the mean over the seeds."""
    from adaptive_policies import bound
    from adaptive_world import World

    total = dict.fromkeys(MEASURES, 0.0)
    for seed in range(seeds):
        world = World(workload, cloud, make(), seed).run()
        least = bound(world) * cloud.per_second + world.makespan * cloud.scheduler_per_second
        found = (
            world.dollars,
            world.makespan,
            world.waited,
            world.orders,
            world.machine_seconds,
            least,
        )
        for name, value in zip(MEASURES, found, strict=True):
            total[name] += value / seeds
    return total


def best_fixed(workload, cloud, longest, maximum, seeds):
    """The cheapest fixed cluster under which nobody waits longer than allowed, or the fastest; with its size."""
    from adaptive_policies import Fixed

    tried = [(n, measured(workload, cloud, lambda n=n: Fixed(n), seeds)) for n in SIZES if n <= maximum]
    quick = [(n, m) for n, m in tried if m["waited"] <= longest]
    if quick:
        return min(quick, key=lambda one: one[1]["dollars"])
    return min(tried, key=lambda one: one[1]["waited"])


def compared(workloads, cloud, maximum, seeds):
    """Measures by workload and policy."""
    table = {}
    for workload in workloads:
        row = {name: measured(workload, cloud, make, seeds) for name, make in policies(maximum).items()}
        size, fixed = best_fixed(workload, cloud, SLACK * row["Dask, defaults"]["waited"], maximum, seeds)
        row["fixed, best size"] = {**fixed, "size": size}
        table[workload.name] = row
    return table


def totals(table):
    names = next(iter(table.values()))
    return {name: {m: sum(row[name][m] for row in table.values()) for m in MEASURES} for name in names}


def show(title, table):
    from rich.console import Console
    from rich.table import Table

    columns = ("workload", "policy", "dollars", "makespan", "waited", "orders", "machine-s", "/ bound")
    shown = Table(*columns, title=title, title_justify="left")
    for workload, row in [*table.items(), ("ALL", totals(table))]:
        base = row["Dask, defaults"]
        for number, (name, m) in enumerate(row.items()):
            said = f"{name} ({m['size']})" if "size" in m else name
            shown.add_row(
                workload if not number else "",
                said,
                f"{m['dollars']:.4f} ({m['dollars'] / base['dollars']:.2f})",
                f"{m['makespan']:.0f} s ({m['makespan'] / base['makespan']:.2f})",
                f"{m['waited']:.0f} s ({m['waited'] / base['waited']:.2f})",
                f"{m['orders']:.0f}",
                f"{m['machine_seconds']:.0f}",
                f"{m['dollars'] / m['bound']:.2f}",
            )
        shown.add_section()
    Console(width=130).print(shown)


def series(workload, cloud, make):
    from adaptive_world import World

    return World(workload, cloud, make()).run()


def draw(path, tables, cloud, maximum):
    """One picture: what each policy costs and how long it makes people wait, and machines over time."""
    from adaptive_workloads import held_out

    example = next(workload for workload in held_out() if workload.name.startswith("sessions"))
    runs = {name: series(example, cloud, make) for name, make in policies(maximum).items()}
    Path(path).write_text(picture(totals(tables["held out"]), example.name, runs))


COLOURS = {
    "Dask, defaults": "#d95f02",
    "Dask, Coiled's constants": "#7570b3",
    "dask-cloud": "#1b9e77",
    "fixed, best size": "#666666",
}


def picture(total, example, runs):
    """The picture as SVG."""
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="640" font-family="sans-serif" font-size="13">',
        '<rect width="900" height="640" fill="white"/>',
        '<text x="60" y="30" font-size="16">Held-out workloads together: dollars and waiting</text>',
    ]
    dollars = max(m["dollars"] for m in total.values()) * 1.15
    waited = max(m["waited"] for m in total.values()) * 1.15
    out.append('<path d="M60 50V270H560" fill="none" stroke="black"/>')
    out.append('<text x="440" y="290">US dollars</text><text x="10" y="45">seconds waited</text>')
    for name, m in total.items():
        x, y = 60 + 500 * m["dollars"] / dollars, 270 - 220 * m["waited"] / waited
        out.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="6" fill="{COLOURS[name]}"/>')
        said = f"{name}: ${m['dollars']:.2f}, {m['waited']:.0f} s"
        out.append(f'<text x="{x + 10:.0f}" y="{y + 4:.0f}">{said}</text>')
    out.append(
        f'<text x="60" y="330" font-size="16">{example}: machines (line) and those at work (area)</text>'
    )
    end = max(run.makespan for run in runs.values())
    most = max(count for run in runs.values() for _, count, _ in run.counts)
    for row, (name, run) in enumerate(runs.items()):
        bottom = 430 + 95 * row
        out.append(f'<text x="60" y="{bottom - 72}" fill="{COLOURS[name]}">{name}: ${run.dollars:.3f}</text>')
        out.append(f'<path d="M60 {bottom}H860" stroke="black"/>')
        counts = changes(run.counts)
        busy = "".join(f"L{60 + 800 * t / end:.1f} {bottom - 65 * b / most:.1f}" for t, _, b in counts)
        line = "L".join(f"{60 + 800 * t / end:.1f} {bottom - 65 * c / most:.1f}" for t, c, _ in counts)
        last = 60 + 800 * counts[-1][0] / end
        out.append(
            f'<path d="M60 {bottom}{busy}L{last:.1f} {bottom}Z" fill="{COLOURS[name]}" opacity="0.4"/>'
        )
        out.append(f'<path d="M{line}" fill="none" stroke="{COLOURS[name]}"/>')
    out.append("</svg>\n")
    return "\n".join(out)


def changes(counts):
    """The points at which something changed, and those just before."""
    kept = [
        now
        for before, now, after in zip(counts, counts[1:], counts[2:], strict=False)
        if before[1:] != now[1:] or now[1:] != after[1:]
    ]
    return [counts[0], *kept, counts[-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", help="write all measures to this file")
    parser.add_argument("--picture", help="write the picture (SVG) to this file")
    parser.add_argument("--maximum", type=int, default=20, help="machines the adaptive ones may have; 20")
    parser.add_argument("--boot", type=float, default=40.0, help="seconds that a boot takes; 40")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, with other boots; 3")
    arguments = parser.parse_args()
    repeatable()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    logging.getLogger("distributed.deploy.adaptive").setLevel(logging.ERROR)
    from adaptive_workloads import held_out, tuning

    cloud = fargate(arguments.boot)
    tables = {
        "tuned on": compared(tuning(), cloud, arguments.maximum, arguments.seeds),
        "held out": compared(held_out(), cloud, arguments.maximum, arguments.seeds),
    }
    for title, table in tables.items():
        show(f"{title}; in brackets: against Dask's defaults", table)
    summary = {title: totals(table) for title, table in tables.items()}
    for title, total in summary.items():
        ours, base = total["dask-cloud"], total["Dask, defaults"]
        print(
            f"{title}: {1 - ours['dollars'] / base['dollars']:.0%} cheaper than Dask's defaults, makespan "
            f"{ours['makespan'] / base['makespan'] - 1:+.1%}, waiting {ours['waited'] / base['waited'] - 1:+.1%}, "
            f"{ours['dollars'] / ours['bound']:.2f} x the offline bound"
        )
    if arguments.json:
        report = {"tables": tables, "totals": summary, "maximum": arguments.maximum, "seeds": arguments.seeds}
        Path(arguments.json).write_text(json.dumps(report, indent=1) + "\n")
    if arguments.picture:
        draw(arguments.picture, tables, cloud, arguments.maximum)
    return 0 if all(math.isfinite(m["dollars"]) for t in summary.values() for m in t.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
