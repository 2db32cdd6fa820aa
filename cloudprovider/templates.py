"""Templates have holes, not logic: `${image}` and the like, each with a pattern that it must match.

`string.Template` here and Terraform's `templatefile` fill the same files, so that a `$` that opens no known
hole, and any `%{`, is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOLES", "holes", "names", "read", "render", "script", "shipped", "unfit"]

BASE64 = r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
IMAGE = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,511}"
LOGGING = r"--log-driver [a-z]+( --log-opt [a-z-]+=([\w./#-]|`cat /var/lib/cloud/data/instance-id`)+)*"
ROLE = r"arn:aws[a-z-]*:iam::(\d{12}|\*):role/[\w+=,.@/-]{1,512}"
#: What may be filled into each hole. Scalars only: nothing that could end a JSON string.
HOLES = {
    "account": r"\d{12}|\*",
    "architecture": r"X86_64|ARM64",
    "boot": BASE64,
    "cloud": r"ec2|gce|azure",
    "cluster": r"[a-z0-9-]{1,40}",
    "cluster_name": r"[a-z0-9-]{1,40}|\*",
    "compatibility": r"FARGATE|EC2",
    "cpu": r"[1-9]\d{0,5}",
    "devices": r"(--gpus (all|[1-9]\d?)|((^| )(-v|-e|--device) [\w./:=-]+)+)?",
    "disks": r"/dev/disk/[\w./*-]+",
    "ecs_cluster": r"[A-Za-z0-9_-]{1,255}|\*",
    "end": BASE64,
    "ending": r"shutdown -h now|/bin/sh /etc/dask-cloud-end( https?://[\w.:/-]+ [\w-]+)?",
    "environment": BASE64,
    "execution_role": ROLE,
    "expires": r"[1-9]\d{0,11}",
    "family": r"[A-Za-z0-9_-]{1,255}",
    "home": r"(/[a-z-]+)+",
    "image": IMAGE,
    "lease": r"[1-9]\d{0,6}",
    "log_group": r"[\w./#-]{1,512}",
    "log_stream": r"[\w./#-]{1,128}",
    "lock": BASE64,
    "logging": LOGGING,
    "machine_role": ROLE,
    "manager": BASE64,
    "manager_image": IMAGE,
    "manager_logging": LOGGING,
    "masked": r"(--now, )?[\w.-]+(, [\w.-]+)*",
    "memory": r"[1-9]\d{0,6}",
    "mkfs": r"mkfs\.[a-z0-9]+( -[A-Za-z]+( nodiscard)?)+",
    "packed": BASE64,
    "partition": r"aws[a-z-]*",
    "program": r"-m cloudruntime|/run/dask-cloud/runtime",
    "python": r"3\.\d{1,2}",
    "region": r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}|\*",
    "resource_group": r"[\w.()-]{1,90}|\*",
    "runtime": BASE64,
    "secret": r"[\w./:-]{1,1011}",
    "subscription": r"[0-9a-fA-F-]{36}|\*",
    "task_role": ROLE,
}
HOLE = re.compile(r"\$\{([a-z_]+)\}")


#: The folders that the package brings, of which not each is in every version.
FOLDERS = ("templates", "terraform", "cloudformation")


def folder(name: str) -> Path:
    """A folder of the package's: in the wheel beside this module, in a checkout above it."""
    packaged = Path(__file__).with_name(name)
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / name


def root() -> Path:
    """The folder of the templates."""
    return folder("templates")


def shipped() -> dict[str, Path]:
    """Every file that the package brings for people to build on, by its name: `templates/...` and the like."""
    return {
        f"{name}/{path.relative_to(folder(name)).as_posix()}": path
        for name in FOLDERS
        for path in sorted(folder(name).rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "__")) for part in path.relative_to(folder(name)).parts)
    }


def names() -> list[str]:
    """Every template, by its path under the folder."""
    return sorted(
        path.relative_to(root()).as_posix()
        for path in root().rglob("*.*")
        if path.is_file() and path.suffix != ".sh"
    )


def script(name: str) -> str:
    """The text of a script that lies beside the templates: it has no holes, and goes whole into one."""
    return (root() / f"{name}.sh").read_text("utf-8")


def read(name: str) -> str:
    """The text of a template, with its holes.

    Raises
    ------
    ConfigError
        When there is no template of that name.
    """
    if name not in names():
        raise ConfigError(f"There is no template {name!r}; there are {', '.join(names())}.")
    return (root() / name).read_text("utf-8")


def holes(text: str) -> set[str]:
    """The names of the holes in a template's text."""
    return set(HOLE.findall(text))


def unfit(text: str) -> Iterator[str]:
    """What in a template's text is neither plain nor a known hole."""
    for match in re.finditer(r"\$(\{[^}]*\}?)?|%\{", text):
        hole = HOLE.fullmatch(match.group())
        if hole is None or hole.group(1) not in HOLES:
            yield f"{match.group()!r} at character {match.start()}"


def render(name: str, /, **values: str) -> str:
    """A template with its holes filled; values that it has no hole for are left out.

    Parameters
    ----------
    name
        Such as `task-definition.json`.
    **values
        By the holes' names.

    Raises
    ------
    ConfigError
        When a hole has no value, or one that does not fit it.

    Examples
    --------
    >>> execution = render(
    ...     "policies/aws-fargate-execution.json", partition="aws-cn", account="*", log_group="/dask"
    ... )
    >>> "arn:aws-cn:ssm:*:*:parameter/dask/*/machine" in execution
    True
    """
    text = read(name)
    if found := list(unfit(text)):
        raise ConfigError(f"Template {name} has {', '.join(found)}, which is no hole.")
    wanted = holes(text)
    if missing := sorted(wanted - set(values)):
        raise ConfigError(f"Template {name} needs {', '.join(missing)}.")
    for hole in sorted(wanted):
        if not re.fullmatch(HOLES[hole], values[hole], re.ASCII):
            raise ConfigError(f"{hole}={values[hole]!r} does not fit into {name}: it must be {HOLES[hole]}.")
    return Template(text).substitute({hole: values[hole] for hole in wanted})
