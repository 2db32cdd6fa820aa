"""The page *Cloud* of the scheduler's dashboard: what it says, that it lives, and that it harms nobody."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import time
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from browsing import CHROMIUM, chromium
from cloudruntime.boot import Boot, Leases
from cloudruntime.child import Site
from cloudruntime.identity import Identity
from cloudruntime.page import SECTIONS
from cloudruntime.scheduler import Leases as LeasesPlugin
from distributed import Scheduler
from hypothesis import given
from hypothesis import strategies as st
from tornado.httpclient import AsyncHTTPClient

from cloudprovider import ProcessCluster
from cloudprovider.bill import Rate
from cloudprovider.blackbox import Why
from cloudprovider.events import Events, Phase
from cloudprovider.fleet import Fleet
from cloudprovider.provider import Machine, State
from cloudprovider.timeline import Step, Timeline
from cloudprovider.view import ENDED, LIVING, Obituaries, news, view

NOW = 1_800_000_000.0
MACHINE = {
    "id": "m1",
    "role": "worker",
    "state": "running",
    "zone": "z1",
    "kind": "2 vCPU",
    "market": "spot",
    "created": NOW - 90,
    "billed_from": NOW - 80,
    "seen": True,
    "arrived": NOW - 70,
    "ended": None,
    "reason": "",
    "cost": 0.5,
    "per_s": 0.01,
    "priceless": False,
}
WORD = {"id": "m1", "time": NOW, "why": "Worker m1 ran out of memory.", "logs": "Killed"}
#: What a scheduler knows to which no manager has spoken.
ALONE = {
    "words": [],
    "cluster": "mine",
    "lead": "",
    "led": False,
    "since": NOW,
    "told": None,
    "later": 0.0,
    "expires": None,
    "here": {"m1": 2},
    "left": [],
    "leaving": {},
}
TOLD = {
    **ALONE,
    "lead": "me@laptop (process 1)",
    "led": True,
    "told": NOW,
    "later": 10.0,
    "where": "FargateCluster 'mine'",
    "now": NOW,
    "target": 3,
    "spent": 1.5,
    "per_hour": 36.0,
    "priced": True,
    "sums": {"running": 1, "gone": 1},
    "machines": [MACHINE, {**MACHINE, "id": "m0", "state": "gone", "ended": NOW - 60, "per_s": 0.0}],
    "steps": [{"name": "landing", "start": NOW - 100, "end": NOW - 90}],
    "decisions": [{"time": NOW, "phase": "ordered", "message": "Ordered 3 machines.", "machine": None}],
}


class Text(HTMLParser):
    """The words of a page, and its tags."""

    def __init__(self, parts):
        super().__init__()
        self.words, self.tags = "", set()
        self.feed("".join(parts.values()))

    def handle_data(self, data):
        self.words += data + "\n"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def sections(facts):
    """The page's parts as HTML."""
    return {name: draw(facts) for name, draw in SECTIONS.items()}


def shown(facts):
    """What the page says."""
    return Text(sections(facts)).words


def test_it_is_readable_without_data():
    """Where no manager has been, it says so and since when, and shows what the scheduler sees."""
    words = shown(ALONE)

    assert "No manager has been connected since the scheduler started at" in words
    assert "m1" in words
    assert "The scheduler sees no workers." in shown({**ALONE, "here": {}})


def test_amounts_grow_only_while_somebody_leads():
    """Between two words of a manager costs go on by the second; what nobody can know is not guessed."""
    words = shown(TOLD)
    assert "$1.60" in words  # 36 dollars an hour for 10 s more
    assert "$0.6000" in words
    assert "led by me@laptop" in words.lower()

    words = shown({**TOLD, "lead": "", "later": 0.0})
    assert "No manager is connected since" in words
    assert "$1.50" in words


@pytest.mark.parametrize(
    ("state", "seen", "here", "leaving", "said"),
    [
        ("starting", False, {}, {}, "starting"),
        ("running", False, {}, {}, "booting"),
        ("running", True, {"m1": 1}, {}, "working"),
        ("starting", False, {"m1": 1}, {}, "working"),
        ("running", True, {}, {}, "lost"),
        ("running", True, {"m1": 1}, {"m1": "draining"}, "leaving"),
        ("gone", True, {}, {}, "ended"),
    ],
)
def test_a_machines_state_is_what_cloud_and_scheduler_see(state, seen, here, leaving, said):
    """The cloud's word counts until the scheduler knows better."""
    record = {"since": NOW, "reason": "spot", "moved": 1}
    facts = {
        **TOLD,
        "machines": [{**MACHINE, "state": state, "seen": seen}],
        "here": here,
        "leaving": {id: {**record, "state": how} for id, how in leaving.items()},
    }
    assert f'<span class="s {said}">' in sections(facts)["machines"]


def test_last_words_of_managers_and_of_machines_stand_together():
    """What a manager found out counts before what a machine said itself; either has its log."""
    left = [
        {"machine": id, "reason": "scheduler_lost", "time": NOW, "logs": "looked for it"}
        for id in ("m1", "m2")
    ]
    said = shown({**TOLD, "words": [WORD], "left": left})

    assert "m1 ran out of memory" in said
    assert "Killed" in said
    assert "m1 left" not in said
    assert "Worker m2 left: scheduler_lost" in said
    assert "looked for it" in said


def test_machines_that_cannot_all_be_shown_are_counted():
    """A large fleet is cut, and says by how much and where the rest is."""
    said = shown({**TOLD, "sums": {"running": 998, "gone": 2}})
    assert "and 998 more: `dask cloud show mine` lists all" in said


texts = st.sampled_from(["<script>x</script>", '"><img src=x onerror=y>', "&amp;", "plain"])


@given(texts, texts, texts)
def test_what_is_told_is_text(one, two, three):
    """Whatever names, reasons and logs hold, they are words, never markup."""
    machine = {**MACHINE, "id": one, "kind": two, "zone": three, "market": one, "reason": two}
    facts = {
        **TOLD,
        "where": one,
        "lead": two,
        "machines": [machine],
        "decisions": [{"time": NOW, "phase": two, "message": three, "machine": one}],
        "steps": [{"name": one, "start": NOW, "end": None}],
        "words": [{"id": one, "time": NOW, "why": two, "logs": three}],
        "left": [{"machine": three, "reason": one, "time": NOW, "logs": two}],
        "leaving": {one: {"since": NOW, "reason": two, "state": three, "moved": 0}},
    }
    assert not {"script", "img"} & Text(sections(facts)).tags


# -- what a manager tells ------------------------------------------------------------------------------------


def estate_of(events=(), machines=(), ended=()):
    """What a cluster has, with a scheduler and these workers."""
    fleet = Fleet(SimpleNamespace(), SimpleNamespace(), Events())
    fleet.machines, fleet.ended = ({machine.id: machine for machine in some} for some in (machines, ended))
    return SimpleNamespace(
        provider=SimpleNamespace(now=lambda: NOW),
        fleet=fleet,
        events=events or Events(),
        known=lambda: SimpleNamespace(spent=1.0, per_hour=2.0, unknown=()),
        known_rate=lambda _: Rate(per_hour=36.0),
        scheduler=dataclasses.replace(WORKER, id="s", role="scheduler", billed_from=NOW - 10),
        where="EC2Cluster 'big'",
    )


WORKER = Machine(id="w", role="worker", state=State.running, kind="m7i.large", created=NOW - 20)


def test_a_view_of_a_thousand_machines_is_small():
    """It is JSON of at most the machines that a page shows, newer ones among those that ended."""
    live = [dataclasses.replace(WORKER, id=f"i-{k:017}") for k in range(1000)]
    gone = [dataclasses.replace(WORKER, id=f"e-{k:017}", state=State.gone, ended=NOW) for k in range(500)]
    known = view(estate_of((), live, gone), Timeline())

    assert len(json.dumps(known)) < 64_000
    assert (LIVING + ENDED, "e-00000000000000499") == (len(known["machines"]), known["machines"][-1]["id"])
    assert {"running": 1000, "gone": 500} == known["sums"]


def test_a_view_has_what_each_machine_costs():
    """A machine that bills says what it has cost, and costs a second."""
    scheduler, worker = view(estate_of((), [WORKER]), Timeline())["machines"]

    assert (0.1, 0.01) == (pytest.approx(scheduler["cost"]), pytest.approx(scheduler["per_s"]))
    assert 0.2 == pytest.approx(worker["cost"]), "one that runs counts from its order"


@pytest.mark.parametrize("made", [True, False])
def test_only_who_made_a_cluster_tells_of_its_start(made):
    """Who finds it later saw neither its steps nor when its machines came, only that they are there."""
    events = Events()
    ahead = NOW - time.time()
    if made:
        events.emit(Phase.ordered, "Ordering the scheduler.", role="scheduler", count=1)
    events.emit(Phase.arrived, "1 of 1 machines are here.", machine="w", count=1, total=1)
    created = NOW if made else NOW - 1000
    estate = estate_of(events, [dataclasses.replace(WORKER, created=created)])
    start = Timeline(began=NOW - ahead, steps=(Step(name="landing", start=NOW - ahead, end=NOW - ahead),))
    known = view(estate, start)

    [_, worker] = known["machines"]
    assert (made, made) == (bool(known["steps"]), worker["arrived"] is not None)
    assert worker["seen"]


def test_what_only_grows_is_no_news():
    """A second later nothing is told again; when a machine changes it is."""
    later = copy.deepcopy(TOLD) | {"now": NOW + 1, "spent": 1.6}
    later["machines"][0]["cost"] = 0.51
    assert news(TOLD) == news(later)

    later["machines"][0]["state"] = "gone"
    assert news(TOLD) != news(later)


# -- the scheduler's side ------------------------------------------------------------------------------------


def leases() -> LeasesPlugin:
    """What a scheduler's machine keeps."""
    boot = Boot(cluster="mine", role="scheduler", leases=Leases(expires=int(NOW)))
    here = Identity(id="s", address="127.0.0.1")
    return LeasesPlugin(Site(boot=boot, identity=here, keys=None, port=0, front_port=0))


OPTIONS = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}


def told() -> dict:
    """A view, as it comes over a connection."""
    known = {key: value for key, value in TOLD.items() if key not in ALONE}
    return {**copy.deepcopy(known), "words": [WORD]}


async def status(scheduler, path="cloud"):
    """What the dashboard answers."""
    port = scheduler.http_server.port
    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/{path}", raise_error=False)
    return answer.code, answer.body.decode()


async def test_the_page_comes_along_where_the_boot_did_not_bring_it():
    """A scheduler without the page says so, and has it when a manager sends it."""
    plugin = leases()
    async with Scheduler(dashboard=True, plugins=[plugin], **OPTIONS) as scheduler:
        plugin.page = None
        assert not await plugin.cloud_tell(view=told())
        program = (resources.files("cloudruntime") / "page.py").read_text()
        assert await plugin.cloud_tell(view=told(), program=program)
        assert "FargateCluster" in plugin.page.drawn()["head"]
        assert "No manager has been connected" in plugin.page.drawn()["head"]
        code, page = await status(scheduler)
        assert (200, True) == (code, 'href="cloud"' in page)
        assert 'href="cloud"' in (await status(scheduler, "status"))[1]


async def test_the_start_outlives_the_manager_that_saw_it():
    """Who finds the cluster later knows nothing of its start: the scheduler remembers it."""
    plugin = leases()
    async with Scheduler(dashboard=False, plugins=[plugin], **OPTIONS):
        await plugin.cloud_tell(view=told())
        assert "landing" in plugin.page.drawn()["start"]
        later = told() | {"steps": [], "machines": [{**MACHINE, "arrived": None}]}
        await plugin.cloud_tell(view=later)
        assert "landing" in plugin.page.drawn()["start"]
        assert NOW - 70 == plugin.page.view["machines"][0]["arrived"]


async def test_the_page_says_who_leads():
    """Who leads is named while he is heard of; then since when nobody is."""
    plugin, ended = leases(), []
    async with Scheduler(dashboard=False, plugins=[plugin], **OPTIONS):
        await plugin.cloud_renew(SimpleNamespace(closed=lambda: bool(ended)), manager="m", who="me@laptop")
        assert "Led by me@laptop" in plugin.page.drawn()["head"]
        ended.append(True)
        assert "No manager is connected since" in plugin.page.drawn()["head"]


async def test_nothing_about_the_page_breaks_the_scheduler(caplog):
    """A program that fails, a view that makes no sense and a scheduler without a dashboard are survived."""
    plugin = leases()
    async with Scheduler(dashboard=False, plugins=[plugin], **OPTIONS):
        assert await plugin.cloud_tell(view=told())  # kept, although nobody can look
        assert await plugin.cloud_tell(view={"machines": [{"name": "of another version"}]})
        assert "FargateCluster" in plugin.page.drawn()["head"]
        plugin.page.view = {"machines": [{"id": "of another version"}]}
        drawn = plugin.page.drawn()
        assert "This part could not be drawn: KeyError" in drawn["machines"]
        assert "ran out of memory" in drawn["dead"]
        plugin.page.drawn()
        assert 1 == caplog.text.count("The part machines of the page")
        plugin.page = None
        assert not await plugin.cloud_tell(view=told(), program="raise ValueError('of another version')")
        assert "mine" == (await plugin.cloud_status())["cluster"]


def test_a_scheduler_without_bokeh_goes_on():
    """In an image that has no Bokeh there is no page, and everything else."""
    program = """
        import asyncio, sys
        sys.modules["bokeh"] = None
        sys.path.insert(0, "TESTS")
        from test_page import OPTIONS, Scheduler, leases, status, told

        async def main():
            plugin = leases()
            async with Scheduler(dashboard=True, plugins=[plugin], **OPTIONS) as scheduler:
                assert await plugin.cloud_tell(view=told())
                print((await status(scheduler))[0], (await plugin.cloud_status())["cluster"])

        asyncio.run(main())
    """.replace("TESTS", str(Path(__file__).parent))
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert "404 mine\n" == done.stdout, done.stderr


# -- in a browser --------------------------------------------------------------------------------------------


def kill(cluster, machine: str) -> None:
    """End a machine's process as a cloud does that says nothing."""
    record = json.loads(next(cluster.config.root.glob(f"*/machines/{machine}.json")).read_text())
    psutil.Process(record["pid"]).send_signal(signal.SIGKILL)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_the_page_lives_in_a_real_browser(tmp_path):
    """Through the user's own link it shows machines and costs, and by itself what becomes of them, on a phone too."""
    options = {"directory": str(tmp_path / "clusters"), "progress": False, "price": 36.0, "name": "seen"}
    async with (
        ProcessCluster(n_workers=2, asynchronous=True, **options) as cluster,
        chromium(tmp_path / "profile") as browser,
    ):
        await cluster.wait_for_workers(2, timeout=60)
        dies, stays = cluster.fleet.machines
        await browser.open(cluster.dashboard_link)
        await browser.text(until="Cloud")
        await browser.run(
            "[...document.querySelectorAll('.navbar a')].find(a => a.text.trim() == 'Cloud').click()"
        )
        page = await browser.text(until="workers' boot", within=60)
        for word in ("ProcessCluster 'seen'", dies, stays, "spent", "an hour", "workers' boot", "Led by"):
            assert word in page
        assert "last words" not in page

        kill(cluster, dies)
        page = await browser.text(until="last words", within=60)
        assert f"Worker {dies} (process, on-demand, local) ended after" in page
        assert "it was killed by signal 9" in page
        assert f"Lost worker {dies}" in page

        await browser.size(390, 844)
        narrow = (
            "new Promise(d => setInterval(() => document.documentElement.scrollWidth <= 390 && d(true), 100))"
        )
        assert await asyncio.wait_for(browser.run(narrow), 30)


def test_obituaries_are_read_while_the_log_may_grow():
    """The log of a machine that died is asked for until it has its last line, or often enough; returned ones never."""
    gone = Machine(id="m1", role="worker", state=State.gone, ended=NOW)
    back = dataclasses.replace(gone, id="m2", reason="released")
    logs = {"m1": ""}
    asked = []

    def why(id, heard):
        asked.append((id, heard))
        return Why(machine=gone, cause="it ended", logs=logs[id])

    estate = SimpleNamespace(
        fleet=SimpleNamespace(ended={"m1": gone, "m2": back}),
        why=why,
        provider=SimpleNamespace(now=lambda: NOW),
    )
    obituaries = Obituaries(estate, lambda id: f"notice of {id}")
    assert [""] == [word["logs"] for word in obituaries.read()]
    logs["m1"] = "x" * 1000 + "\ndask-cloud-runtime: ended: idle"
    [word] = obituaries.read()
    assert ("m1", 300) == (word["id"], len(word["logs"].splitlines()[0]))
    assert [] == obituaries.read()
    assert [("m1", "notice of m1")] * 2 == asked
