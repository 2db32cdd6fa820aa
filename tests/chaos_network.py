"""Parts of the network that can be cut, inside a network namespace of one's own, as root.

The kernel tells whose connections are whose by the group of the process that began them: clients have one, who
watches them has another, and what has neither is a machine. Machines use one address of this computer each.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from chaos_client import GROUP

__all__ = ["available", "cut", "heal", "open_network", "watch"]

WATCHER = GROUP + 1
CLIENTS, OTHERS = 7, 0
MARKS = f"""
add table inet chaos
add chain inet chaos output {{ type filter hook output priority 0; }}
add rule inet chaos output meta skgid {GROUP} ct mark set {CLIENTS}
add rule inet chaos output meta skgid {WATCHER} ct mark set 8
"""
CUT = "add chain inet chaos input { type filter hook input priority 0; }"
HEAL = "delete chain inet chaos input"
SCHEDULER_PORTS = "8786-8787"


def _rules(endpoint: str) -> dict[str, list[str]]:
    """What is dropped, by between whom the network is cut."""
    api = urlsplit(endpoint).port or 1
    return {
        "client-scheduler": _both(CLIENTS, SCHEDULER_PORTS),
        "worker-scheduler": _both(OTHERS, SCHEDULER_PORTS),
        "machines-cloud": _both(OTHERS, str(api)),
        "client-cloud": _both(CLIENTS, str(api)),
    }


def _both(mark: int, ports: str) -> list[str]:
    return [f"ct mark {mark} tcp {side} {ports} drop" for side in ("dport", "sport")]


def available() -> bool:
    """Whether this process is alone in a network that it may change."""
    with Path("/proc/net/dev").open(encoding="ascii") as file:
        alone = [line.partition(":")[0].strip() for line in file if ":" in line] == ["lo"]
    return alone and os.geteuid() == 0


def open_network() -> None:
    """Let the kernel tell whose connections are whose; what this process starts before is a machine."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    _change(MARKS)


def watch() -> None:
    """Let the connections of this process be nobody's; `multiprocessing`'s processes of it too."""
    os.setegid(WATCHER)


def cut(what: str, endpoint: str) -> None:
    """Let nothing through between these two."""
    _change("\n".join([CUT, *(f"add rule inet chaos input {rule}" for rule in _rules(endpoint)[what])]))


def heal() -> None:
    """Let all through."""
    _change(HEAL)


def _change(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
