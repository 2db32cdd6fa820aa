"""Options: what is asked for, what is configured, what cannot work."""

from __future__ import annotations

import copy
import datetime as dt
import math
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, fields

import dask.config
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider.config import Config, gibibytes, seconds, setting
from cloudprovider.errors import ConfigError
from cloudprovider.provider import Identity


@dataclass(frozen=True, kw_only=True)
class NimbusConfig(Config):
    """A cloud of one more option."""

    section = "nimbus"
    region: str = "here"
    spot: bool = True


@contextmanager
def configured(**sections):
    """Dask config for the block."""
    with dask.config.set({"cloud": sections}):
        yield


@pytest.fixture
def environ():
    """The environment, which is as it was after the test."""
    before = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("wrong", "right"), [("n_worker", "n_workers"), ("regoin", "region"), ("allow_form", "allow_from")]
)
def test_a_typo_gets_the_nearest_name(wrong, right):
    """An unknown option is refused before any call, with the one that was meant."""
    message = f"NimbusCluster has no option '{wrong}'; did you mean '{right}'?"
    with pytest.raises(ConfigError, match=re.escape(message)):
        NimbusConfig.of(**{wrong: 1})


def test_a_name_like_nothing_gets_the_list():
    """Where no option is near, all are named."""
    with pytest.raises(ConfigError, match=r"has no option 'zzz'. It has: .*n_workers.*region"):
        NimbusConfig.of(zzz=1)


def test_a_typo_in_the_configuration_is_found_too():
    """A key that is no option is not silently ignored."""
    with (
        configured(nimbus={"n-worker": 3}),
        pytest.raises(
            ConfigError, match=r"Dask config cloud.nimbus: .* 'n_worker'; did you mean 'n_workers'"
        ),
    ):
        NimbusConfig.of()


def test_what_is_no_mapping_is_no_configuration():
    """A section that is a word, by a slip in YAML, is an error and not a list of letters."""
    with configured(nimbus="region"), pytest.raises(ConfigError, match="must be a mapping"):
        NimbusConfig.of()


def test_the_shared_section_may_hold_other_clouds_options():
    """`cloud.default` serves every cloud: what one of them does not know is another's."""
    with configured(default={"instance-type": "big", "n-workers": 2}):
        assert 2 == NimbusConfig.of().n_workers


def test_keyword_then_configuration_then_default():
    """One precedence: keyword, the cloud's section, the shared section, default."""
    with configured(default={"n-workers": 1, "region": "there"}, nimbus={"n-workers": 2}):
        assert 3 == NimbusConfig.of(n_workers=3).n_workers
        assert 2 == NimbusConfig.of().n_workers
        assert "there" == NimbusConfig.of().region
    assert (0, "here") == (NimbusConfig.of().n_workers, NimbusConfig.of().region)


def test_zero_and_false_are_values_and_none_is_not():
    """0 and False override what is configured; None does not."""
    with configured(nimbus={"n-workers": 2, "spot": True, "public": False, "tunnel": True}):
        chosen = NimbusConfig.of(n_workers=0, spot=False, region=None, public=None)

    assert (0, False, "here", False) == (chosen.n_workers, chosen.spot, chosen.region, chosen.public)


def test_keys_with_hyphens_and_underscores_are_the_same():
    """YAML habits differ; both forms are read."""
    with configured(nimbus={"idle_timeout": "1 minute", "client-timeout": "2 minutes"}):
        config = NimbusConfig.of()

    assert ("1 minute", "2 minutes") == (config.idle_timeout, config.client_timeout)


def test_the_environment_of_this_moment_counts(environ):
    """A variable that was set after Dask was imported is read, before what Dask knows."""
    environ["DASK_CLOUD__NIMBUS__N_WORKERS"] = "7"
    environ["DASK_CLOUD__ADDRESS_URL"] = "http://127.0.0.1:1/"
    with configured(nimbus={"n-workers": 2}):
        assert 7 == NimbusConfig.of().n_workers
    assert "http://127.0.0.1:1/" == setting("address-url")
    assert "nothing" == setting("no-such-thing", "nothing")


def test_nothing_changes_the_process_wide_configuration():
    """Making a Config leaves Dask config as it was: another cluster in this process notices nothing."""
    before = copy.deepcopy(dask.config.config)
    NimbusConfig.of(n_workers=3, environment={"A": "1"}, worker_options={"death_timeout": 5})

    assert before == dask.config.config


def test_importing_changes_nothing_and_reads_nothing_of_the_incumbent(tmp_path):
    """Our import leaves Dask config alone, and never looks at `cloudprovider.yaml`."""
    (tmp_path / "cloudprovider.yaml").write_text("cloudprovider: {ecs: {n_workers: 99}}\n")
    program = (
        "import dask.config, copy; before = copy.deepcopy(dask.config.config); import cloudprovider.config\n"
        "assert before == dask.config.config\n"
        "assert cloudprovider.config.Config.of().n_workers == 0\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={**os.environ, "DASK_CONFIG": str(tmp_path)}
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_workers": -1}, "whole number"),
        ({"n_workers": 2.5}, "whole number"),
        ({"n_workers": True}, "whole number"),
        ({"workers_per_machine": 0}, "1 or more"),
        ({"workers_per_machine": "2"}, "1 or more"),
        ({"name": "My_Cluster"}, "'my-cluster' would do"),
        ({"name": 7}, "would do"),
        ({"idle_timeout": "soon"}, "no length of time"),
        ({"idle_timeout": -5}, "no length of time"),
        ({"idle_timeout": dt.timedelta(seconds=-5)}, "before now"),
        ({"idle_timeout": math.nan}, "no length of time"),
        ({"max_lifetime": 0}, "longer than nothing"),
        ({"max_lifetime": math.inf}, "no length of time"),
        ({"security": False}, "mutual TLS"),
        ({"public": False}, "tunnel=True"),
        ({"allow_from": "my office"}, "allow_from='my office'"),
        ({"tags": {"dask-cluster": "another"}}, "writes itself"),
    ],
)
def test_what_cannot_work_is_refused_before_any_call(options, said):
    """Each impossible value is one clear error."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        NimbusConfig.of(**options)


@pytest.mark.parametrize("key", ["", "1A", "A B", "A=B", "A-B", "DASK_CLOUD_BOOT"])
def test_variables_that_no_process_can_have_are_refused(key):
    """Names that a shell or a cloud refuses, and our own, are found at once."""
    with pytest.raises(ConfigError, match="environment has"):
        NimbusConfig.of(environment={key: "x"})


def test_a_variable_with_a_nul_is_refused():
    """No process can be given one."""
    with pytest.raises(ConfigError, match="environment has 'A'"):
        NimbusConfig.of(environment={"A": "x\0y"})


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_any_text_may_be_a_variable(value):
    """Quotes, newlines and every script reach the boot as they are."""
    identity = Identity(name="a", owner="b", created=1, expires=2)
    boot = NimbusConfig.of(environment={"A": value}).boot_for("worker", identity)

    assert value == type(boot).loads(boot.dumps()).environment["A"]


def test_an_identity_is_new_each_time():
    """A cluster without a name gets one of its own, its birth and its hard end."""
    config = NimbusConfig.of(max_lifetime="1 hour")
    one, other = config.identity(), config.identity()

    assert one.name != other.name
    assert 3600 == one.expires - one.created
    assert abs(time.time() - one.created) < 10
    assert "given" == NimbusConfig.of(name="given").identity().name


def test_the_callers_network_is_a_block():
    """An address is a block of one; a host's address in a block is the block."""
    assert ("203.0.113.7/32",) == NimbusConfig.of(allow_from="203.0.113.7").sources()
    assert ("10.1.0.0/16", "2001:db8::/32") == NimbusConfig.of(
        allow_from=["10.1.2.3/16", "2001:db8::/32"]
    ).sources()
    assert () == NimbusConfig.of().sources()


def test_a_boot_is_for_its_role():
    """Workers get workers' options and limits, the scheduler its own; both get the leases."""
    config = NimbusConfig.of(
        worker_nthreads=2,
        workers_per_machine=3,
        worker_options={"w": 1},
        scheduler_options={"s": 1},
        jupyter=True,
    )
    identity = Identity(name="a", owner="b", created=1, expires=2)
    worker, scheduler = config.boot_for("worker", identity), config.boot_for("scheduler", identity)

    assert (2, 3, {"w": 1}, False) == (worker.nthreads, worker.processes, worker.options, worker.jupyter)
    assert (None, 1, {"s": 1}) == (scheduler.nthreads, scheduler.processes, scheduler.options)
    assert scheduler.jupyter
    assert worker.leases == scheduler.leases
    assert (300.0, 1200.0, 2) == (
        worker.leases.scheduler_lost,
        worker.leases.idle,
        worker.leases.expires,
    )


def test_every_option_is_documented():
    """Each field of the shared Config stands in its docstring."""
    names = set(re.findall(r"\b[a-z_]+\b", Config.__doc__))

    assert {field.name for field in fields(Config)} <= names


@pytest.mark.parametrize(("text", "expected"), [("20 minutes", 1200), (90, 90), (0, 0), ("1.5 h", 5400)])
def test_lengths_of_time(text, expected):
    """A bare number is seconds."""
    assert expected == seconds(text, "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8 GiB", 8), ("8 GB", 8e9 / 2**30), (16, 16), ("4", 4), ("512 MiB", 0.5), (0.5, 0.5)],
)
def test_amounts_of_memory(text, expected):
    """A bare number is GiB, also as text; decimal units are decimal."""
    assert expected == pytest.approx(gibibytes(text, "x"))


@pytest.mark.parametrize("text", ["much", 0, -1, "0 GiB", math.nan, math.inf, None])
def test_no_amounts_of_memory(text):
    """What is no memory is refused, and 0 does not mean no limit."""
    with pytest.raises(ConfigError, match=r"x=.* is no amount of memory"):
        gibibytes(text, "x")
