"""Session Manager port forwarding: a way to a machine that has no address outside, and no rule open to anybody.

An agent on the machine connects *from inside* it. What Dask serves listens on the machine's private address, not
on its loopback, so the session document is the one that names a host.
https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-sessions-start.html
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CloudError, ConfigError
from cloudprovider.providers._aws import code
from cloudprovider.tunnel import NotYetError, Program, Relay, Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.providers._aws import AWS

__all__ = ["plugin", "start_session_request", "tunnel"]

PLUGIN = "session-manager-plugin"
INSTALL = "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
READY = "Waiting for connections"
#: Newer plugins read the session, whose token opens it, from this variable instead of their arguments.
RESPONSE = "AWS_SSM_START_SESSION_RESPONSE"
LAST_WITHOUT_RESPONSE = (1, 2, 497, 0)


def plugin() -> str:
    """The path of AWS's plugin.

    Raises
    ------
    ConfigError
        When it is not installed; says where it is to be had.
    """
    path = shutil.which(PLUGIN)
    if path is None:
        raise ConfigError(
            f"tunnel=True needs AWS's {PLUGIN}, which is not in your PATH. Install it ({INSTALL}), "
            "or reach the scheduler another way: public=True, or allow_from= from inside its network."
        )
    return path


def start_session_request(target: str, host: str, port: int, local_port: int) -> dict[str, Any]:
    """A StartSession that leads from a local port to what the machine reaches as `host:port`."""
    parameters = {"host": [host], "portNumber": [str(port)], "localPortNumber": [str(local_port)]}
    return {"Target": target, "DocumentName": DOCUMENT, "Parameters": parameters}


def tunnel(aws: AWS, target: Callable[[], str], host: str, *, scheduler: int, front: int) -> Tunnel:
    """The ways to a scheduler and to the front of its pages; `open` opens them.

    Parameters
    ----------
    aws
        The account.
    target
        What a session calls the machine; raises `NotYetError` until it takes sessions.
    host
        The machine's private address.
    scheduler, front
        The ports there.

    Raises
    ------
    ConfigError
        When the plugin is not installed.
    """
    path = plugin()
    quiet = version(path) > LAST_WITHOUT_RESPONSE

    def relay(port: int) -> Relay:
        def program(local_port: int) -> Program:
            request = start_session_request(target(), host, port, local_port)
            return _program(aws, path, request, quiet=quiet)

        return Relay(program)

    return Tunnel(scheduler=relay(scheduler), pages=relay(front))


def version(path: str) -> tuple[int, ...]:
    """The plugin's version; empty when it does not say."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
        if re.fullmatch(r"\d+(\.\d+){0,3}", said.stdout.strip()):
            return tuple(map(int, said.stdout.strip().split(".")))
    return ()


def _program(aws: AWS, path: str, request: dict[str, Any], *, quiet: bool) -> Program:
    """Start a session, and say how the plugin takes it up."""
    try:
        answer = aws.call("ssm", "start_session", **request)
    except CloudError as error:
        if code(error) == "TargetNotConnected":
            raise NotYetError(f"{request['Target']} takes no sessions yet: {error}") from error
        raise
    session = json.dumps({key: answer[key] for key in ("SessionId", "TokenValue", "StreamUrl")})
    meta = aws.client("ssm").meta
    # The profile is the environment's: https://github.com/aws/session-manager-plugin
    rest = (meta.region_name, "StartSession", "", json.dumps(request), meta.endpoint_url)

    def end() -> None:
        with contextlib.suppress(CloudError):  # it ends by itself after 20 idle minutes
            aws.call("ssm", "terminate_session", SessionId=answer["SessionId"])

    return Program(
        command=(path, RESPONSE if quiet else session, *rest),
        ready=READY,
        environment={RESPONSE: session} if quiet else {},
        end=end,
    )
