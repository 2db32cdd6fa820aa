"""A client that is killed with SIGKILL in the middle of its cluster's life: `python chaos_client.py '{...}'`.

It starts a cluster, scales it up and down and closes it, and dies when it is about to make the `at`-th call of
the `phase`; when there are fewer, when the phase is over. Python's own audit events tell when it makes a call.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading

from cloudprovider import CloudError
from cloudprovider.discovery import cluster_class

PHASES = ("start", "scale", "close")


class Death:
    """Counts the calls of a phase, and ends the process at one of them.

    Parameters
    ----------
    phase, at
        Which call; counted from 1.
    late_s
        Seconds after that call was made, when it may have had its effect.
    events
        What Python calls a call.
    """

    def __init__(self, phase: str, at: int, late_s: float, events: list[str]) -> None:
        self.wanted, self.left, self.late_s, self.events = phase, at, late_s, frozenset(events)
        self.phase = ""

    def __call__(self, event: str, _: object) -> None:
        """See one audit event."""
        if event not in self.events or self.phase != self.wanted:
            return
        self.left -= 1
        if self.left == 0 and self.late_s:
            threading.Timer(self.late_s, self.come).start()
        elif self.left == 0:
            self.come()

    def come(self) -> None:
        """End this process as it is."""
        os.write(1, f"died in {self.phase}, {self.left} calls left\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def live(cloud: str, options: dict, death: Death) -> None:
    """A life of a cluster, phase by phase."""
    death.phase = "start"
    with contextlib.suppress(CloudError):
        cluster = cluster_class(cloud)(**options)
        cluster.wait_for_workers(options["n_workers"], timeout=60)
        if death.wanted != "start":
            death.phase = "scale"
            cluster.scale(options["n_workers"] + 1)
            cluster.wait_for_workers(options["n_workers"] + 1, timeout=60)
            cluster.scale(options["n_workers"])
        if death.wanted == "close":
            death.phase = "close"
            cluster.close()
    death.come()


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    death = Death(asked["phase"], asked["at"], asked["late_s"], asked["events"])
    sys.addaudithook(death)
    live(asked["cloud"], asked["options"], death)
