"""Which locks machines take, and what is made of them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from locks import locked, needs_uv

from cloudprovider.errors import ConfigError
from cloudprovider.providers._uv_lock import read

OURS = metadata.version("distributed")
PYTHON = f"{sys.version_info.major}{sys.version_info.minor}"
FILES = (
    f"d-1-cp{PYTHON}-cp{PYTHON}-manylinux_2_28_x86_64.whl",
    "d-1-cp38-abi3-manylinux_2_28_aarch64.whl",
    f"d-1-cp{PYTHON}-cp{PYTHON}-macosx_11_0_arm64.whl",
    f"d-1-cp{PYTHON}-cp{PYTHON}-musllinux_1_2_x86_64.whl",
    "d-1-cp35-cp35m-manylinux1_x86_64.whl",
)


def pylock(*wheels, more="", python=">=3.9"):
    files = ", ".join(
        f'{{ url = "https://index.example/{name}", hashes = {{ sha256 = "{number}" }} }}'
        for number, name in enumerate(wheels)
    )
    return f"""
lock-version = "1.0"
requires-python = "{python}"
[[packages]]
name = "distributed"
version = "{OURS}"
marker = "sys_platform == 'linux'"
sdist = {{ url = "https://index.example/d-1.tar.gz", hashes = {{ sha256 = "source" }} }}
wheels = [{files}]
{more}
"""


def test_requirements_keep_what_counts(tmp_path):
    """Hashes, markers and indexes stay, on one line each; comments go; and what was read is read again as it is."""
    path = tmp_path / "requirements.txt"
    path.write_text(
        f"# made by a tool\n--index-url https://index.example/simple\nDistributed[x]=={OURS} \\\n"
        "    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via us\n\nzict==3.0 ; python_version < '4'  # why\n"
    )
    text = read(str(path))

    assert (
        f"--index-url https://index.example/simple\nDistributed[x]=={OURS} --hash=sha256:aa --hash=sha256:bb\n"
        "zict==3.0 ; python_version < '4'\n"
    ) == text
    assert text == read(text)


def test_of_a_pylock_only_what_machines_can_install_is_kept(tmp_path):
    """Of the hashes of every file those of Linux and this Python, or else the source's."""
    path = tmp_path / "pylock.toml"
    path.write_text(pylock(*FILES))
    marked = f"distributed=={OURS} ; sys_platform == 'linux'"

    assert f"{marked} --hash=sha256:0 --hash=sha256:1\n" == read(str(path))
    path.write_text(pylock(FILES[2]))
    assert f"{marked} --hash=sha256:source\n" == read(str(path))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("requirements.txt", "dask==1\n", "has no distributed"),
        ("requirements.txt", "distributed==1.0\n", "another protocol"),
        ("requirements.txt", f"distributed=={OURS}\nzict>=3\n", "'zict>=3', which pins no package"),
        ("requirements.txt", f"distributed=={OURS}\nzict==3.*\n", "pins no package"),
        ("requirements.txt", f"distributed=={OURS}\n-e .\n", "pins no package"),
        ("requirements.txt", f"distributed=={OURS}\nmine @ file:///home/me/mine\n", "pins no package"),
        ("pylock.toml", "= 1", "is no TOML"),
        ("pylock.toml", pylock(python="<3.9"), "is for Python <3.9"),
        (
            "pylock.toml",
            pylock(more='[[packages]]\nname = "mine"\ndirectory = { path = "." }\n'),
            "mine from elsewhere",
        ),
    ],
)
def test_what_machines_could_not_make_is_refused(tmp_path, name, text, said):
    """Before any call, with the line that is wrong or what is missing."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        read(str(tmp_path / name))


def test_a_file_that_is_not_there_is_named():
    """The error says which."""
    with pytest.raises(ConfigError, match=r"nowhere\.txt"):
        read("nowhere.txt")


FROZEN = """
import sys
from cloudprovider.errors import ConfigError
from cloudprovider.providers._uv_lock import read
sys.path.insert(0, sys.argv[1])
try:
    print(read(None))
except ConfigError as error:
    print("refused:", error)
"""


def frozen(folder):
    done = subprocess.run([sys.executable, "-c", FROZEN, folder], capture_output=True, text=True, check=True)
    return done.stdout


def test_by_default_it_is_this_environment(tmp_path):
    """Each package at its version, without the client itself; what no index has is refused by name."""
    before = frozen(tmp_path)
    for name, version, origin in (
        ("mine", "1.0", '{"dir_info": {"editable": true}}'),
        ("fast", "2.0+cu128", ""),
    ):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        if origin:
            (folder / "direct_url.json").write_text(origin)

    assert f"distributed=={OURS}" in before.splitlines()
    assert "dask-cloud" not in before
    assert "no index has fast, mine as installed here" in frozen(tmp_path)


def test_uv_lock_is_exported(tmp_path, monkeypatch):
    """What a project needs is taken, with hashes, and not the project itself."""
    lock = locked("distributed")
    uv = needs_uv(lock, tmp_path)
    needs = ", ".join(f'"{line}"' for line in lock.split())
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\nversion = "1"\nrequires-python = ">={sys.version_info.major}.'
        f'{sys.version_info.minor}"\ndependencies = [{needs}]\n'
    )
    done = subprocess.run(
        [uv, "lock", "--offline", "--project", tmp_path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"uv's cache does not have what distributed needs: {done.stderr}")
    monkeypatch.setenv("UV", uv)
    found = read(str(tmp_path / "uv.lock"))

    versions = {p["name"]: p["version"] for p in tomllib.loads((tmp_path / "uv.lock").read_text())["package"]}
    assert f"distributed=={OURS} --hash=sha256:" in found
    assert {f"{n}=={v}" for n, v in versions.items() if n != "mine"} == {
        line.split()[0] for line in found.splitlines() if not line.startswith("--")
    }
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="pip install uv"):
        read(str(tmp_path / "uv.lock"))
