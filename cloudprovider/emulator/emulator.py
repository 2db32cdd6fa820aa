"""The handle on an emulated cloud: starts its process, says how to reach it, asks what it saw."""

from __future__ import annotations

import contextlib
import difflib
import functools
import http.client
import json
import os
import subprocess
import sys
import threading
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self

from cloudprovider.emulator.inside import Inside
from cloudprovider.emulator.network import NETWORKS
from cloudprovider.emulator.profiles import PROFILES, check_figures, plain
from cloudprovider.emulator.records import Call, EmulatedMachine, LedgerEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["CLOUDS", "Emulator", "InjectedFault"]

#: Each cloud's variables that a process must not inherit, or it would talk to a real one, or to ours as somebody
#: else.
CLOUDS = {
    "aws": (
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_SESSION_TOKEN",
        "AWS_ROLE_ARN",
        "AWS_CA_BUNDLE",
        "AWS_ENDPOINT_URL_*",
        "AWS_CONTAINER_*",
        "AWS_WEB_IDENTITY_*",
    ),
    "gcp": ("CLOUDSDK_*", "GOOGLE_*", "GCLOUD_*", "GCE_METADATA_*", "GCP_PROJECT"),
    "azure": ("ARM_*", "AZURE_*", "IDENTITY_*", "MSI_*", "IMDS_ENDPOINT"),
}
START_S = 120.0
REGION = "us-east-1"


class InjectedFault:
    """A fault that is on until it has spent itself, or until `clear()`; also a context manager."""

    def __init__(self, emulator: Emulator, id: int) -> None:
        self._emulator = emulator
        self.id = id

    def clear(self) -> None:
        """Let it be over."""
        self._emulator._ask("DELETE", f"faults/{self.id}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


class Emulator:
    """An emulated cloud in a process of its own: a real wire API on loopback, whose machines are processes.

    Any SDK or tool that is told its address works with it: the managers of this package, boto3, the AWS
    CLI, Terraform. It is Linux only.

    Parameters
    ----------
    cloud
        Which: `aws`, `gcp` or `azure`.
    profile
        How fast, how large and how reliable it is: `instant` (no latency, boots of 0.1 s; the default),
        `fargate`, `ec2`, `gcp` or `azure` (published latencies and rates).
    time_scale
        Every wait of the cloud's own is multiplied by it; what its machines do takes as long as it takes.
    seed
        All chance is drawn from it.
    engine
        What a machine is: `process` (a process here), `podman` (a container) or `none` (a state only).
    port
        Where it listens; 0 means any.
    images
        Further images, as keyword arguments of `add_image`.
    network
        Where machines are: `loopback` (addresses of this computer; nothing is enforced) or `namespaces` (each in
        a network of its own behind its VPC's router, with security groups, routes and public addresses).
        The second is AWS's alone, and needs a network namespace of one's own: `unshare --user --map-root-user --net --mount`.
    figures
        Figures of the profile that are to be others, by the names of `cloudprovider.emulator.profiles.Profile`:
        as a mapping, as keyword arguments, or both.

    Raises
    ------
    ValueError
        When there is no such cloud, profile, engine, network or figure, or this cloud has not this network.
    RuntimeError
        When it cannot start; the message carries what its process said.

    Examples
    --------
    >>> from cloudprovider.emulator import Emulator
    >>> with Emulator("aws") as cloud, cloud.active():
    ...     import boto3
    ...     boto3.client("sts").get_caller_identity()["Account"]
    '123456789012'
    >>> cloud = Emulator("aws", profile="fargate", running_s=5, latency_s=0.02)
    """

    def __init__(
        self,
        cloud: str = "aws",
        *,
        profile: str = "instant",
        time_scale: float = 1.0,
        seed: int = 0,
        engine: str = "process",
        port: int = 0,
        images: Sequence[Mapping[str, Any]] = (),
        network: str = "loopback",
        figures: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        _check("cloud", cloud, tuple(CLOUDS))
        _check("network", network, NETWORKS)
        check_network(cloud, network)
        _check("profile", profile, tuple(PROFILES))
        changed = _figures(figures, more)
        _check("engine", engine, ("process", "podman", "none"))
        if sys.platform != "linux":
            raise RuntimeError("The embedded cloud runs on Linux only; elsewhere use LocalProvider.")
        self._arguments = [
            *(cloud, "--profile", profile, "--time-scale", str(time_scale), "--seed", str(seed)),
            *("--engine", engine, "--port", str(port), "--figures", json.dumps(changed), "--die-with-parent"),
            *("--network", network),
        ]
        self._hidden = CLOUDS[cloud]
        self._network = network
        self._images = images
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._endpoint = ""
        self._output = ""

    # -- its life ------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start its process, and wait until it answers."""
        if self._process is not None:
            return self
        if self._network == "namespaces":
            from cloudprovider.emulator.kernel import unavailable

            if why := unavailable():
                raise RuntimeError(f"network='namespaces' {why}.")
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="emulator", daemon=True)
        self._thread.start()
        if not started.wait(START_S) or not self._endpoint:
            said = self._output
            self.close()
            raise RuntimeError(f"The emulated cloud did not start within {START_S:g} s. It said:\n{said}")
        for image in self._images:
            self.add_image(**image)
        return self

    def _run(self, started: threading.Event) -> None:
        """Start the process in the thread that waits for it: it dies with the thread that started it."""
        command = [sys.executable, "-m", "cloudprovider.emulator", *self._arguments]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if not self._endpoint and line.startswith("http://"):
                    self._endpoint = line.strip()
                    started.set()
                else:
                    self._output += line
        process.wait()
        started.set()

    def close(self) -> None:
        """End its process; nothing of its machines is left."""
        process, self._process, self._endpoint = self._process, None, ""
        self.__dict__.pop("_environ", None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(
        self,
        *,
        profile: str | None = None,
        time_scale: float | None = None,
        seed: int | None = None,
        figures: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Make it a new account: machines ended, everything forgotten; faster than another process.

        Parameters
        ----------
        profile, time_scale, seed, figures
            As at its start; None means unchanged. Figures replace those there were, and so does a profile.
        """
        if profile is not None:
            _check("profile", profile, tuple(PROFILES))
        changed = _figures(figures, more) if figures is not None or more else None
        given = {"profile": profile, "time_scale": time_scale, "seed": seed, "figures": changed}
        self._ask("POST", "reset", given)

    # -- how to reach it -----------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """Base address of its API; it serves every service of the cloud."""
        if not self._endpoint:
            raise RuntimeError(
                "The emulated cloud is not running: call start(), or use `with Emulator(...)`."
            )
        return self._endpoint

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise RuntimeError("The emulated cloud is not running.")
        return self._process.pid

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use it: endpoints, credentials, region or project."""
        return {**self._environ}

    @functools.cached_property
    def _environ(self) -> dict[str, str]:
        return dict(self._ask("GET", "environ"))

    def login(self, *policies: str | Mapping[str, Any], name: str = "somebody") -> dict[str, str]:
        """Make somebody who may do what policies allow and nothing else; what a process needs to be them.

        The credentials of `environ` are the account's own, which may do everything. Who is there already keeps
        their credentials, and may do from now on what is given now.

        Parameters
        ----------
        *policies
            As JSON, or what that says: policy documents on AWS, roles with `includedPermissions` on Google Cloud,
            role definitions on Azure. None: they may do nothing.
        name
            What the user, service account or application is called.

        Examples
        --------
        >>> with cloud.active(cloud.login(policy)):  # doctest: +SKIP
        ...     FargateCluster()
        """
        given = [one if isinstance(one, str) else json.dumps(one) for one in policies]
        return {**self.environ, **self._ask("POST", f"logins/{name}", {"policies": given})}

    @contextlib.contextmanager
    def active(self, environ: Mapping[str, str] | None = None) -> Iterator[Self]:
        """Use it in this process for a block: `os.environ` is as `environ` says, and restored afterwards.

        Parameters
        ----------
        environ
            What `login` returned. Default: the account's own.
        """
        before, own = dict(os.environ), self.environ if environ is None else {**environ}
        hidden = [name for name in before if any(fnmatchcase(name, one) for one in self._hidden)]
        for name in hidden:
            del os.environ[name]
        os.environ.update(own)
        try:
            yield self
        finally:
            for name in {*hidden, *own}:
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)

    # -- what it saw ---------------------------------------------------------------------------------

    @property
    def calls(self) -> list[Call]:
        """Every call of its API, oldest first."""
        return [Call(**call) for call in self._ask("GET", "calls")]

    @property
    def ledger(self) -> list[LedgerEntry]:
        """What everything has cost until now."""
        return [LedgerEntry(**entry) for entry in self._ask("GET", "ledger")]

    def machines(self) -> list[EmulatedMachine]:
        """Every machine, the stopped ones of the last hour included."""
        return [EmulatedMachine(**machine) for machine in self._ask("GET", "machines")]

    def leftovers(self) -> list[str]:
        """What the account has beside its landing: live machines, definitions, groups, secrets, interfaces.

        The landing is what carries the tag `dask-landing`.
        """
        return [str(line) for line in self._ask("GET", "leftovers")]

    # -- what it is made to do -----------------------------------------------------------------------

    def inject(self, kind: str, operation: str = "", **figures: Any) -> InjectedFault:
        """Make something go wrong from now on.

        Parameters
        ----------
        kind
            `throttle`, `error`, `error-after-effect`, `lost-answer`, `denied`, `expired-credentials`: of
            calls. `clock-skew`: of the cloud. `capacity`, `quota`, `image-pull`, `addresses`, `stale`,
            `role-propagation`: of machines.
        operation
            Which calls: `RunTask`, `ecs:RunTask`, `ecs:*`, `instances.insert`; empty means all.
        figures
            `every` (each n-th call), `times` (how often; without it, until cleared), `code`, `message`,
            `status`; `room`, `market`, `zone`, `type`, `subnet`, `image`, `seconds`.

        Raises
        ------
        ValueError
            When there is no such kind or figure.

        Examples
        --------
        >>> cloud.inject("throttle", every=3)  # doctest: +SKIP
        >>> cloud.inject("error-after-effect", "RunTask", times=1)  # doctest: +SKIP
        >>> with cloud.inject("capacity", room=5, market="spot"):  # doctest: +SKIP
        ...     cluster.scale(10)
        """
        fault = self._ask("POST", "faults", {"kind": kind, "operation": operation, **figures})
        return InjectedFault(self, fault["id"])

    @property
    def faults(self) -> list[dict[str, Any]]:
        """What goes wrong now: of each fault its figures, `times` being how often it still will."""
        return list(self._ask("GET", "faults"))

    def clear(self) -> None:
        """Let every fault be over."""
        self._ask("DELETE", "faults")

    def interrupt(self, machine: str, *, rebalance: bool = False) -> None:
        """Take a spot machine back, with the cloud's own notice.

        Parameters
        ----------
        machine
            Its id.
        rebalance
            Only recommend to leave it, as EC2 does when an interruption has become likely.
        """
        self._ask("POST", f"machines/{machine}/interrupt", {"rebalance": True} if rebalance else None)

    def kill(self, machine: str) -> None:
        """End a machine's processes at once, without any notice; on EC2, as its host fails."""
        self._ask("POST", f"machines/{machine}/kill")

    def add_image(
        self,
        name: str,
        *,
        python: str | Path = sys.executable,
        carries_runtime: bool = False,
        **properties: Any,
    ) -> None:
        """Add an image to the registry that machines pull from.

        Parameters
        ----------
        name
            With its tag, such as `registry.example/team/dask:1`.
        python
            The interpreter that is the image's `python`.
        carries_runtime
            Whether the image has the runtime of this project.
        properties
            `architectures`, `carries_manager`, `environ`, `entrypoint`: see `cloudprovider.emulator.images.Images.add`.
        """
        given = {"name": name, "python": str(python), "carries_runtime": carries_runtime, **properties}
        self._ask("POST", "images", given)

    def add_container_instance(
        self,
        cluster: str = "default",
        *,
        cpu: float = 4,
        memory: float = 16,
        gpus: int = 0,
        architecture: str = "x86_64",
        capacity_provider: str | None = None,
        interfaces: int | None = None,
        zone: str = "",
        region: str = REGION,
    ) -> str:
        """Start an EC2 instance whose agent joins an ECS cluster, for tasks of launch type EC2.

        Parameters
        ----------
        cluster
            The ECS cluster's name or ARN.
        cpu, memory
            vCPUs and GiB that it has for tasks.
        gpus
            GPUs that it has at least: it is then the smallest type that has as many.
        architecture
            `x86_64` or `arm64`.
        capacity_provider
            Name of the capacity provider to whose group it belongs.
        interfaces
            How many tasks it can give a network interface of their own. Default: as many as the smallest
            type of its size has beside its primary one, such as 3 with 4 vCPUs; trunking allows more.
        zone, region
            Where it is. Default: the first zone.

        Returns
        -------
        str
            Its EC2 id: `ec2.terminate_instances` ends it, and its tasks.

        Raises
        ------
        LookupError
            When there is no such ECS cluster.
        ValueError
            When there is no such architecture, zone or capacity provider.

        Examples
        --------
        >>> cloud.add_container_instance("batch", cpu=16, memory=64)  # doctest: +SKIP
        'i-0abc...'
        """
        _check("architecture", architecture, ("x86_64", "arm64"))
        given = {"cpu": cpu, "memory": memory, "architecture": architecture, "zone": zone, "region": region}
        given |= {
            "cluster": cluster,
            "capacity_provider": capacity_provider,
            "interfaces": interfaces,
            "gpus": gpus,
        }
        return str(self._ask("POST", "container-instances", given)["id"])

    def inside(
        self,
        subnet: str = "",
        security_groups: Sequence[str] = (),
        *,
        public: bool = False,
        region: str = REGION,
    ) -> Inside:
        """A computer of yours inside a VPC, to run programs there.

        Parameters
        ----------
        subnet
            Where. Default: the first of the default VPC.
        security_groups
            Ids of its groups. Default: the VPC's default group.
        public
            Whether it has a public address.
        region
            Of the subnet.

        Examples
        --------
        >>> with cloud.inside(security_groups=["sg-0abc"]) as host:  # doctest: +SKIP
        ...     host.run(["python", "my_script.py"])
        """
        given = {
            "subnet": subnet,
            "security_groups": list(security_groups),
            "public": public,
            "region": region,
        }
        return Inside(self._ask, given)

    def _ask(self, method: str, what: str, document: Mapping[str, Any] | None = None) -> Any:
        host = self.endpoint.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=START_S)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, f"/_cloud/{what}", body)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            raise LookupError(text)
        if answer.status == http.HTTPStatus.BAD_REQUEST:
            raise ValueError(text)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"The emulated cloud failed at {method} {what}: {text}")
        return json.loads(text)


def _figures(figures: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a profile, checked, as its process is told them."""
    changed = {**(figures or {}), **more}
    check_figures(changed)
    return {name: plain(value) for name, value in changed.items()}


def check_network(cloud: str, network: str) -> None:
    """Refuse a network that a cloud's machines cannot be in.

    Raises
    ------
    ValueError
        Naming the one they can be in.
    """
    if network == "namespaces" and cloud != "aws":
        raise ValueError(f"The machines of the emulated {cloud} have no namespaces: use network='loopback'.")


def _check(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(known)}."
        raise ValueError(f"There is no {what} '{value}'; {hint}")
