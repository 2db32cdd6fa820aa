"""Container images made of this computer's own Python: no registry, no distribution, no network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from cloudprovider.emulator.podman import command

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


def with_distributed() -> str:
    """The name of an image that has this Python, `distributed` with what it requires, and nothing of ours."""
    packages = requirements("distributed")
    versions = ",".join(f"{name}={importlib.metadata.version(name)}" for name in sorted(packages))
    key = hashlib.sha256(f"{sys.version}{sys.base_prefix}{versions}".encode()).hexdigest()[:16]
    name = f"localhost/dask-cloud-test/distributed:{key}"
    if subprocess.run([*command(), "image", "exists", name], check=False).returncode:
        imported = [*command(), "import", "--change", "ENV=PATH=/usr/bin:/bin", "-", name]
        subprocess.run(imported, input=_tree(packages), check=True, capture_output=True)
    return name


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


def _tree(packages: set[str]) -> bytes:
    """An image's files, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        programs = [Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")]
        tar.add(programs[0], arcname=_inside(programs[0]))
        programs += _add_standard_library(tar)
        programs += _add_packages(tar, packages)
        for library in _libraries(programs):
            tar.add(library, arcname=_inside(library))
        for link in ("usr/bin/python", "usr/bin/python3"):
            _add_link(tar, link, str(programs[0]))
        for path, text in FILES.items():
            info = tarfile.TarInfo(path)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        for folder in ("tmp", "root", "proc", "sys", "dev"):
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


def _add_link(tar: tarfile.TarFile, path: str, target: str) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def _libraries(programs: list[Path]) -> set[Path]:
    """The shared libraries of the system that programs need, the loader included."""
    found: set[Path] = set()
    for start in range(0, len(programs), 50):
        told = subprocess.run(
            ["ldd", *map(str, programs[start : start + 50])], capture_output=True, text=True, check=False
        )
        for line in told.stdout.splitlines():
            if match := re.search(r"(?:=>\s*|^\s+)(/\S+) \(0x", line):
                found.add(Path(match[1]))
    return {path for path in found if not path.is_relative_to(sys.prefix)}


def _inside(path: Path) -> str:
    return str(path).lstrip("/")
