"""What the user sees while a cluster starts."""

from __future__ import annotations

import io
import logging
import os
import pty
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from cloudprovider.events import Events, Phase
from cloudprovider.progress import Progress, shown

TITLE = "FargateCluster 'x'"


def a_start(events, arrived=10):
    """What a cluster of ten workers tells of its start."""
    events.emit(Phase.landing, "Preparing.")
    events.emit(Phase.ordered, "Ordering the scheduler.", role="scheduler", count=1)
    events.emit(Phase.placed, "The scheduler has an address.", role="scheduler", machine="s")
    events.emit(Phase.ordered, "Ordered 10 machines (spot).", role="worker", count=10, total=10)
    events.emit(Phase.connected, "The scheduler answers.", machine="s")
    for count in range(1, arrived + 1):
        events.emit(
            Phase.arrived, f"{count} of 10 machines are here.", count=count, total=10, machine=str(count)
        )


@pytest.fixture
def terminal():
    """A terminal of 100 columns that remembers what was written to it."""
    return Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)


def test_the_last_line_says_how_many_in_how_long(terminal):
    """What stays on the screen is one line."""
    events = Events()
    with shown(events, title=TITLE, console=terminal):
        a_start(events)

    last = terminal.file.getvalue().splitlines()[-1]
    assert last.endswith(" s")
    assert f"{TITLE}: 10 of 10 workers in " in last


def test_the_last_line_says_where_machines_come_from(terminal):
    """Market, type and zone of all that was ordered, in however many orders."""
    events = Events()
    with shown(events, title=TITLE, console=terminal) as progress:
        a_start(events)
        for pools in ({"spot m7i.large in us-east-1a": 5}, {"on-demand m7i.large in us-east-1a": 3}):
            events.emit(Phase.ordered, "Ordered.", role="worker", count=5, total=10, pools=pools)

    where = "5 spot m7i.large in us-east-1a, 3 on-demand m7i.large in us-east-1a"
    assert terminal.file.getvalue().rstrip().endswith(f" s ({where})")
    assert [where] == [
        detail.rpartition(", ")[0] for _, name, detail in progress.rows() if name == "workers' order"
    ]


def test_the_terminal_shows_steps_and_counts(terminal):
    """While it runs, each step and the number of workers are to be seen."""
    events = Events()
    with shown(events, title=TITLE, console=terminal):
        a_start(events, arrived=3)
        time.sleep(0.5)  # two frames

    drawn = terminal.file.getvalue()
    assert f"{TITLE} starts" in drawn
    assert "scheduler's boot" in drawn
    assert "3 of 10, " in drawn


def test_a_start_of_no_workers(terminal):
    """Without workers the line is about the scheduler."""
    events = Events()
    with shown(events, title=TITLE, console=terminal):
        events.emit(Phase.connected, "The scheduler answers.")

    assert f"{TITLE}: scheduler in 0." in terminal.file.getvalue()


def test_a_failed_start_says_so_and_raises(terminal):
    """The error goes its way; the last line names its kind."""
    with pytest.raises(KeyError), shown(Events(), title=TITLE, console=terminal):
        raise KeyError

    assert f"{TITLE}: KeyError after 0." in terminal.file.getvalue()


def test_what_happened_before_it_was_shown_counts(terminal):
    """Progress that comes late shows the whole start."""
    events = Events()
    a_start(events)
    with shown(events, title=TITLE, console=terminal):
        pass

    assert "10 of 10 workers" in terminal.file.getvalue()


def test_it_can_be_silent(capfd, caplog):
    """visible=False shows nothing, anywhere."""
    events = Events()
    with caplog.at_level(logging.INFO, "cloudprovider.progress"), shown(events, visible=False):
        a_start(events)

    assert ("", "") == capfd.readouterr()
    assert [] == caplog.records


def test_where_no_one_looks_it_is_logged(capfd, caplog):
    """Without a terminal nothing is printed: lines go to the log, and of many arrivals few."""
    events = Events()
    with caplog.at_level(logging.INFO, "cloudprovider.progress"), shown(events, title=TITLE):
        a_start(events)
        for count in range(1, 1001):
            events.emit(Phase.arrived, f"{count} of 1000.", count=count, total=1000)

    assert ("", "") == capfd.readouterr()
    assert "Preparing." == caplog.messages[0]
    assert 10 == sum(" of 1000." in message for message in caplog.messages)
    assert caplog.messages[-1].startswith(TITLE)


def test_asked_for_without_a_terminal_it_prints_lines(capfd):
    """visible=True prints plain lines on stderr, so that stdout stays the program's own."""
    events = Events()
    with shown(events, visible=True, title=TITLE):
        a_start(events)

    out, err = capfd.readouterr()
    assert "" == out
    assert "Ordered 10 machines (spot).\n" in err
    assert "\x1b" not in err


def test_after_it_nothing_is_said(capfd):
    """Progress stops to listen when its block ends."""
    events = Events()
    with shown(events, visible=True):
        pass
    capfd.readouterr()
    a_start(events)

    assert ("", "") == capfd.readouterr()


def test_two_clusters_at_once_do_not_draw_over_each_other(terminal):
    """The second of two displays in one program is plain lines."""
    other = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    first, second = Events(), Events()
    with shown(first, title="one", console=terminal), shown(second, title="two", console=other):
        a_start(second)

    assert "\x1b[?25l" in terminal.file.getvalue()  # hides the cursor: it draws
    assert "\x1b[?25l" not in other.file.getvalue()
    assert "two: 10 of 10 workers" in other.file.getvalue()


def test_the_next_cluster_draws_again(terminal):
    """A display that has ended, even by an error, leaves the terminal to the next."""
    with pytest.raises(ValueError, match="no"), shown(Events(), console=terminal):
        raise ValueError("no")
    again = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    with shown(Events(), console=again):
        pass

    assert "\x1b[?25l" in again.file.getvalue()


def test_events_of_other_threads_are_shown(terminal):
    """Events come from the event loop's thread and from the provider's."""
    events = Events()
    with shown(events, title=TITLE, console=terminal):
        thread = threading.Thread(target=a_start, args=(events,))
        thread.start()
        thread.join()

    assert "10 of 10 workers" in terminal.file.getvalue()


def test_what_the_program_prints_stays_its_own():
    """In a real terminal stdout that goes to a file gets every line, and the terminal none of it."""
    program = (
        "from cloudprovider.events import Events, Phase\n"
        "from cloudprovider.progress import shown\n"
        "import time\n"
        "events = Events()\n"
        "with shown(events, title='x'):\n"
        "    events.emit(Phase.landing, 'Preparing.')\n"
        "    print('a result'); time.sleep(0.5)\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)

    assert b"a result\n" == done.stdout
    assert "a result" not in drawn
    assert "x starts" in drawn
    assert drawn.rstrip().splitlines()[-1].startswith("x: ") or "x: scheduler in" in drawn


def test_html_is_escaped():
    """A cluster's name is text, not markup."""
    assert "&lt;b&gt;" in Progress(Events(), "<b>").html()


NOTEBOOK = """
from cloudprovider.events import Events, Phase
from cloudprovider.progress import shown
import time
events = Events()
with shown(events, title='x'):
    events.emit(Phase.landing, 'Preparing.')
    time.sleep(0.5)
    events.emit(Phase.connected, 'The scheduler answers.')
"""


CLUSTER = """
import asyncio
from ipywidgets import Widget
from cloudprovider import ProcessCluster
cluster = ProcessCluster(name='noted', n_workers=1, price=3.6, directory='machines')
display(cluster)
cluster.close()
print([getattr(widget, 'value', '') for widget in Widget.widgets.values()])
"""


def test_it_is_shown_by_a_shell_with_a_kernel():
    """With a kernel behind the shell, a widget shows the steps, and at the end the one line."""
    program = f"""
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from ipywidgets import HTML
shell = InteractiveShell.instance()
shell.kernel = object()
seen = []
class Watched(HTML):
    def __setattr__(self, name, value):
        if name == 'value':
            seen.append(value)
        super().__setattr__(name, value)
import ipywidgets
ipywidgets.HTML = Watched
with capture_output() as captured:
    result = shell.run_cell({NOTEBOOK!r})
result.raise_error()
assert 1 == len(captured.outputs), captured.outputs
assert '' == captured.stdout, captured.stdout
assert any('landing' in value for value in seen), seen
assert seen[-1].startswith('<div>x: scheduler in '), seen
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_it_is_shown_in_a_notebook(tmp_path):
    """In a real kernel the cell shows a start, then the cluster with its costs; both end with what came of it."""
    pytest.importorskip("ipykernel", reason="needs ipykernel: a notebook's own kernel")
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(cwd=str(tmp_path))
    heard = []
    try:
        reply = client.execute_interactive(CLUSTER, timeout=90, output_hook=heard.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    assert "ok" == reply["content"]["status"], reply["content"]
    drawn = [m["content"]["data"] for m in heard if m["msg_type"] == "display_data"]
    progress, cluster = (d for d in drawn if "application/vnd.jupyter.widget-view+json" in d)
    assert "ProcessCluster &#x27;noted&#x27; starts" in progress["text/plain"]
    assert "<strong>Spent:</strong> $0." in cluster["text/html"]
    assert ", $7.20 an hour now at " in cluster["text/plain"]
    printed = "".join(m["content"]["text"] for m in heard if m["msg_type"] == "stream")
    assert "1 of 1 workers in " in printed
    assert "Timeline" in printed
    assert "$0.00 an hour now" in printed
