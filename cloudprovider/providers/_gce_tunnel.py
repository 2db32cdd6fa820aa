"""The tunnel to a machine on Compute Engine: Identity-Aware Proxy, which `gcloud` carries the bytes through.

What it takes: on the caller's side `iap.tunnelInstances.accessViaIAP` on the machine; in the network a rule that
lets 35.235.240.0/20 reach it, which is the cluster's own. It leads to the machine's private address.
https://cloud.google.com/iap/docs/using-tcp-forwarding
"""

from __future__ import annotations

import shutil

from cloudprovider.errors import ConfigError
from cloudprovider.provider import FRONT_PORT, SCHEDULER_PORT
from cloudprovider.tunnel import Program, Relay, Tunnel

__all__ = ["Tunnel", "command", "plugin", "tunnel"]

GCLOUD = "gcloud"
INSTALL = "https://cloud.google.com/sdk/docs/install"
# https://cloud.google.com/sdk/gcloud/reference/compute/start-iap-tunnel
READY = "Listening on port"


def plugin() -> str:
    """The path of Google's command line.

    Raises
    ------
    ConfigError
        When it is not installed; says where it is to be had.
    """
    path = shutil.which(GCLOUD)
    if path is None:
        raise ConfigError(
            f"tunnel=True needs Google's {GCLOUD}, which is not in your PATH. Install it ({INSTALL}) and run "
            "`gcloud auth login`, or reach the scheduler another way: public=True, or allow_from= from inside its "
            "network."
        )
    return path


def command(path: str, project: str, zone: str, instance: str, port: int, local_port: int) -> tuple[str, ...]:
    """What leads from a local port to a port of a machine."""
    return (
        path,
        "compute",
        "start-iap-tunnel",
        instance,
        str(port),
        f"--local-host-port=localhost:{local_port}",
        f"--zone={zone}",
        f"--project={project}",
        "--verbosity=warning",
    )


def tunnel(
    project: str, zone: str, instance: str, *, scheduler: int = SCHEDULER_PORT, front: int = FRONT_PORT
) -> Tunnel:
    """The ways to a scheduler and to the front of its pages; `open` opens them.

    Parameters
    ----------
    project, zone, instance
        Where the machine is, and what it is called.
    scheduler, front
        The ports there.

    Raises
    ------
    ConfigError
        When `gcloud` is not installed.
    """
    path = plugin()

    def relay(port: int) -> Relay:
        def program(local_port: int) -> Program:
            words = command(path, project, zone, instance, port, local_port)
            return Program(command=words, ready=READY, environment={"CLOUDSDK_CORE_DISABLE_PROMPTS": "1"})

        return Relay(program)

    return Tunnel(scheduler=relay(scheduler), pages=relay(front))
