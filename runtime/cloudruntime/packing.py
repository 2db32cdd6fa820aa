"""The runtime in as few bytes as can be, for an image that does not carry it."""

from __future__ import annotations

import ast
import base64
import bz2
import functools
import threading
from importlib import resources
from typing import TYPE_CHECKING

from cloudruntime.rest import PLAIN, REST, digest

if TYPE_CHECKING:
    from cloudruntime.boot import Boot

__all__ = ["BOOTSTRAP", "PACKED", "UNPACKED", "early", "late", "packed", "unpack", "whole"]

#: Environment variable that holds the packed runtime.
PACKED = "DASK_CLOUD_RUNTIME"
#: Environment variable that says where it was unpacked, so that the machine leaves nothing behind.
UNPACKED = "DASK_CLOUD_UNPACKED"

#: Modules that only some machines need: those of one role.
ROLES = {
    "gpus.py": "worker",
    "jupyter.py": "scheduler",
    "leaving.py": "scheduler",
    "notices.py": "worker",
    "scheduler.py": "scheduler",
    "work.py": "scheduler",
    "worker.py": "worker",
}
#: And those of one cloud: as its metadata service is called, but that AWS's two services have one.
CLOUDS = {"aws.py": ("aws",), "azure.py": ("azure",), "gce.py": ("gce",), "web.py": ("azure", "gce")}
#: Modules that are needed only when the machine has its secrets: they come with them, by the secret.
LATE = {
    "machine": ("child.py", "supervisor.py"),
    "scheduler": ("leaving.py", "scheduler.py"),
    "worker": ("gpus.py", "notices.py", "worker.py"),
}
#: Modules that no machine needs at its boot; a manager brings the page.
AT_HOME = {"packing.py", "page.py"}


#: Modules that only annotations need.
FOR_TOOLS = {"__future__", "typing"}


def unpack(read: str) -> str:
    """The program that unpacks the runtime, and becomes it: same process, so still the first.

    It keeps to what every Python 3 understands, so that a wrong one gets as far as saying so.

    Parameters
    ----------
    read
        Statements that read the packed runtime into `r`.
    """
    return f"""\
import base64,bz2,os,sys,tempfile
e=os.environ
{read}
d=e["{UNPACKED}"]=tempfile.mkdtemp(prefix="cloudruntime-")
p=os.path.join(d,"cloudruntime")
os.mkdir(p)
for m in bz2.decompress(r).decode().split("\\0"):
    n,_,s=m.partition("\\n")
    with open(os.path.join(p,n),"w",encoding="utf-8") as f:f.write(s)
e["PYTHONPATH"]=os.pathsep.join([d]+[q for q in [e.get("PYTHONPATH")] if q])
sys.stdout.flush()
os.execv(sys.executable,[sys.executable,"-m","cloudruntime"])
"""


#: For `python -c`, where the packed runtime is in a variable.
BOOTSTRAP = unpack(f'r=base64.b85decode(e.pop("{PACKED}"))')


def packed(boot: Boot) -> str:
    """The runtime of a boot's machines as text."""
    return base64.b85encode(whole(boot)).decode()


def whole(boot: Boot, cloud: str = "aws") -> bytes:
    """The runtime of a boot's machines.

    Parameters
    ----------
    boot
        What they run.
    cloud
        Whose they are: `aws`, `azure` or `gce`.
    """
    return _compressed(_needed(boot, cloud))


def early(boot: Boot) -> bytes:
    """The runtime of a boot's machines, but for what comes with their secrets."""
    whose = ("machine", boot.role)
    modules = {name for one in whose for name in LATE[one]}
    return _compressed(_needed(boot) - modules, digest([late(one) for one in whose]))


def late(whose: str) -> str:
    """What of the runtime comes with one of the secrets, as text."""
    return base64.b85encode(_compressed(frozenset(LATE[whose]))).decode().translate(PLAIN)


def _needed(boot: Boot, cloud: str = "aws") -> frozenset[str]:
    mine = (name for name in _names() if cloud in CLOUDS.get(name, (cloud,)))
    names = {name for name in mine if ROLES.get(name, boot.role) == boot.role}
    return frozenset(names if boot.jupyter else names - {"jupyter.py"})


@functools.cache
def _names() -> tuple[str, ...]:
    files = resources.files("cloudruntime").iterdir()
    return tuple(sorted({file.name for file in files if file.name.endswith(".py")} - AT_HOME))


@functools.cache
def _compressed(names: frozenset[str], rest: str = "") -> bytes:
    """The sources of modules, and the digest of what is still to come."""
    folder = resources.files("cloudruntime")
    sources = {name: _bare((folder / name).read_text(encoding="utf-8")) for name in sorted(names)}
    text = "\0".join(
        f"{name}\n{source}" for name, source in ({**sources, REST: rest} if rest else sources).items()
    )
    return bz2.compress(text.encode())  # of what every Python has, the best for text of this length


#: Threads that parse side by side break each other's count of the depth, at least in Python 3.11, and one of them
#: gets a SystemError: https://github.com/malthe/chameleon/issues/361, https://github.com/python/cpython/issues/106905
_parsing = threading.Lock()


@functools.cache
def _bare(source: str) -> str:
    """The same program without what only people and tools read."""
    with _parsing:
        program = ast.parse(source)
    return ast.unparse(_Bare().visit(program))


class _Bare(ast.NodeTransformer):
    """Removes docstrings, annotations, and what is only for type checkers."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._body(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._body(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if isinstance(node.target, ast.Name):  # a dataclass wants one, whatever it says
            node.annotation = ast.Constant(0)
            return self.generic_visit(node)
        return ast.Assign([node.target], self.visit(node.value), lineno=0) if node.value else ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module in FOR_TOOLS else node

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return None if names == ["__all__"] else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if typing else self.generic_visit(node)

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        self.generic_visit(node)
        node.body[:] = node.body or [ast.Pass()]
        return node
