"""Container images made of this computer's own Python: no registry, no distribution, no network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cloudprovider.emulator.podman import command

if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = Path(__file__).parents[1]

#: Of the standard library: what no machine needs.
LEFT_OUT = {
    "config",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}

#: What a Dockerfile may call, and what those programs read.
TOOLS = ("sh", "rm", "useradd")
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
TOOLS_FILES = ("/etc/login.defs", "/etc/default/useradd", AUTHORITIES)


def with_distributed() -> str:
    """The name of an image that has this Python, `distributed` with what it requires, and nothing of ours."""
    return _imported("distributed", tools=False)


def official() -> str:
    """The name of an image built by the official Dockerfile, from this Python.

    Raises
    ------
    RuntimeError
        When it cannot be built here, as where there is no package index; it says why.
    """
    base = _imported("base", tools=True)
    sources = hashlib.sha256(base.encode())
    for path in sorted((REPOSITORY / "runtime").rglob("*")):
        if path.suffix in {".py", ".toml"} or path.name == "Dockerfile":
            sources.update(path.read_bytes())
    name = f"localhost/dask-cloud-test/official:{sources.hexdigest()[:16]}"
    if _exists(name):
        return name
    arguments = {"BASE": base, "DASK": importlib.metadata.version("distributed"), "PACKAGES": ""}
    built = subprocess.run(
        [
            *command(),
            "build",
            "--isolation=chroot",
            "--network=host",
            *(f"--build-arg={argument}={value}" for argument, value in arguments.items()),
            f"--tag={name}",
            str(REPOSITORY / "runtime"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise RuntimeError(built.stderr[-2000:] or built.stdout[-2000:])
    return name


def _imported(kind: str, *, tools: bool) -> str:
    """The name of an image made of this Python, which is made only once."""
    packages = requirements("distributed")
    versions = ",".join(f"{name}={importlib.metadata.version(name)}" for name in sorted(packages))
    recipe = Path(__file__).read_text(encoding="utf-8")
    key = hashlib.sha256(f"{sys.version}{sys.base_prefix}{versions}{recipe}".encode()).hexdigest()[:16]
    name = f"localhost/dask-cloud-test/{kind}:{key}"
    if not _exists(name):
        settings = ["ENV=PATH=/usr/sbin:/usr/bin:/bin"]
        if tools:
            settings.append(f"ENV=PIP_CERT={AUTHORITIES}")  # pip's own know nothing of a local mirror's
        changes = [f"--change={setting}" for setting in settings]
        tree = _tree(packages, tools=tools)
        subprocess.run(
            [*command(), "import", *changes, "-", name], input=tree, check=True, capture_output=True
        )
    return name


def _exists(name: str) -> bool:
    return not subprocess.run([*command(), "image", "exists", name], check=False).returncode


def requirements(name: str) -> set[str]:
    """A distribution and all it requires, by name."""
    found: set[str] = set()
    todo = [name]
    while todo:
        dist = importlib.metadata.distribution(todo.pop())
        if (canonical := _canonical(dist.name)) in found:
            continue
        found.add(canonical)
        for requirement in dist.requires or ():
            if "extra ==" in requirement:
                continue
            needed = _canonical(re.match(r"[\w.-]+", requirement).group())
            if _installed(needed):  # what is not is for another Python or platform
                todo.append(needed)
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tree(packages: set[str], *, tools: bool) -> bytes:
    """An image's files, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        programs = [Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")]
        tar.add(programs[0], arcname=_inside(programs[0]))
        programs += _add_standard_library(tar)
        programs += _add_packages(tar, packages)
        if tools:
            _add_pip(tar)
            programs += _add_tools(tar)
        for library in _libraries(programs):
            tar.add(library, arcname=_inside(library))
        for link in ("usr/bin/python", "usr/bin/python3"):
            _add_link(tar, link, str(programs[0]))
        for path, text in FILES.items():
            info = tarfile.TarInfo(path)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        for folder in ("tmp", "root", "home", "proc", "sys", "dev"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
    return buffer.getvalue()


def _add_standard_library(tar: tarfile.TarFile) -> list[Path]:
    root = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    shared = []
    for path in sorted(root.rglob("*")):
        parts = {part.partition("-")[0] for part in path.relative_to(root).parts} | set(
            path.relative_to(root).parts
        )
        if path.is_file() and not parts & LEFT_OUT:
            tar.add(path, arcname=_inside(path))
            if path.suffix == ".so":
                shared.append(path)
    return shared


def _add_packages(tar: tarfile.TarFile, packages: set[str]) -> list[Path]:
    target = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}), "site-packages")
    shared = []
    for name in sorted(packages):
        dist = importlib.metadata.distribution(name)
        for file in dist.files or ():
            path = Path(dist.locate_file(file))
            if ".." in file.parts or "tests" in file.parts or not path.is_file():
                continue
            tar.add(path, arcname=_inside(target / str(file)))
            if path.suffix == ".so":
                shared.append(path)
    return shared


def _add_pip(tar: tarfile.TarFile) -> None:
    """The pip that comes with Python."""
    target = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}), "site-packages")
    [wheel] = (target.parent / "ensurepip" / "_bundled").glob("pip-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            info = tarfile.TarInfo(_inside(target / entry.filename))
            info.size = entry.file_size
            tar.addfile(info, io.BytesIO(archive.read(entry)))


def _add_tools(tar: tarfile.TarFile) -> list[Path]:
    programs = []
    for name in TOOLS:
        if (found := shutil.which(name)) is None:
            raise RuntimeError(f"there is no {name!r} here to put into an image")
        tar.add(found, arcname=f"bin/{name}")
        programs.append(Path(found))
    for path in TOOLS_FILES:
        if Path(path).exists():
            tar.add(path, arcname=path.lstrip("/"))
    return programs


def _add_link(tar: tarfile.TarFile, path: str, target: str) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """The shared libraries of the system that programs need, the loader included."""
    found: set[Path] = set()
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    for line in told.stdout.splitlines():
        if match := re.search(r"(?:=>\s*|^\s+)(/\S+) \(0x", line):
            found.add(Path(match[1]))
    return {path for path in found if not path.is_relative_to(sys.prefix)}


def _inside(path: Path) -> str:
    return str(path).lstrip("/")
