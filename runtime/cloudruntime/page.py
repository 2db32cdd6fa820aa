"""The page *Cloud* of the scheduler's dashboard: what a manager told, and what the scheduler itself knows.

A manager tells by `cloud_tell` (see `cloudprovider.view`); what is told is JSON:

`where`, `now`, `target`, `spent`, `per_hour`, `priced`, `sums`
    What managers call the cluster, the cloud's clock, machines wanted, dollars (None when unknown), whether
    anything costs anything, and how many machines there are by state.
`machines`
    Records with `id`, `role`, `state`, `zone`, `kind`, `market`, `created`, `billed_from`, `arrived`, `ended`,
    `reason`, whether Dask has `seen` it, `cost` (None when not known yet, or `priceless`), and `per_s` while it bills; no more than a page
    can show.
`steps`
    Of the start: `name`, `start` and `end`, which is None while it is under way.
`decisions`
    What the fleet did and why: `time`, `phase`, `message`.
`words`
    What is said of machines that died since the last time: `id`, `time`, `why`, `logs`.

This program is too long for a boot that brings the runtime along: then it comes with the first manager. Whatever
fails here is logged, and fails nobody else.
"""

from __future__ import annotations

import functools
import html
import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cloudruntime.scheduler import Leases

    #: A row of a chart: its label, its bars as (start, end, class) in seconds, and what stands behind them.
    Row = tuple[str, Sequence[tuple[float, float, str]], str]

__all__ = ["CSS", "SECTIONS", "Page", "chart"]

logger = logging.getLogger("distributed.scheduler")

#: Of dead machines, the last so many are kept, and so much of what is said of one.
DEAD, LONGEST = 50, 20_000
#: Machines whose start is drawn.
DRAWN = 40
#: Milliseconds between two looks of an open page.
LOOK_MS = 2000
MINUTE, HOUR, DAY = 60, 3600, 86_400
INTERRUPTIONS = ("notice", "drained")

CSS = """
:host, .cloud { font: 14px/1.45 Helvetica, Arial, sans-serif; color: #333; }
.bk-clearfix { display: block !important; width: 100%; }
h2 { font-size: 15px; margin: 18px 0 6px; color: #222; }
h2 small { font-weight: normal; color: #666; margin-left: 6px; }
p { margin: 4px 0; max-width: 80em; overflow-wrap: anywhere; }
.note { color: #666; }
.warn { border-left: 4px solid #eaaa6d; background: #fdf3e9; padding: 6px 10px; }
.tiles { display: flex; flex-wrap: wrap; gap: 8px; margin: 6px 0; }
.tile { background: #fff; border: 1px solid #ddd; padding: 8px 14px; min-width: 110px; }
.tile b { display: block; font-size: 20px; color: #222; }
.tile span { color: #666; font-size: 12px; }
table { border-collapse: collapse; width: 100%; background: #fff; border: 1px solid #ddd; }
th { text-align: left; font-weight: bold; color: #555; background: #eee; padding: 5px 8px; white-space: nowrap; }
td { padding: 4px 8px; border-top: 1px solid #e5e5e5; vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.p { white-space: nowrap; }
td.t { white-space: nowrap; font-variant-numeric: tabular-nums; color: #555; }
.id, pre { font-family: "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: 12px; }
.s { display: inline-block; padding: 0 7px; border-radius: 9px; background: #eee; white-space: nowrap; }
.s.working, .s.running { background: #d3ebcd; }
.s.starting, .s.booting { background: #d6e6f4; }
.s.leaving { background: #fbdfc0; }
.s.lost { background: #f6cdc8; }
.chart { background: #fff; border: 1px solid #ddd; padding: 6px 10px; }
.line { display: grid; grid-template-columns: minmax(90px, 190px) 1fr 64px; gap: 8px; align-items: center; }
.line .l { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.line .r { text-align: right; color: #555; white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 12px; background: #f3f3f3; }
.bar { position: absolute; top: 0; bottom: 0; min-width: 2px; background: #eaaa6d; }
.bar.wait { background: #c9d7e3; } .bar.boot { background: #6ba3d0; } .bar.gone { background: #d98a80; }
.key { margin-top: 6px; color: #666; font-size: 12px; } .key i { display: inline-block; width: 12px; height: 10px;
  margin: 0 4px 0 12px; } .key i:first-child { margin-left: 0; }
details { background: #fff; border: 1px solid #ddd; border-top: 0; padding: 5px 10px; }
details:first-of-type { border-top: 1px solid #ddd; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { margin: 6px 0; padding: 8px; background: #f6f6f6; overflow: auto; max-height: 320px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media (max-width: 640px) {
  table, tbody { display: block; }
  thead { display: none; }
  tr { display: grid; grid-template-columns: 1fr 1fr; gap: 0 10px; padding: 6px 8px; border-top: 1px solid #ddd; }
  tr:first-child { border-top: 0; }
  td { border: 0; padding: 1px 0; }
  td.n { text-align: left; }
  td.w { grid-column: 1 / -1; }
  td:empty { display: none; }
  td[data-h]::before { content: attr(data-h) " "; color: #777; }
  .tile { flex: 1 1 40%; min-width: 0; padding: 6px 10px; }
  .line { grid-template-columns: 92px 1fr 54px; }
}
"""


class Page:
    """What the page shows, and the page; it is not there where the image has no Bokeh.

    Parameters
    ----------
    leases
        What the scheduler's machine knows by itself.
    """

    def __init__(self, leases: Leases) -> None:
        self.leases = leases
        self.view: dict[str, Any] = {}
        self.words: dict[str, dict[str, Any]] = {}
        self._told = 0.0  # monotonic
        #: What only the manager knew that made the cluster: its start, and when machines came.
        self._steps: Sequence[dict[str, Any]] = ()
        self._arrived: dict[str, float | None] = {}
        self._failed: dict[str, str] = {}
        leases.scheduler.handlers["cloud_status"] = self.status
        try:
            _install(self)
        except Exception as error:  # noqa: BLE001  (a page is no reason to fail)
            logger.info("The dashboard has no page of the cloud: %s: %s", type(error).__name__, error)

    def tell(self, view: dict[str, Any]) -> None:
        """Take in what a manager knows."""
        try:
            self._take_in(view)
        except Exception as error:  # noqa: BLE001  (a manager of another version)
            self._failure("view", error)

    def _take_in(self, view: dict[str, Any]) -> None:
        for word in view.pop("words", ()):
            self.words[word["id"]] = {**word, "logs": str(word.get("logs", ""))[-LONGEST:]}
        for id in list(self.words)[:-DEAD]:
            del self.words[id]
        for machine in view["machines"]:
            machine["arrived"] = machine["arrived"] or self._arrived.get(machine["id"])
        self._arrived = {machine["id"]: machine["arrived"] for machine in view["machines"]}
        self._steps = view["steps"] or self._steps
        self.view, self._told = view, time.monotonic()

    async def status(self) -> dict[str, Any]:
        """What `cloud_status` says without a page, and in `view` all that is shown."""
        known = await self.leases.cloud_status()
        try:
            return {**known, "view": self.facts()}
        except Exception as error:  # noqa: BLE001  (who asks for the leases is to hear of them)
            self._failure("status", error)
            return known

    def facts(self) -> dict[str, Any]:
        """All that is shown: what was told, and what the scheduler knows at this moment."""
        leases, now = self.leases, time.monotonic()
        lead, words = leases.lead, dict(leases.words)
        since = time.time() - (now - lead.said) if lead else leases.started
        return {
            **self.view,
            "steps": self._steps,
            "words": list(self.words.values()),
            "cluster": leases.site.boot.cluster,
            "lead": lead.who if lead and not lead.over else "",
            "led": lead is not None,
            "since": since,
            "told": time.time() - (now - self._told) if self.view else None,
            "later": now - self._told if lead and not lead.over else 0.0,
            "expires": leases.site.boot.leases.expires,
            "here": _workers(leases, [machine["id"] for machine in self.view.get("machines", ())]),
            "left": [{**said, "logs": words.get(said["machine"], "")} for said in list(leases.left)[-DEAD:]],
            "leaving": leases.leavers.records(),
        }

    def drawn(self) -> dict[str, str]:
        """The sections of the page as HTML; one that fails says so, and is logged once."""
        try:
            facts = self.facts()
        except Exception as error:  # noqa: BLE001
            return {"head": self._failure("head", error)}
        return {name: self._drawn(name, facts) for name in SECTIONS}

    def _drawn(self, name: str, facts: Mapping[str, Any]) -> str:
        try:
            return SECTIONS[name](facts)
        except Exception as error:  # noqa: BLE001
            return self._failure(name, error)

    def _failure(self, name: str, error: Exception) -> str:
        failed = f"{type(error).__name__}: {error}"
        if self._failed.get(name) != failed:
            self._failed[name] = failed
            logger.error("The part %s of the page of the cloud could not be drawn", name, exc_info=error)
        return f"<p class=warn>This part could not be drawn: {_text(failed)}</p>"


def _workers(leases: Leases, machines: Iterable[str]) -> dict[str, int]:
    """How many workers the scheduler sees of each machine."""
    from cloudruntime.leaving import machine_of

    known, here = set(machines), dict[str, int]()
    for ws in leases.scheduler.workers.values():
        id = machine_of(ws.name, known) or str(ws.name)
        here[id] = here.get(id, 0) + 1
    return here


def _install(page: Page) -> None:
    """Serve the page beside the dashboard's others, and name it in their navigation bar."""
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    scheduler = page.leases.scheduler
    variables = template_variables(scheduler)  # one for all pages: distributed remembers it
    first = next(iter(scheduler.http_application.applications), None)
    if first is None:
        raise LookupError("the scheduler has no dashboard")
    served = BokehApplication(
        {"/cloud": functools.partial(_document, page)},
        scheduler,
        prefix=getattr(first, "prefix", ""),
        template_variables=variables,
    )
    scheduler.http_application.add_application(served)
    served.initialize(IOLoop.current())
    served.start()
    pages = variables["pages"]
    if "cloud" not in pages:
        pages.insert(pages.index("info") if "info" in pages else len(pages), "cloud")


def _document(page: Page, _scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    """One browser's page."""
    from distributed.dashboard.components import add_periodic_callback
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    shown = _Shown(page)
    add_periodic_callback(doc, shown, LOOK_MS)
    doc.title = "Dask: Cloud"
    doc.add_root(shown.root)
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


class _Shown:
    """The models of one browser's page: a section is sent again only when it changes."""

    def __init__(self, page: Page) -> None:
        from bokeh.layouts import column
        from bokeh.models import Div, InlineStyleSheet

        self.page = page
        wide: dict[str, Any] = {"sizing_mode": "stretch_width"}
        self.parts = {
            name: Div(text="", stylesheets=[InlineStyleSheet(css=CSS)], **wide) for name in SECTIONS
        }
        self.root = column(*self.parts.values(), **wide)
        self.update()

    def update(self) -> None:
        """Show what is known now."""
        drawn = self.page.drawn()
        for name, part in self.parts.items():
            part.text = drawn.get(name, "")


# -- drawing: from facts to HTML, without a look at anything else -----------------------------------------


def _head(facts: Mapping[str, Any]) -> str:
    title = f"<h2>{_text(facts.get('where') or facts['cluster'])}</h2>"
    return title + _tiles(facts) + _leader(facts)


def _tiles(facts: Mapping[str, Any]) -> str:
    sums, here = facts.get("sums", {}), facts["here"]
    tiles = [(str(sum(here.values())), "workers here")]
    if facts["told"] is not None:
        there = f"{sums.get('running', 0) + sums.get('starting', 0)} of {facts['target']}"
        tiles.append((there, "worker machines"))
        tiles.append((str(sums.get("gone", 0)), "have ended"))
    if facts.get("priced"):
        spent, per_hour = facts["spent"], facts["per_hour"]
        tiles.append((_dollars(_later(spent, (per_hour or 0) / HOUR, facts)), "spent"))
        tiles.append((_dollars(per_hour), "an hour"))
    if facts["expires"]:
        tiles.append((_moment(facts["expires"]), "its end at the latest"))
    shown = "".join(f"<div class=tile><b>{_text(b)}</b><span>{_text(s)}</span></div>" for b, s in tiles)
    return f"<div class=tiles>{shown}</div>"


def _leader(facts: Mapping[str, Any]) -> str:
    if facts["lead"]:
        if facts["told"] is None:
            return f"<p class=note>Led by {_text(facts['lead'])}, which has told nothing yet.</p>"
        return f"<p class=note>Led by {_text(facts['lead'])}. Times are UTC.</p>"
    since = _moment(facts["since"])
    if not facts["led"]:
        said = f"No manager has been connected since the scheduler started at {since}."
    else:
        said = f"No manager is connected since {since}."
    if facts["told"] is None:
        said += (
            " Machines, costs and decisions are shown when one is; what the scheduler sees itself is below."
        )
    else:
        said += f" What it told last, at {_moment(facts['told'])}, is below; machines go on until their leases end."
    return f"<p class=warn>{said} Times are UTC.</p>"


def _machines(facts: Mapping[str, Any]) -> str:
    here, leaving = facts["here"], facts["leaving"]
    machines = facts.get("machines", ())
    if not machines:
        seen = [(id, "working", "", "", "", "", str(count), "") for id, count in sorted(here.items())]
        if not seen:
            return "<h2>Machines</h2><p class=note>The scheduler sees no workers.</p>"
        return "<h2>Machines <small>as the scheduler sees them</small></h2>" + _machine_table(seen)
    live = [machine for machine in machines if machine["state"] != "gone"]
    ended = [machine for machine in machines if machine["state"] == "gone"]
    rows = [_machine(machine, facts, here, leaving) for machine in (*live, *ended)]
    sums = facts["sums"]
    hidden = sum(sums.values()) - len(rows)
    more = (
        f" <small>and {hidden} more: `dask cloud show {facts['cluster']}` lists all</small>"
        if hidden > 0
        else ""
    )
    return f"<h2>Machines{more}</h2>" + _machine_table(rows)


HEADINGS = ("machine", "state", "kind", "market", "zone", "age", "workers", "cost")


def _machine(
    machine: Mapping[str, Any], facts: Mapping[str, Any], here: Mapping[str, int], leaving: Mapping[str, Any]
) -> tuple[str, ...]:
    id, role = machine["id"], machine["role"]
    now = facts["now"] + facts["later"]
    end = machine["ended"] or now
    age = _span(end - machine["created"]) if machine["created"] else ""
    known = machine["cost"] is not None or machine["priceless"]
    cost = _dollars(_later(machine["cost"], machine["per_s"], facts)) if facts.get("priced") and known else ""
    return (
        f"{id} (scheduler)" if role == "scheduler" else id,
        _state(machine, here, leaving),
        machine["kind"],
        machine["market"],
        machine["zone"] or "",
        age,
        str(here.get(id, "")),
        cost,
    )


def _state(machine: Mapping[str, Any], here: Mapping[str, int], leaving: Mapping[str, Any]) -> str:
    """What a machine does, by the cloud's word and by the scheduler's own eyes."""
    id, state = machine["id"], str(machine["state"])
    if state == "gone":
        return "ended"
    if leaving.get(id, {}).get("state") == "draining":
        return "leaving"
    if machine["role"] == "scheduler" or id in here:
        return "working"
    if machine["seen"]:
        return "lost"
    return "booting" if state == "running" else state


def _machine_table(rows: Iterable[Sequence[str]]) -> str:
    heads = "".join(f"<th{' class=n' if h in NUMBERS else ''}>{h}</th>" for h in HEADINGS)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(map(_machine_row, rows))}</tbody></table>"


NUMBERS = ("age", "workers", "cost")


def _machine_row(row: Sequence[str]) -> str:
    cells = []
    for heading, text in zip(HEADINGS, row, strict=True):
        value = _text(text)
        if heading == "state":
            value = f'<span class="s {value}">{value}</span>'
        kind = {"machine": "id w"}.get(heading, "n" if heading in NUMBERS else "")
        label = f' data-h="{heading}"' if value and heading in NUMBERS else ""
        cells.append(f'<td class="{kind}"{label}>{value}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _start(facts: Mapping[str, Any]) -> str:
    """Which second of the start went where, by step and by machine."""
    steps = facts.get("steps", ())
    machines = sorted(
        (m for m in facts.get("machines", ()) if m["created"]), key=lambda machine: float(machine["created"])
    )
    if not steps:
        return ""
    began, now = min(step["start"] for step in steps), facts["now"] + facts["later"]
    rows: list[Row] = [
        (
            step["name"],
            [(step["start"] - began, (step["end"] or now) - began, "")],
            _took(step["start"], step["end"]),
        )
        for step in steps
    ]
    ends = [step["end"] or now for step in steps]
    took = "under way" if any(step["end"] is None for step in steps) else f"{max(ends) - began:.1f} s"
    first = [m for m in machines if began - 1 <= m["created"] <= max(ends)][:DRAWN]
    rows += [_boot(machine, began, now) for machine in first]
    key = '<div class=key><i class="bar wait" style="position:static"></i>ordered, waits for the cloud'
    key += '<i class="bar boot" style="position:static"></i>boots, until Dask sees it'
    key += '<i class="bar gone" style="position:static"></i>ended before</div>'
    return f"<h2>Start <small>{took}</small></h2><div class=chart>{chart(rows)}{key if first else ''}</div>"


def _boot(machine: Mapping[str, Any], began: float, now: float) -> Row:
    """The row of one machine: when it was ordered, when it began to bill, when Dask saw it."""
    ordered, arrived, ended = machine["created"], machine["arrived"], machine["ended"]
    if machine["state"] == "gone" and not arrived:
        end, kind = ended or now, "gone"
    else:
        end, kind = arrived or now, "boot"
    started = min(max(machine["billed_from"] or end, ordered), end)
    bars = [(ordered - began, started - began, "wait"), (started - began, end - began, kind)]
    name = "scheduler" if machine["role"] == "scheduler" else str(machine["id"])
    return name, [bar for bar in bars if bar[1] > bar[0]], _took(ordered, end if arrived else None)


def _took(start: float, end: float | None) -> str:
    return "…" if end is None else f"{end - start:.1f} s"


def chart(rows: Sequence[Row]) -> str:
    """Bars over one axis of time, as HTML for a page with `CSS`."""
    length = max((end for _, bars, _ in rows for _, end, _ in bars), default=0.0) or 1.0
    lines = []
    for label, bars, behind in rows:
        drawn = "".join(
            f'<div class="bar {kind}" style="left:{max(start, 0) / length:.2%};'
            f'width:{max(end - max(start, 0), 0) / length:.2%}"></div>'
            for start, end, kind in bars
        )
        lines.append(
            f'<div class=line><div class=l title="{_text(label)}">{_text(label)}</div>'
            f"<div class=track>{drawn}</div><div class=r>{_text(behind)}</div></div>"
        )
    return "".join(lines)


def _interruptions(facts: Mapping[str, Any]) -> str:
    """Notices: as the scheduler heard them itself, and as managers told of them."""
    told = [event for event in facts.get("decisions", ()) if event["phase"] in INTERRUPTIONS]
    said = {event["machine"]: event["message"] for event in told if event["phase"] == "notice"}
    known = facts["leaving"]
    rows = [
        (record["since"], said.get(id) or f"{id}: {record['reason']}.", _became(record))
        for id, record in known.items()
    ]
    rows += [(event["time"], event["message"], "") for event in told if event["machine"] not in known]
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td class=t>{_moment(when)}</td><td class=w>{_text(what)}</td><td class=w>{_text(became)}</td></tr>"
        for when, what, became in sorted(rows, key=lambda row: -float(row[0]))[:DEAD]
    )
    return f"<h2>Interruptions</h2><table><tbody>{cells}</tbody></table>"


def _became(record: Mapping[str, Any]) -> str:
    """How far a machine with a notice was emptied."""
    said = f"{record['state']}, {record['moved']} results moved"
    return f"{said}, {record['lost_count']} lost" if record.get("lost_count") else said


def _decisions(facts: Mapping[str, Any]) -> str:
    decisions = [event for event in facts.get("decisions", ()) if event["phase"] not in INTERRUPTIONS]
    if not decisions:
        return ""
    rows = "".join(
        f"<tr><td class=t>{_moment(event['time'])}</td><td class=p>{_text(event['phase'])}</td>"
        f"<td class=w>{_text(event['message'])}</td></tr>"
        for event in reversed(decisions)
    )
    heads = "<thead><tr><th>when</th><th>what</th><th>why</th></tr></thead>"
    return f"<h2>Decisions</h2><table>{heads}<tbody>{rows}</tbody></table>"


def _dead(facts: Mapping[str, Any]) -> str:
    """Machines that died, with their last words: of managers' knowledge, else as they said good-bye themselves."""
    words = {word["id"]: word for word in facts["words"]}
    for said in facts["left"]:
        own = {"id": said["machine"], "time": said["time"], "logs": said.get("logs", "")}
        words.setdefault(said["machine"], {**own, "why": f"Worker {said['machine']} left: {said['reason']}."})
    if not words:
        return ""
    last = sorted(words.values(), key=lambda word: -float(word["time"]))[:DEAD]
    return "<h2>Machines that died, and their last words</h2>" + "".join(map(_word, last))


def _word(word: Mapping[str, Any]) -> str:
    logs = str(word["logs"]).strip("\n")
    body = f"<pre>{_text(logs)}</pre>" if logs else "<p class=note>Its log is empty, or is gone with it.</p>"
    return f"<details><summary>{_moment(word['time'])} {_text(word['why'])}</summary>{body}</details>"


def _later(dollars: float | None, per_s: float, facts: Mapping[str, Any]) -> float | None:
    """An amount as it must be by now, while somebody leads who would tell of anything else."""
    return None if dollars is None else dollars + per_s * facts["later"]


def _dollars(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def _span(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < DAY else f"{seconds / DAY:.1f} days"


def _moment(epoch: float) -> str:
    """A moment in UTC; with its day when that is not today."""
    then, today = time.gmtime(epoch), time.gmtime()
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%d %b %H:%M", then)


def _text(value: object) -> str:
    return html.escape(str(value))


#: The sections of the page, in their order: each draws facts as HTML.
SECTIONS = {
    "head": _head,
    "machines": _machines,
    "start": _start,
    "interruptions": _interruptions,
    "decisions": _decisions,
    "dead": _dead,
}
