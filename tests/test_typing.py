"""The public names are typed, and the marker that says so is there."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("package", ["cloudprovider", "cloudruntime"])
def test_packages_say_that_they_are_typed(package):
    """Type checkers read our annotations."""
    assert resources.files(package).joinpath("py.typed").is_file()


def test_what_type_checkers_see():
    """Mypy agrees with each line of the typed-API test."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "tests/typing/api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
