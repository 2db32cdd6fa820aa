"""The runtime as one text, for an image that does not carry it."""

from __future__ import annotations

import ast
import base64
import functools
import json
import zlib
from importlib import resources

__all__ = ["BOOTSTRAP", "PACKED", "UNPACKED", "packed"]

#: Environment variable that holds the packed runtime.
PACKED = "DASK_CLOUD_RUNTIME"
#: Environment variable that says where it was unpacked, so that the machine leaves nothing behind.
UNPACKED = "DASK_CLOUD_UNPACKED"

#: What `python -c` runs in such an image: unpack the runtime, and become it (same process, so still the first).
#: It keeps to what every Python 3 understands, so that a wrong one gets as far as saying so.
BOOTSTRAP = f"""\
import base64,json,os,sys,tempfile,zlib
e=os.environ
d=e["{UNPACKED}"]=tempfile.mkdtemp(prefix="cloudruntime-")
p=os.path.join(d,"cloudruntime")
os.mkdir(p)
for n,s in json.loads(zlib.decompress(base64.b64decode(e.pop("{PACKED}"))).decode()).items():
    with open(os.path.join(p,n),"w",encoding="utf-8") as f:f.write(s)
e["PYTHONPATH"]=os.pathsep.join([d]+[q for q in [e.get("PYTHONPATH")] if q])
sys.stdout.flush()
os.execv(sys.executable,[sys.executable,"-m","cloudruntime"])
"""

#: Modules that a machine does not need.
AT_HOME = {"packing.py"}


@functools.cache
def packed() -> str:
    """Source of this package without comments and docstrings, compressed, in base64."""
    sources = {
        file.name: _bare(file.read_text(encoding="utf-8"))
        for file in sorted(resources.files("cloudruntime").iterdir(), key=lambda file: file.name)
        if file.name.endswith(".py") and file.name not in AT_HOME
    }
    return base64.b64encode(zlib.compress(json.dumps(sources).encode(), 9)).decode()


def _bare(source: str) -> str:
    """The same program without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body[:] = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
