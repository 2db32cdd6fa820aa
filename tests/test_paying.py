"""A cluster says what it costs: in its repr, in a notebook, and in a receipt when it is over."""

from __future__ import annotations

import json
import re

import pytest
from browsing import CHROMIUM, chromium
from contract import until

from cloudprovider import CloudError, ConfigError, ProcessCluster
from cloudprovider.bill import Source
from cloudprovider.providers.local import LocalProvider

SAID = r"\$0\.\d+ spent, \$7\.20 an hour now, \$\d\.\d\d of \$9\.00 left"


class Counted(LocalProvider):
    """Counts the calls that ask the cloud."""

    calls = 0

    def describe(self, ids):
        """Describe, and count."""
        self.calls += 1
        return super().describe(ids)


class CountedCluster(ProcessCluster):
    provider_class = Counted


class Stuck(LocalProvider):
    """A cloud that does not let anybody sweep."""

    stuck = True

    def sweep(self, cluster):
        """Refuse, while it is stuck."""
        if self.stuck:
            raise CloudError("The cloud is on holiday.")
        return super().sweep(cluster)


class StuckCluster(ProcessCluster):
    provider_class = Stuck


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return {"progress": False, "price": 3.6, "directory": str(tmp_path_factory.mktemp("machines"))}


@pytest.fixture(scope="module")
def cluster(options):
    with CountedCluster(n_workers=1, budget="9 USD", **options) as cluster:
        yield cluster


def test_repr_says_what_it_costs(cluster):
    """Spent, an hour from now on and what is left of the budget stand in the repr, with the time of it."""
    until(lambda: "$7.20" in repr(cluster), 30, "both machines bill")
    assert re.search(rf"{SAID} at \d\d:\d\d:\d\d UTC\)$", repr(cluster))


def test_nothing_that_is_drawn_asks_the_cloud(cluster):
    """However often it is drawn, the cloud is not called; `cost()` calls it."""
    until(lambda: not cluster.fleet.waiting, 30, "nothing is under way")
    before = cluster.provider.calls
    for _ in range(20):
        assert repr(cluster)
        assert cluster._repr_html_()
        assert cluster._drawn()
    assert before == cluster.provider.calls
    assert cluster.cost().spent > 0
    assert before < cluster.provider.calls


def test_what_is_known_is_what_the_cloud_says(cluster):
    """What is drawn is no more than the cloud says a moment later, and not much less."""
    known, asked = cluster.estate.known(), cluster.cost()
    assert known.spent <= asked.spent + 0.002
    assert known.per_hour == asked.per_hour


def test_widget_has_costs_and_start(cluster):
    """The widget has a tab for each and one line under all, which changes while the cluster runs."""
    box = cluster._widget()
    tab, line = box.children
    assert ["Status", "Scaling", "Cost", "Start"] == list(tab.titles)
    assert "scheduler&#x27;s boot" in tab.children[3].value
    assert re.match(rf"{SAID}, as of ", line.value)
    assert "Scheduler Info" in tab.children[0].value
    before = line.value
    until(lambda: before != line.value, 30, "it is drawn again")
    assert box is cluster._widget()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
async def test_page_without_widgets(cluster, tmp_path):
    """Where there are no widgets a browser shows the same: costs and start, each to be opened, at phone width too."""
    page = tmp_path / "cluster.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{cluster._repr_html_()}", "utf-8")
    async with chromium(tmp_path / "profile") as browser:
        await browser.open(page.as_uri())
        text = await browser.text(until="9.00")
        assert await browser.run("document.querySelectorAll('details').length") >= 3
        receipt = cluster.cost().save(tmp_path / "receipt.html")
        await browser.open(receipt.as_uri())
        said = await browser.text(until="an hour")
        wide = await browser.run(
            "(document.body.style.width = '320px', document.documentElement.scrollWidth <= innerWidth)"
        )
    assert "Spent:" in text
    assert "of $9.00" in text
    assert "Bill of CountedCluster" in said
    assert wide


def test_receipt_is_kept_on_close(options, tmp_path):
    """A closed cluster's receipt is in the file that was asked for, and is what `cost()` says from then on."""
    wanted = tmp_path / "costs" / "{name}.json"
    with ProcessCluster(name="kept", receipt=str(wanted), budget=5, **options) as cluster:
        pass
    kept = json.loads((tmp_path / "costs" / "kept.json").read_text())
    assert cluster.cost().spent == kept["spent"] > 0
    assert 0 == kept["per_hour"] == kept["lines"][0]["billing"]
    assert "Receipt of ProcessCluster 'kept'" == kept["title"]
    assert pytest.approx(5 - kept["spent"]) == kept["left"]


def test_receipt_of_a_close_that_failed(options, tmp_path):
    """When closing fails half way, the receipt is kept and says that machines may still bill."""
    file = tmp_path / "failed.txt"
    cluster = StuckCluster(name="stuck", receipt=str(file), **options)
    with pytest.raises(CloudError, match="on holiday"):
        cluster.close()
    said = " ".join(file.read_text().split())
    assert "Closing did not end well, and machines may still bill: The cloud is on holiday." in said
    assert "Bill of StuckCluster 'stuck'" in said
    cluster.provider.stuck = False
    cluster.estate.remove()


def test_receipt_of_a_cluster_that_stays(options, tmp_path):
    """A cluster that is left running says in its receipt that it goes on."""
    file = tmp_path / "left.html"
    cluster = ProcessCluster(name="left", receipt=str(file), **options)
    cluster.detach()
    assert "The cluster was left running" in file.read_text()
    with ProcessCluster.from_name("left", **options):
        pass


def test_receipt_that_cannot_be_written_is_no_error(options, tmp_path, caplog):
    """Closing goes on, and says what became of the receipt."""
    (tmp_path / "file").touch()
    with ProcessCluster(receipt=str(tmp_path / "file" / "receipt.txt"), **options):
        pass
    assert "was not written" in caplog.text


def test_receipt_of_another_kind_is_refused(tmp_path):
    """An ending that is none of the three is an error before any call."""
    with pytest.raises(ConfigError, match=r"receipt='costs\.pdf' must end with one of \.txt, \.json, \.html"):
        ProcessCluster(receipt="costs.pdf", directory=str(tmp_path))


@pytest.mark.parametrize(("days", "said"), [(0, ""), (365, ""), (366, "366 days old, of 2026-01-01")])
def test_stale_prices_say_their_date(days, said):
    """A table that is older than a year says so, and how old it is."""
    day = 24 * 3600
    source = Source(name="Moon", date="2026-01-01")
    found = source.stale(1_767_225_600 + days * day + 3600)
    assert said in found
    assert bool(said) == bool(found)
