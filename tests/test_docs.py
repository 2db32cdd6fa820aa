"""The documentation says what is so: options, keywords, commands, error texts, links, the README's two commands."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from cloudprovider.cli import COMMANDS
from cloudprovider.compat import SHARED, TABLES
from cloudprovider.config import Config
from cloudprovider.prices import dated, fargate_rate
from cloudprovider.providers._ecs_config import SIZES, ECSConfig, FargateConfig
from cloudprovider.providers.local import LocalConfig

ROOT = Path(__file__).parent.parent
FOLDERS = ("", "docs", "docs/adr", "examples", "benchmarks", "runtime")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
#: Pages that say how it is, not how it was or will be.
GUIDES = [page for page in PAGES if "adr" not in page.parts and page.name != "CHANGELOG.md"]
CONFIGS = {"FargateCluster": FargateConfig, "ECSCluster": ECSConfig, "ProcessCluster": LocalConfig}
TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST


def id_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def written() -> set[str]:
    """Every text in the source, with implicit concatenation joined and one … for what is filled in."""
    texts: set[str] = set()
    for folder in ("cloudprovider", "runtime/cloudruntime"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.add(node.value.lower())
                elif isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    texts.add("".join(map(str, parts)).lower())
    return texts


@pytest.fixture(scope="module")
def generator():
    """`docs/generate_options.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location("generate_options", ROOT / "docs" / "generate_options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_options_page_is_up_to_date(generator):
    """`docs/options.md` is what `docs/generate_options.py` writes."""
    assert generator.generated() == generator.TARGET.read_text("utf-8"), "run docs/generate_options.py"


@pytest.mark.parametrize("config", [Config, *CONFIGS.values()])
def test_every_option_is_described(generator, config):
    """No option is without its sentence, and no sentence without its option."""
    texts = {name: text for cls in config.__mro__ for name, text in generator.described_by(cls).items()}
    assert {field.name for field in dataclasses.fields(config)} == set(texts)
    assert all(texts.values())


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_relative_links_lead_somewhere(page):
    """Each relative link's file exists, and so does the heading it names."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", text):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("page", GUIDES, ids=id_of)
def test_code_in_the_documentation_has_only_options_there_are(page):
    """Python blocks are Python, and the keywords of clusters in them are options."""
    for block in blocks(page, "python"):
        tree = compile(block, str(page), "exec", flags=TOP_LEVEL_AWAIT)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            config = CONFIGS.get(getattr(call.func, "id", ""))
            if config is not None:
                known = {field.name for field in dataclasses.fields(config)} | {"asynchronous", "loop"}
                assert set() == {keyword.arg for keyword in call.keywords} - known


@pytest.mark.parametrize("page", GUIDES, ids=id_of)
def test_commands_in_the_documentation_exist(page):
    """What is written after `dask cloud` is one of its commands."""
    named = set(re.findall(r"\bdask cloud ([a-z]+)", page.read_text("utf-8")))
    assert set() == named - set(COMMANDS)


def test_every_page_of_the_documentation_is_on_the_map():
    """`docs/index.md` leads to each page."""
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert set() == {page for page in pages if f"]({page}" not in index}


def test_every_keyword_of_dask_cloudprovider_is_in_the_guide():
    """`docs/migrating.md` says what becomes of each keyword that `compat` knows."""
    guide = (ROOT / "docs" / "migrating.md").read_text("utf-8")
    known = {name for table in (*TABLES.values(), SHARED) for name in table}
    assert set() == {name for name in known if not re.search(rf"`{name}\b", guide)}


def test_errors_in_the_guide_are_errors_there_are():
    """What the table of errors quotes is in the source, and its kinds are in the tree."""
    guide = (ROOT / "docs" / "fargate.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)`[^:|]*: ([^|]+)\|", guide, re.MULTILINE)
    assert len(rows) > 20
    errors = importlib.import_module("cloudprovider.errors")
    texts = written()
    for kind, quotes in rows:
        assert hasattr(errors, kind)
        for quote in re.findall(r"\*([^*]+)\*", quotes):
            pieces = [piece.strip().lower() for piece in re.split(r"…|\b\d+\b", quote) if piece.strip()]
            assert all(any(piece in text for text in texts) for piece in pieces), quote


def test_sizes_in_the_guide_are_fargate_s():
    """The guide's table of sizes has Fargate's, as the options are checked against them."""
    guide = (ROOT / "docs" / "fargate.md").read_text("utf-8")
    found = re.findall(
        r"^\| ([\d.]+) \| (?:.+, )?([\d.]+)(?: to (\d+))?(?:, in steps of \d)? \|$", guide, re.MULTILINE
    )
    assert {cpu / 1024: max(memory) / 1024 for cpu, memory in SIZES.items()} == {
        float(cpu): float(most or least) for cpu, least, most in found
    }


def test_the_readme_begins_with_two_commands():
    """The first `sh` block runs the demo and the second the tests, each by one line."""
    demo, tests = blocks(ROOT / "README.md", "sh")[:2]
    assert 1 == demo.count("\n") == tests.count("\n")
    assert demo.endswith("dask cloud demo\n")
    assert " pytest -q " in tests


def test_prices_in_the_guide_are_the_price_table_s():
    """The guide's costs of an hour are what the dated price table says for us-east-1."""
    guide = (ROOT / "docs" / "fargate.md").read_text("utf-8")
    assert dated("fargate") in guide
    rows = re.findall(
        r"^\| (\d) vCPU, (\d+) GiB[^|]* \| \$([\d.]+) \| \$([\d.]+) \| \$([\d.]+) \| \$([\d.]+) \|$",
        guide,
        re.MULTILINE,
    )
    assert 3 == len(rows)
    choices = [(a, m) for a in ("X86_64", "ARM64") for m in ("on-demand", "spot")]
    for cpu, memory, *prices in rows:
        size = float(cpu), float(memory)
        rates = [fargate_rate("us-east-1", *choice, *size, public=True).per_hour for choice in choices]
        assert [f"{rate:.3f}" for rate in rates] == prices
