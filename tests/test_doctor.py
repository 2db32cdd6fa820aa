"""What a doctor is made of: checks side by side, findings, the simulation of policies, options of a command."""

from __future__ import annotations

import fnmatch
import json
import re
import threading
import time
from dataclasses import replace
from datetime import date

import click
import pytest

from cloudprovider import AccessError, CapacityError, CloudError, ConfigError, CredentialsError
from cloudprovider.cli.options import chosen, config_options
from cloudprovider.doctor import Check, Verdict, ok, problem, run, told_once, unknown, warning, worst
from cloudprovider.prices import dated
from cloudprovider.provider import Machine, Quota, State
from cloudprovider.providers import _aws_simulation as simulation
from cloudprovider.providers import _doctor, ec2, ecs
from cloudprovider.providers._aws_config import AWSConfig
from cloudprovider.providers._aws_doctor import default_routes
from cloudprovider.providers._azure_doctor import allows
from cloudprovider.providers.ecs import FargateConfig
from cloudprovider.providers.local import LocalConfig, LocalProvider

POLICIES = [
    *((ecs, f"aws-fargate{part}") for part in ("", "-landing", "-tunnel", "-roles")),
    *((ec2, f"aws-ec2{part}") for part in ("", "-landing", "-tunnel", "-roles")),
]


# -- checks and findings -----------------------------------------------------------------------------------


def test_checks_run_side_by_side():
    """All checks look at the same time, but for those that wait for another; findings are in the order of checks."""
    meeting = threading.Barrier(3, timeout=60)

    def meet(topic):
        meeting.wait()
        return [ok(topic, "We met.")]

    ended = []
    checks = [
        Check(topic="first", look=lambda: [ok("first", "It is there.")]),
        *(Check(topic=topic, look=lambda topic=topic: meet(topic), after="first") for topic in "ab"),
        Check(topic="c", look=lambda: meet("c")),
    ]
    assert ["first", "a", "b", "c"] == [one.topic for one in run(checks, ended.append)]
    assert {"first", "a", "b", "c"} == set(ended)


def test_what_waits_for_a_problem_is_not_looked_at():
    """After a problem nothing that waits for it is asked, and one finding says what was not."""
    asked = []
    checks = [
        Check(topic="credentials", look=lambda: [problem("credentials", "None.", "Sign in.")]),
        Check(topic="quotas", look=lambda: asked.append("quotas") or [], after="credentials"),
        Check(topic="image", look=lambda: [ok("image", "There.")]),
    ]
    *_, last = run(checks)
    assert [] == asked
    assert ("the rest", Verdict.unknown, "Not looked at: quotas.") == (last.topic, last.verdict, last.found)
    assert last.fix


def fails(error):
    def look():
        raise error

    return look


@pytest.mark.parametrize(
    ("topic", "error", "verdict"),
    [
        ("network", ConfigError("There is none. Make one."), Verdict.problem),
        ("quotas", CapacityError("It is full. Wait."), Verdict.problem),
        ("address", AccessError("Nobody answers. Say it."), Verdict.problem),
        ("network", CredentialsError("You may not look. Ask for it."), Verdict.unknown),
        ("credentials", CredentialsError("They are over. Sign in."), Verdict.problem),
        ("network", CloudError("Nobody answers. Try again."), Verdict.unknown),
        ("credentials", CloudError("Nobody answers. Try again."), Verdict.problem),
        ("network", OSError("No route. Look at the cable."), Verdict.unknown),
    ],
)
def test_errors_are_findings(topic, error, verdict):
    """An error's first sentence is what was found, and its advice the fix; who may not look has found nothing."""
    [found] = run([Check(topic=topic, look=fails(error))])
    assert (verdict, str(error)) == (found.verdict, f"{found.found} {found.fix}")


def test_a_check_that_is_wrong_hides_no_other():
    """What a check did not expect is unknown, and the others are told."""
    found = run(
        [Check(topic="a", look=fails(KeyError("x"))), Check(topic="b", look=lambda: [ok("b", "Well.")])]
    )
    assert [Verdict.unknown, Verdict.ok] == [one.verdict for one in found]
    assert "KeyError" in found[0].found


def test_the_worst_of_findings():
    """A problem is worse than a warning, that than what is unknown; nothing is well."""
    some = [ok("a", "A."), unknown("b", "B.", "?"), warning("c", "C.", "!"), problem("d", "D.", "!!")]
    assert ["ok", "unknown", "warning", "problem"] == [str(worst(some[: n + 1])) for n in range(4)]
    assert Verdict.ok is worst([])
    assert some[2:] == told_once(some, some[:2])


# -- what any provider tells -------------------------------------------------------------------------------

QUOTA = Quota(name="Cores", limit=10, unit="cores", each=2, taken=2, advice="Ask the owner.")


@pytest.mark.parametrize(
    ("limit", "wanted", "chosen", "verdict"),
    [
        (QUOTA, 4, True, Verdict.ok),
        (QUOTA, 5, True, Verdict.problem),
        (QUOTA, 5, False, Verdict.ok),
        (replace(QUOTA, limit=3), 5, False, Verdict.warning),
        (replace(QUOTA, used=7.0), 0, True, Verdict.problem),
        (replace(QUOTA, used=6.0), 0, True, Verdict.ok),
    ],
)
def test_quotas(limit, wanted, chosen, verdict):
    """A limit is a problem where it has no room for what is wanted, one worker at least, beside what is in use."""
    [found] = _doctor.quotas([limit], "spot", wanted, chosen=chosen)
    assert verdict is found.verdict
    assert f"spot: room for {limit.free} workers of 2 cores beside the scheduler" in found.found
    assert f"Cores is {limit.limit} cores" in found.found
    assert found.fix == ("" if verdict is Verdict.ok else "Ask the owner.")


def test_quotas_that_nobody_tells():
    """That the cloud tells no limit is unknown, not well."""
    [found] = _doctor.quotas([], "spot", 1, chosen=True)
    assert Verdict.unknown is found.verdict


class Estate(LocalProvider):
    """A computer with these machines and leftovers."""

    machines: tuple[Machine, ...] = ()
    left: tuple[str, ...] = ()

    def list(self, cluster=None):
        return [one for one in self.machines if cluster in {None, one.cluster}]

    def expired(self):
        return self.left


def test_machines_and_leftovers():
    """Machines that should have ended are a problem, others are told; what waits for a sweep is a warning."""
    config = LocalConfig.named("nobody")
    estate = Estate(config, config.identity())
    assert ["None runs, none bills."] == [one.found for one in _doctor.machines(estate)]
    assert [Verdict.ok] == [one.verdict for one in _doctor.leftovers(estate)]

    late, fresh = ("late", int(time.time()) - 60), ("fresh", int(time.time()) + 3600)
    estate.machines = tuple(
        Machine(id=f"{name}-{k}", role="worker", state=State.running, cluster=name, expires=expires)
        for name, expires in (late, fresh)
        for k in range(2)
    )
    estate.left = ("old", "older")
    bad, good = _doctor.machines(estate)
    assert "2 of late still bill" in bad.found
    assert "`dask cloud down late`" in bad.fix
    assert "2 run and bill, of fresh." == good.found
    [left] = _doctor.leftovers(estate)
    assert (Verdict.warning, True) == (left.verdict, "old, older" in left.found)


@pytest.mark.parametrize(
    ("ahead_s", "verdict"),
    [(0.0, Verdict.ok), (-20.0, Verdict.ok), (90.0, Verdict.warning), (-1200.0, Verdict.problem)],
)
def test_clocks(ahead_s, verdict):
    """Some seconds are nothing; minutes mislead leases, and more has calls refused."""
    found = _doctor.clock(ahead_s)
    assert verdict is found.verdict
    assert ("fast" in found.found) is (ahead_s < -60)


def test_price_tables_age():
    """A table is told with its date, and its age once that is long."""
    day = date.fromisoformat(dated("ec2"))
    [fresh] = _doctor.tables("ec2", day)
    [old] = _doctor.tables("ec2", day.replace(year=day.year + 1))
    assert (Verdict.ok, Verdict.warning) == (fresh.verdict, old.verdict)
    assert str(day) in fresh.found
    assert re.search(r"36[56] days ago", old.found)


def test_versions_that_do_not_fit(tmp_path, monkeypatch):
    """A runtime or a Dask of another version than the client's is told, with the command that mends it."""
    assert [Verdict.ok] == [one.verdict for one in _doctor.versions("aws")]
    for name, version in (("dask_cloud_runtime", "0.0.1"), ("distributed", "2020.1"), ("boto3", "1.2")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [*_doctor.versions("aws")]
    problems = " ".join(f"{one.found} {one.fix}" for one in found if one.verdict is Verdict.problem)
    assert "dask-cloud-runtime is 0.0.1" in problems
    assert "boto3 is 1.2" in problems
    assert "`pip install --upgrade 'dask-cloud[aws]'`" in problems
    [mixed] = [one for one in found if one.verdict is Verdict.warning]
    assert "distributed is 2020.1" in mixed.found


# -- policies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name"), POLICIES)
def test_all_of_a_policy_is_tried(module, name):
    """Every action of a shipped policy is tried on resources that its patterns fit, with the keys that it asks for."""
    policy = json.loads(module.policy(name, account="123456789012", region="us-east-1"))
    tried = simulation.trials(policy)
    for statement in policy["Statement"]:
        actions, resources = (
            [statement[key]] if isinstance(statement[key], str) else statement[key]
            for key in ("Action", "Resource")
        )
        for action in actions:
            mine = [one for one in tried if action in one.actions]
            samples = [sample for one in mine for sample in one.resources]
            for pattern in resources:
                assert any(fnmatch.fnmatchcase(sample, pattern) for sample in samples), pattern
            for keys in statement.get("Condition", {}).values():
                assert {*keys} <= {key for one in mine for key, *_ in one.context}
    requests = [simulation.simulate_request(one, "arn:aws:iam::123456789012:user/x") for one in tried]
    assert [] == [arn for one in requests for arn in one.get("ResourceArns", ()) if "*" in arn]


def test_what_is_not_tried():
    """What a policy denies is nothing that somebody needs; a pattern of actions is no action."""
    policy = {
        "Statement": [
            {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"},
            {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:RunInstances"], "Resource": "*"},
        ]
    }
    assert ["ec2:RunInstances"] == simulation.actions(policy)


def test_default_routes():
    """A subnet's own table goes before the main one, and a black hole is no way out."""
    way, hole = ({"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": f"igw-{k}", "State": state} for k, state in enumerate(("active", "blackhole")))  # fmt: skip
    main = {"Associations": [{"Main": True}], "Routes": [way]}
    own = {"Associations": [{"SubnetId": "subnet-1"}], "Routes": [hole]}
    assert [] == default_routes([main, own], "subnet-1")
    assert [way] == default_routes([main, own], "subnet-2")


def test_permissions_of_azure():
    """Patterns are in any case; what one role leaves out another may give, and data actions are others."""
    reader = {"actions": ["*/read"], "notActions": ["Microsoft.Secret/*"]}
    officer = {"actions": [], "dataActions": ["Microsoft.KeyVault/vaults/secrets/*"]}
    assert allows([reader], "microsoft.compute/virtualMachines/READ")
    assert not allows([reader], "Microsoft.Secret/things/read")
    assert allows([reader, {"actions": ["Microsoft.Secret/*"]}], "Microsoft.Secret/things/read")
    assert not allows([officer], "Microsoft.KeyVault/vaults/secrets/setSecret/action")
    assert allows([officer], "Microsoft.KeyVault/vaults/secrets/setSecret/action", data=True)


# -- options of a command ----------------------------------------------------------------------------------


def test_options_of_a_config():
    """Each field that a word can say is an option, with its help; what is not given is not passed on."""
    command = click.Command("it", params=config_options(FargateConfig, ["name"]), callback=chosen_of)
    by_name = {option.name: option for option in command.params}
    assert "name" not in by_name
    assert "environment" not in by_name, "a mapping"
    assert "GiB of disk of each worker" in by_name["ephemeral_storage"].help
    assert all(option.help for option in command.params)

    def given(*arguments):
        return command.main([*arguments], standalone_mode=False)

    assert {} == given()
    assert {"spot": True} == given("--spot")
    assert {"spot": "fallback"} == given("--spot=fallback")
    assert {"spot": False} == given("--spot=false")
    assert {"zones": ["a", "b"], "public": False} == given("--zones", "a", "--zones", "b", "--no-public")
    assert {"worker_cpu": 0.25, "n_workers": 0} == given("--worker-cpu", ".25", "--n-workers", "0")
    assert issubclass(FargateConfig, AWSConfig)


def chosen_of(**options):
    return chosen(options)
