"""How long imports take, each in fresh interpreters: `python benchmarks/imports.py [--json FILE]`."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from machine import add_json, described, show

#: What is imported, and what was imported before the clock starts.
CASES = (
    ("import cloudprovider", ""),
    ("import distributed.deploy", ""),
    ("from cloudprovider import FargateCluster", "import distributed.deploy"),
    ("from cloudprovider import FargateCluster", ""),
    ("import boto3", ""),
)
TIMED = """
import time
{before}
began = time.perf_counter()
{statement}
print(time.perf_counter() - began)
"""


def timed(statement: str, before: str) -> float:
    """Milliseconds of one import in a fresh interpreter."""
    code = TIMED.format(statement=statement, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return 1000 * float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="interpreters for each case (default: 15)")
    add_json(parser)
    options = parser.parse_args()
    machine = described()
    times: dict[tuple[str, str], list[float]] = {case: [] for case in CASES}
    for _ in range(options.runs + 1):  # in turns, so that a busy moment hits every case; the first warms up
        for case in CASES:
            times[case].append(timed(*case))
    rows = [
        {
            "what": statement,
            "after": before or "nothing",
            "median ms": round(statistics.median(some[1:]), 1),
            "least ms": round(min(some[1:]), 1),
        }
        for (statement, before), some in times.items()
    ]
    base = float(str(rows[1]["median ms"]))
    for row in rows:
        row["of distributed.deploy"] = f"{float(str(row['median ms'])) / base:.2f}"
    show(rows, machine, options.json)


if __name__ == "__main__":
    main()
