"""The documentation's site builds without a warning, and what its pages tell to type can be typed."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from cloudprovider.cli import cloud

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: What may stand in a block's first line; each is run or checked here or in `test_docs.py`.
LANGUAGES = {
    "",
    "sh",
    "bash",
    "console",
    "python",
    "yaml",
    "json",
    "hcl",
    "{eval-rst}",
    "{literalinclude}",
    "{toctree}",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each fenced block."""
    found = re.findall(r"^ *```([^\n]*)\n(.*?)^ *```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [(head.partition(" ")[0], text) for head, text in found]


def commands() -> list[str]:
    """Every command line that starts with `dask cloud`, of blocks that show what to type."""
    lines = [
        line.strip()
        for page in PAGES
        for language, text in blocks(page)
        if language in {"console", "sh", "bash"}
        for line in text.replace("\\\n", " ").splitlines()
    ]
    typed = [line.removeprefix("$ ").partition("  #")[0].strip() for line in lines]
    return sorted({line for line in typed if line.startswith("dask cloud ")})


def test_the_site_builds_without_a_warning(tmp_path):
    """Each page is on the map, each link leads somewhere, each public docstring is well formed."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-c",
            ROOT / "docs",
            ROOT,
            tmp_path / "site",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "FargateCluster" in (tmp_path / "site" / "docs" / "api.html").read_text("utf-8")


def test_the_tutorial_runs(tmp_path):
    """What the tutorial tells to type, typed into one program, does what it says and leaves nothing."""
    code = "\n".join(text for language, text in blocks(ROOT / "docs" / "tutorial.md") if language == "python")
    program = tmp_path / "tutorial.py"
    program.write_text(code, "utf-8")
    environ = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, env=environ, timeout=240
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert 2 == said.count("332833500")
    assert "45" in said
    assert any("ended after" in line for line in said)
    assert "[]" == said[-1]


@pytest.mark.parametrize("line", commands())
def test_commands_can_be_typed_as_they_stand(line):
    """Each option and argument of a `dask cloud` command in the documentation is one that it has."""
    words = shlex.split(line)[2:]
    while (end := next((k for k, word in enumerate(words) if word in {"|", ">", "&&"}), None)) is not None:
        words = words[:end]
    command: click.Command = cloud
    with click.Context(cloud) as context:
        if words and not words[0].startswith("-"):
            command, words = cloud.get_command(context, words[0]), words[1:]
        assert command is not None
        command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_language_that_is_checked(page):
    """Blocks are code that compiles, YAML that parses, shell that the shell accepts, or commands, or drawings."""
    for language, text in blocks(page):
        assert language in LANGUAGES
        if language == "python":
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
            compile(text, str(page), "exec", flags=flags)
        elif language == "yaml":
            yaml.safe_load(text)
        elif language in {"sh", "bash"}:
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
