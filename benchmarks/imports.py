"""How long imports take, each in fresh interpreters: `python benchmarks/imports.py [--json FILE]`.

`--against dask-cloudprovider` times its AWS classes, too, in its own environment from PyPI, at the same Dask.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from typing import NamedTuple

import incumbent
from machine import add_json, described, show

DASK = "import distributed.deploy"
#: What is imported, and what was imported before the clock starts.
OURS = (
    (DASK, ""),
    ("import cloudprovider", ""),
    ("from cloudprovider import FargateCluster", DASK),
    ("from cloudprovider import FargateCluster", ""),
    ("import boto3", ""),
)
THEIRS = (
    (DASK, ""),
    ("from dask_cloudprovider.aws import FargateCluster", DASK),
    ("from dask_cloudprovider.aws import FargateCluster", ""),
)
TIMED = """
import time
{before}
began = time.perf_counter()
{statement}
print(time.perf_counter() - began)
"""


class Case(NamedTuple):
    """One import."""

    environment: str
    statement: str
    before: str

    def timed(self) -> float:
        """Milliseconds that it takes in a fresh interpreter."""
        theirs = self.environment == incumbent.NAME
        done = subprocess.run(
            [
                incumbent.python() if theirs else sys.executable,
                "-c",
                TIMED.format(statement=self.statement, before=self.before),
            ],
            capture_output=True,
            text=True,
            check=True,
            env=incumbent.environ() if theirs else dict(os.environ),
        )
        return 1000 * float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="interpreters for each case (default: 15)")
    parser.add_argument("--against", choices=(incumbent.NAME,), help="time that one, too")
    add_json(parser)
    options = parser.parse_args()
    cases = [Case("dask-cloud", *case) for case in OURS]
    if options.against:
        cases += [Case(incumbent.NAME, *case) for case in THEIRS]
    machine = described()
    times: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(options.runs + 1):  # in turns, so that a busy moment hits every case; the first warms up
        for case in cases:
            times[case].append(case.timed())
    medians = {case: statistics.median(some[1:]) for case, some in times.items()}
    rows = [
        {
            "what": case.statement,
            "after": case.before or "nothing",
            "environment": case.environment,
            "median ms": round(medians[case], 1),
            "least ms": round(min(times[case][1:]), 1),
            # Each by Dask in its own environment: theirs has other packages beside it.
            "of distributed.deploy": f"{medians[case] / medians[Case(case.environment, DASK, '')]:.2f}",
        }
        for case in cases
    ]
    show(rows, machine, options.json)


if __name__ == "__main__":
    main()
