"""The container engine of an emulated virtual machine, and the `docker` command that speaks with it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import threading
from typing import TYPE_CHECKING

from cloudprovider.emulator.guest_containers import Client, Container
from cloudprovider.emulator.guest_docker_run import (
    EVERY_DRIVERS,
    LOG_OPTIONS,
    BadFlag,
    RunOptions,
    read_flags,
    read_run,
)
from cloudprovider.emulator.guest_shell import (
    NOT_EXECUTABLE,
    NOT_FOUND,
    Call,
    Ended,
    Running,
)
from cloudprovider.emulator.images import ImageNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cloudprovider.emulator.guest_disk import Disk
    from cloudprovider.emulator.guest_shell import Shell
    from cloudprovider.emulator.room import Room

__all__ = ["ARCHITECTURES", "Docker"]

#: docker's own failure.
FAILED = 125

#: What a command ends with that is for another architecture.
FOREIGN = 255

#: EC2's word for an architecture, and the room's and docker's.
ARCHITECTURES = {"x86_64": ("X86_64", "linux/amd64"), "arm64": ("ARM64", "linux/arm64/v8")}

#: How long the engine's own service may take to stop, its containers included: systemd's default.
ENGINE_STOP_S = 90.0

#: What the log driver of Google Cloud calls its log: https://docs.docker.com/engine/logging/drivers/gcplogs/
GCPLOGS = "gcplogs-docker-driver"

GPU = re.compile(r"/dev/nvidia(\d+)")

HELP = "See 'docker {0} --help'."


class Failed(Exception):  # noqa: N818  (what docker answers)
    """docker does not do it; says why in its own words."""

    def __init__(self, why: str, code: int = FAILED) -> None:
        super().__init__(why)
        self.code = code


class Docker:
    """All containers and images of one machine.

    Parameters
    ----------
    room, disk
        Where containers run, and where their folders are.
    address, architecture, gpus
        The machine's.
    environ
        What the machine's network offers, for every container.
    scale, pull_s
        How long a pull takes.
    logs, open_log, reach
        See `Guest`.
    state
        The state of the engine's own service; empty when the machine has none.
    """

    def __init__(
        self,
        room: Room,
        disk: Disk,
        *,
        address: str,
        architecture: str,
        gpus: int,
        environ: Mapping[str, str],
        pull_s: float,
        sleep: Callable[[float], None],
        logs: Callable[[str, str, str], None],
        open_log: Callable[[str, str, bool], str],
        reach: Callable[[str], str],
        state: Callable[[], str],
    ) -> None:
        self.shell: Shell
        self.pulled: set[str] = set()
        self._room = room
        self._disk = disk
        self._address = address
        self._architecture, self._platform = ARCHITECTURES[architecture]
        self._gpus = gpus
        self._environ = dict(environ)
        self._pull_s = pull_s
        self._sleep = sleep
        self._logs = logs
        self._open_log = open_log
        self._reach = reach
        self._state = state
        self._lock = threading.Lock()
        self._containers: dict[str, Container] = {}

    def stop(self) -> None:
        """Stop all containers side by side, as the engine's own service does when the machine is shut down."""
        threads = [
            threading.Thread(target=c.stop, args=[min(c.options.stop_timeout_s, ENGINE_STOP_S)], daemon=True)
            for c in list(self._containers.values())
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def command(self, call: Call) -> int | Running:
        """Do what a `docker` command says."""
        verbs: dict[str, Callable[[Call, list[str]], int | Running]] = {
            "cp": self._copy,
            "create": self._make,
            "images": self._list_images,
            "inspect": self._inspect,
            "kill": self._kill,
            "logs": self._show_logs,
            "ps": self._list,
            "pull": self._pull,
            "rm": self._remove,
            "run": self._run,
            "stop": self._stop,
            "wait": self._wait,
        }
        if not self._state():
            call.warn("docker: command not found")
            return NOT_FOUND
        words = list(call.argv[1:])
        if words[:1] in (["container"], ["image"]):
            words = words[1:]
        verb, *rest = words or ["help"]
        if verb not in verbs:
            call.warn(
                f"docker: '{verb}' is not a docker command that is understood here.\nSee 'docker --help'"
            )
            return 1
        if self._state() != "active":
            call.warn(
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
                "Is the docker daemon running?"
            )
            return FAILED if verb == "run" else 1
        try:
            return verbs[verb](call, rest)
        except BadFlag as error:
            prefix = "docker: " if verb == "run" else ""
            call.warn(f"{prefix}{error}\n{HELP.format(verb)}")
            return FAILED if verb == "run" or "flag" in str(error) else 1
        except Failed as error:
            prefix = "docker: " if verb == "run" else ""
            call.warn(f"{prefix}{error}" + (f"\n{HELP.format(verb)}" if verb == "run" else ""))
            return error.code

    # --- Images ----------------------------------------------------------------------------------------

    def _pull(self, call: Call, words: list[str]) -> int:
        found, images = read_flags(words, {"--quiet": "quiet"}, {"--platform": "platform"})
        if len(images) != 1:
            raise BadFlag('"docker pull" requires exactly 1 argument.')
        self._fetch(images[0], (lambda _: None) if "quiet" in found else call.say)
        call.say(images[0])
        return 0

    def _fetch(self, name: str, say: Callable[[str], None]) -> None:
        """Pull an image."""
        repository, _, tag = name.rpartition(":")
        if not repository or "/" in tag:
            repository, tag = name, "latest"
            name = f"{name}:latest"
        if why := self._reach(name):
            raise Failed(f"Error response from daemon: {why}", 1)
        if not self._room.images.exists(name):
            raise Failed(
                f"Error response from daemon: manifest for {name} not found: manifest unknown: manifest unknown",
                1,
            )
        say(f"{tag}: Pulling from {repository}")
        if name not in self.pulled:
            self._sleep(self._pull_s)
        say(f"Digest: sha256:{hashlib.sha256(name.encode()).hexdigest()}")
        known = name in self.pulled
        say(f"Status: {'Image is up to date' if known else 'Downloaded newer image'} for {name}")
        self.pulled.add(name)

    def _list_images(self, call: Call, words: list[str]) -> int:
        read_flags(words, {"--quiet": "quiet"}, {})
        for name in sorted(self.pulled):
            call.say(name)
        return 0

    def _need(self, options: RunOptions, call: Call) -> None:
        """Have a container's image."""
        if options.image in self.pulled and options.pull != "always":
            return
        if options.pull == "never":
            raise Failed(f"Error response from daemon: No such image: {options.image}")
        call.warn(f"Unable to find image '{options.image}' locally")
        try:
            self._fetch(options.image, call.warn)
        except Failed as error:
            raise Failed(str(error)) from error

    # --- docker run ------------------------------------------------------------------------------------

    def _run(self, call: Call, words: list[str]) -> int | Running:
        options = read_run(words, call.environ, self._disk.read)
        self._need(options, call)
        container = self._create(options)
        say = None if options.detach else call.say
        try:
            if not self._start(container, say):
                call.warn(
                    f"WARNING: The requested image's platform ({self._foreign()}) does not match the detected "
                    f"host platform ({self._platform}) and no specific platform was requested"
                )
                call.warn(f"exec {_argv(options, self._entrypoint(options))[0]}: exec format error")
                self._forget(container)
                return FOREIGN
        except BaseException:
            self._forget(container)
            raise
        if options.detach:
            call.say(container.id)
            return 0
        return container.attached or Ended(0)

    def _make(self, call: Call, words: list[str]) -> int:
        options = read_run(words, call.environ, self._disk.read)
        self._need(options, call)
        call.say(self._create(options).id)
        return 0

    def _copy(self, call: Call, words: list[str]) -> int:
        """Copy one of its image's files out of a container."""
        _, names = read_flags(words, {"--quiet": "quiet"}, {})
        source, to = names if len(names) == len(("source", "target")) else ("", "")
        name, colon, path = source.partition(":")
        if not colon or ":" in to:
            raise BadFlag('"docker cp" is understood here as "docker cp CONTAINER:FILE FILE" only.')
        [container] = self._find([name])
        files = self._room.images.find(container.options.image).files
        if path not in files:
            raise Failed(f"Error response from daemon: Could not find the file {path} in container {name}", 1)
        self._disk.path(to).parent.mkdir(parents=True, exist_ok=True)
        self._disk.path(to).write_bytes(files[path])
        self._disk.path(to).chmod(0o755)
        call.warn(f"Successfully copied {len(files[path])}B to {to}")
        return 0

    def _create(self, options: RunOptions) -> Container:
        """Take a name, and refuse what the engine refuses before it starts anything."""
        self._check_gpus(options.gpus)
        for device in options.devices:
            if not self._disk.path(device).exists():
                raise Failed(
                    f"Error response from daemon: error gathering device information while adding custom device "
                    f'"{device}": no such file or directory'
                )
        self._check_log(options)
        container = Container(options)
        with self._lock:
            if other := self._containers.get(container.name):
                raise Failed(
                    f'Error response from daemon: Conflict. The container name "/{other.name}" is already in use '
                    f'by container "{other.id}". You have to remove (or rename) that container to be able to '
                    "reuse that name."
                )
            self._containers[container.name] = container
        if not options.detach:
            container.attached = Client(container)
        return container

    def _start(self, container: Container, say: Callable[[str], None] | None) -> bool:
        """Start it; False when its image is for another architecture."""
        options = container.options
        argv = _argv(options, self._entrypoint(options))
        try:
            container.program = self.shell.begin(
                lambda ended: self._room.start(
                    image=options.image,
                    argv=argv,
                    environ={**self._environ, **_gpu_environ(options), **options.environ},
                    address=self._address,
                    architecture=self._architecture,
                    log=self._writer(container, say),
                    exited=lambda code: self._ended(container, code, ended),
                    mounts={inside: str(self._folder(source)) for inside, source in options.mounts.items()},
                )
            )
        except ImageNotFound as error:
            raise Failed(f"Error response from daemon: No such image: {options.image}") from error
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                return False
            raise _not_started(error, argv) from error
        return True

    def _ended(self, container: Container, code: int, ended: Callable[[int], None]) -> None:
        if container.options.rm:
            self._forget(container)
        ended(code)
        container.end(code)

    def _writer(self, container: Container, say: Callable[[str], None] | None) -> Callable[[str], None]:
        """What becomes of the lines a container writes."""
        options = container.options
        keeps, sends = options.log_driver != "none", options.log_driver in {"awslogs", "gcplogs"}
        group = options.log_options.get("awslogs-group", "")
        stream = options.log_options.get("awslogs-stream", container.id)
        if options.log_driver == "gcplogs":
            group, stream = GCPLOGS, container.name

        def write(line: str) -> None:
            line = self._disk.there(line)
            if keeps:
                container.lines.append(line)
            if sends:
                self._logs(group, stream, line)
            if say:
                say(line)

        return write

    def _folder(self, source: str) -> Path:
        folder = self._disk.path(source)
        if not folder.exists():
            folder.mkdir(parents=True)
        return folder

    def _entrypoint(self, options: RunOptions) -> Sequence[str]:
        try:
            return self._room.images.find(options.image).entrypoint
        except ImageNotFound as error:
            raise Failed(f"Error response from daemon: No such image: {options.image}") from error

    def _foreign(self) -> str:
        return next(name for _, name in ARCHITECTURES.values() if name != self._platform)

    def _check_gpus(self, wanted: str) -> None:
        if not wanted:
            return
        count = wanted.removeprefix("count=")
        if count != "all" and not count.isdecimal():
            raise BadFlag(f'invalid argument "{wanted}" for "--gpus" flag: only a count is understood here')
        if not self._gpus:
            raise Failed(
                'Error response from daemon: could not select device driver "" with capabilities: [[gpu]].'
            )
        if count != "all" and int(count) > self._gpus:
            raise Failed(
                "Error response from daemon: failed to create task for container: failed to create shim task: "
                "OCI runtime create failed: nvidia-container-cli: device error: unknown device: unknown"
            )

    def _check_log(self, options: RunOptions) -> None:
        driver = options.log_driver
        if driver not in LOG_OPTIONS:
            raise Failed(f"Error response from daemon: logger: no log driver named '{driver}' is registered")
        for name in options.log_options:
            if name not in LOG_OPTIONS[driver] | EVERY_DRIVERS:
                raise Failed(f"Error response from daemon: unknown log opt '{name}' for {driver} log driver")
        if driver == "gcplogs" and (why := self._open_log(GCPLOGS, options.name, False)):
            raise Failed(
                "Error response from daemon: failed to create task for container: failed to initialize logging "
                f"driver: unable to connect or authenticate with Google Cloud Logging: {why}"
            )
        if driver != "awslogs":
            return
        if not (group := options.log_options.get("awslogs-group", "")):
            raise Failed(
                "Error response from daemon: failed to initialize logging driver: must specify a value for "
                "log opt 'awslogs-group'"
            )
        create = options.log_options.get("awslogs-create-group") == "true"
        if why := self._open_log(group, options.log_options.get("awslogs-stream", ""), create):
            raise Failed(
                "Error response from daemon: failed to create task for container: failed to initialize logging "
                f"driver: failed to create Cloudwatch log stream: {why}"
            )

    # --- What is asked of containers ---------------------------------------------------------------------

    def _stop(self, call: Call, words: list[str]) -> int:
        found, names = read_flags(words, {}, {"--time": "time", "--timeout": "time", "-t": "time"})
        for container in self._find(names):
            given = found.get("time", [str(container.options.stop_timeout_s)])[-1]
            container.stop(float(given))
        return _told(call, names)

    def _kill(self, call: Call, words: list[str]) -> int:
        found, names = read_flags(words, {}, {"--signal": "signal", "-s": "signal"})
        if found.get("signal", ["KILL"])[-1].removeprefix("SIG") not in {"KILL", "9"}:
            raise BadFlag(f"--signal {found['signal'][-1]} is not understood here")
        for container in self._find(names):
            if container.status != "running":
                raise Failed(
                    f"Error response from daemon: cannot kill container: {container.name}: "
                    f"container {container.id} is not running",
                    1,
                )
            container.kill()
        return _told(call, names)

    def _remove(self, call: Call, words: list[str]) -> int:
        found, names = read_flags(words, {"--force": "force", "-f": "force", "--volumes": ""}, {})
        for container in self._find(names):
            if container.status == "running" and "force" not in found:
                raise Failed(
                    f'Error response from daemon: cannot remove container "/{container.name}": container is '
                    "running: stop the container before removing or force remove",
                    1,
                )
            container.kill()
            self._forget(container)
        return _told(call, names)

    def _wait(self, call: Call, words: list[str]) -> int:
        for container in self._find(words):
            container.ended.wait()
            call.say(str(container.code))
        return 0

    def _show_logs(self, call: Call, words: list[str]) -> int:
        found, names = read_flags(
            words, {"--follow": "follow", "-f": "follow"}, {"--tail": "tail", "--lines": "tail", "-n": "tail"}
        )
        for container in self._find(names):
            if container.options.log_driver == "none":
                raise Failed(
                    "Error response from daemon: configured logging driver does not support reading", 1
                )
            if "follow" in found:
                container.ended.wait()
            lines, tail = list(container.lines), found.get("tail", ["all"])[-1]
            for line in lines if tail == "all" else lines[len(lines) - int(tail) :]:
                call.say(line)
        return 0

    def _list(self, call: Call, words: list[str]) -> int:
        found, _ = read_flags(
            words,
            {"--all": "all", "-a": "all", "--quiet": "quiet", "--no-trunc": ""},
            {"--filter": "filter", "-f": "filter", "--format": "format"},
        )
        names = [given.removeprefix("name=") for given in found.get("filter", [])]
        shown = [
            c
            for c in list(self._containers.values())
            if ("all" in found or c.status == "running") and all(name in c.name for name in names)
        ]
        if "quiet" not in found:
            call.say("CONTAINER ID   IMAGE   STATUS   NAMES")
        for c in shown:
            call.say(
                c.id[:12] if "quiet" in found else f"{c.id[:12]}   {c.options.image}   {c.status}   {c.name}"
            )
        return 0

    def _inspect(self, call: Call, words: list[str]) -> int:
        found, names = read_flags(words, {}, {"--format": "format", "-f": "format"})
        described = [_description(container) for container in self._find(names)]
        if "format" not in found:
            call.say(json.dumps(described, indent=4))
        for container in described if "format" in found else []:
            call.say(_formatted(found["format"][-1], container))
        return 0

    def _find(self, names: list[str]) -> list[Container]:
        """Containers by name, or by the beginning of an id."""
        found = []
        for name in names:
            match = [
                c
                for c in list(self._containers.values())
                if c.name == name or (name and c.id.startswith(name))
            ]
            if not match:
                raise Failed(f"Error response from daemon: No such container: {name}", 1)
            found.append(match[0])
        return found

    def _forget(self, container: Container) -> None:
        with contextlib.suppress(KeyError):
            del self._containers[container.name]


def _gpu_environ(options: RunOptions) -> dict[str, str]:
    """Which GPUs a container has; where it was given them as devices, these are not in this computer's `/dev`."""
    count = options.gpus.removeprefix("count=")
    given = [match[1] for device in options.devices if (match := GPU.fullmatch(device))]
    numbers = list(map(str, range(int(count)))) if count.isdecimal() else given
    if count == "all" or numbers:
        return {"NVIDIA_VISIBLE_DEVICES": "all" if count == "all" else ",".join(numbers)}
    return {}


def _argv(options: RunOptions, entrypoint: Sequence[str]) -> list[str]:
    """What a container runs: an entry point that was asked for, or the image's own, and the command."""
    if options.entrypoint is None:
        return [*entrypoint, *options.command]
    return [*([options.entrypoint] if options.entrypoint else []), *options.command]


def _not_started(error: OSError, argv: Sequence[str]) -> Failed:
    """What docker says of a command that cannot be started."""
    name = argv[0] if argv else ""
    if error.errno == errno.EINVAL:
        return Failed("Error response from daemon: no command specified")
    code = {errno.ENOENT: NOT_FOUND, errno.EACCES: NOT_EXECUTABLE}.get(error.errno or 0, FAILED)
    why = {
        NOT_FOUND: f'exec: "{name}": executable file not found in $PATH',
        NOT_EXECUTABLE: f'exec: "{name}": permission denied',
    }.get(code, str(error.strerror))
    return Failed(
        "Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
        f"create failed: runc create failed: unable to start container process: {why}: unknown.",
        code,
    )


def _description(container: Container) -> dict[str, object]:
    return {
        "Id": container.id,
        "Name": f"/{container.name}",
        "Config": {"Image": container.options.image},
        "State": {
            "Status": container.status,
            "Running": container.status == "running",
            "ExitCode": container.code or 0,
            "Pid": container.program.pid if container.program else 0,
        },
    }


def _formatted(template: str, container: Mapping[str, object]) -> str:
    """A template that names one thing, such as `{{.State.Running}}`."""
    value: object = container
    for name in template.strip().removeprefix("{{").removesuffix("}}").strip().removeprefix(".").split("."):
        if not isinstance(value, dict) or name not in value:
            raise Failed(f"template parsing error: template: :1: {template!r} is not understood here", 1)
        value = value[name]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _told(call: Call, names: Sequence[str]) -> int:
    for name in names:
        call.say(name)
    return 0
