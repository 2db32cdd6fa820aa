"""How long the kernel keeps a connection whose peer is silent."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Any

__all__ = ["keep_open"]

logger = logging.getLogger("cloudprovider")

PROBES = 10

# By platform: option names as <netinet/tcp.h> numbers them, where Python has no name for them.
LINUX = {"idle": 4, "interval": 5, "count": 6}
DARWIN = {"idle": 0x10, "interval": 0x101, "count": 0x102}
TCP_USER_TIMEOUT = 18  # milliseconds; https://man7.org/linux/man-pages/man7/tcp.7.html
TCP_RXT_CONNDROPTIME = 0x80  # seconds; macOS's counterpart of TCP_USER_TIMEOUT


def keep_open(sock: Any, seconds: float) -> bool:
    """Let a socket survive `seconds` of silence, and end it after; False where the kernel cannot."""
    idle, interval = schedule(seconds)
    try:
        if sys.platform == "win32":
            sock.ioctl(socket.SIO_KEEPALIVE_VALS, (1, idle * 1000, interval * 1000))
        elif sys.platform == "darwin":
            _probe(sock, DARWIN, idle, interval)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_RXT_CONNDROPTIME, int(seconds))
        elif sys.platform == "linux":
            _probe(sock, LINUX, idle, interval)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(seconds * 1000))
        else:
            return False
    except OSError as error:
        logger.debug("A connection keeps its timeout: %s", error)
        return False
    return True


def schedule(seconds: float) -> tuple[int, int]:
    """After how many seconds of silence to probe first, and how many lie between the probes.

    The last probe goes unanswered when `seconds` have passed.
    """
    total = max(PROBES + 1, int(seconds))
    interval = max(1, (total - max(2, total // 4)) // PROBES)
    return total - interval * PROBES, interval


def _probe(sock: Any, options: dict[str, int], idle: int, interval: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, options["count"], PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, options["idle"], idle)
    sock.setsockopt(socket.IPPROTO_TCP, options["interval"], interval)
