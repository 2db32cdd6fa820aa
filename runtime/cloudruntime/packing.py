"""The runtime in as few bytes as can be, for an image that does not carry it."""

from __future__ import annotations

import ast
import base64
import functools
import json
import lzma
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudruntime.boot import Boot

__all__ = ["BOOTSTRAP", "PACKED", "UNPACKED", "compressed", "packed", "unpack"]

#: Environment variable that holds the packed runtime.
PACKED = "DASK_CLOUD_RUNTIME"
#: Environment variable that says where it was unpacked, so that the machine leaves nothing behind.
UNPACKED = "DASK_CLOUD_UNPACKED"

#: Modules that only some machines need: their roles, and whether only those that serve Jupyter.
ROLES = {
    "jupyter.py": "scheduler",
    "leaving.py": "scheduler",
    "scheduler.py": "scheduler",
    "work.py": "scheduler",
    "worker.py": "worker",
}
#: Modules that no machine needs.
AT_HOME = {"packing.py"}
# The oldest container of this compression is also the smallest: it has no checksums.
FILTERS = [{"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "pb": 0}]


def unpack(read: str) -> str:
    """The program that unpacks the runtime, and becomes it: same process, so still the first.

    It keeps to what every Python 3 understands, so that a wrong one gets as far as saying so.

    Parameters
    ----------
    read
        Statements that read the packed runtime into `r`.
    """
    return f"""\
import base64,json,lzma,os,sys,tempfile
e=os.environ
{read}
d=e["{UNPACKED}"]=tempfile.mkdtemp(prefix="cloudruntime-")
p=os.path.join(d,"cloudruntime")
os.mkdir(p)
for n,s in json.loads(lzma.decompress(r).decode()).items():
    with open(os.path.join(p,n),"w",encoding="utf-8") as f:f.write(s)
e["PYTHONPATH"]=os.pathsep.join([d]+[q for q in [e.get("PYTHONPATH")] if q])
sys.stdout.flush()
os.execv(sys.executable,[sys.executable,"-m","cloudruntime"])
"""


#: For `python -c`, where the packed runtime is in a variable.
BOOTSTRAP = unpack(f'r=base64.b85decode(e.pop("{PACKED}"))')


def packed(boot: Boot) -> str:
    """The runtime of a boot's machines as text."""
    return base64.b85encode(compressed(boot)).decode()


def compressed(boot: Boot) -> bytes:
    """The runtime of a boot's machines."""
    return _compressed(frozenset(name for name in _names() if _needed(name, boot)))


def _needed(name: str, boot: Boot) -> bool:
    return ROLES.get(name, boot.role) == boot.role and (name != "jupyter.py" or boot.jupyter)


@functools.cache
def _names() -> tuple[str, ...]:
    files = resources.files("cloudruntime").iterdir()
    return tuple(sorted({file.name for file in files if file.name.endswith(".py")} - AT_HOME))


@functools.cache
def _compressed(names: frozenset[str]) -> bytes:
    folder = resources.files("cloudruntime")
    sources = {name: _bare((folder / name).read_text(encoding="utf-8")) for name in sorted(names)}
    text = json.dumps(sources, separators=(",", ":")).encode()
    return lzma.compress(text, format=lzma.FORMAT_ALONE, filters=FILTERS)


def _bare(source: str) -> str:
    """The same program without what only people and tools read."""
    return ast.unparse(_Bare().visit(ast.parse(source)))


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
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if typing else self.generic_visit(node)

    def _body(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        self.generic_visit(node)
        node.body[:] = node.body or [ast.Pass()]
        return node
