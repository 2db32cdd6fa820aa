"""The provider contract as tests: each provider's test class subclasses `ProviderContract`."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from cloudprovider.errors import CloudError
from cloudprovider.provider import Provider, State
from cloudprovider.security import make_secrets


def until(condition, timeout_s: float, what: str):
    """The first true answer of `condition`; fails with `what` when the deadline passes."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} within {timeout_s} s"
        time.sleep(0.05)
    return found


class ProviderContract:
    """What every provider keeps; a subclass says how to make one.

    `make(name, **options)` returns an unprepared provider for a cluster of that name.
    """

    patience_s = 30.0

    def make(self, name: str, **options) -> Provider:
        raise NotImplementedError

    @pytest.fixture
    def secrets(self):
        return make_secrets(self.make("contract").identity)

    @pytest.fixture
    def provider(self, secrets):
        provider = self.make("contract")
        self.prepare(provider, secrets)
        yield provider
        provider.sweep("contract")

    def prepare(self, provider, secrets) -> None:
        boots = [provider.config.boot_for(role, provider.identity) for role in ("scheduler", "worker")]
        provider.prepare(boots, secrets)

    def one(self, provider):
        [machine] = provider.create(provider.boot("scheduler"), 1).machines
        return machine

    def described(self, provider, id):
        return next(iter(provider.describe([id])), None)

    def test_create_makes_what_was_asked(self, provider):
        """An order of two machines makes two, of the role asked for, that belong to the cluster."""
        boot = dataclasses.replace(provider.boot("worker"), scheduler="tls://127.0.0.1:1")
        created = provider.create(boot, 2)

        assert created.refusal is None
        assert 2 == len({machine.id for machine in created.machines})
        assert {("worker", "contract")} == {(m.role, m.cluster) for m in created.machines}
        assert all(m.created for m in created.machines)

    def test_machine_gets_an_address_runs_and_ends(self, provider):
        """A machine goes from starting to running, has a private address, and says when it is gone."""
        machine = self.one(provider)

        def running():
            now = self.described(provider, machine.id)
            return now if now and now.state is State.running and now.private_address else None

        assert "scheduler" == until(running, self.patience_s, "the machine runs").role
        provider.delete([machine.id])

        def gone():
            now = self.described(provider, machine.id)
            return now is not None and now.state is State.gone and now.ended and now

        assert until(gone, self.patience_s, "the machine is gone, and says since when").ended

    def test_unknown_ids_are_no_error(self, provider):
        """Describing or deleting what does not exist answers nothing and raises nothing."""
        machine = self.one(provider)
        stranger = machine.id[:-4] + "ffff"

        assert [] == provider.describe([stranger])
        provider.delete([stranger])
        assert "" == provider.logs(stranger)

    def test_deleting_twice_is_no_error(self, provider):
        """A machine may be deleted again, while it ends and when it has ended."""
        machine = self.one(provider)
        provider.delete([machine.id])
        provider.delete([machine.id])

    def test_list_finds_machines_without_memory(self, provider):
        """Another provider object, of another process, finds the machines by their tags."""
        machine = self.one(provider)

        found = until(lambda: self.make("another").list("contract"), self.patience_s, "the machine is listed")
        assert [(machine.id, "scheduler", "contract")] == [(m.id, m.role, m.cluster) for m in found]
        assert provider.identity.expires == found[0].expires
        assert machine.id in {m.id for m in self.make("another").list()}

    def test_sweep_leaves_nothing(self, provider):
        """A sweep from another object removes machines and all else; a second one finds nothing."""
        machine = self.one(provider)
        until(lambda: self.make("x").list("contract"), self.patience_s, "the machine is listed")
        swept = self.make("contract").sweep("contract")

        assert machine.id in swept.machines
        until(lambda: not provider.list("contract"), self.patience_s, "nothing is listed")
        again = self.make("contract").sweep("contract")
        assert ((), ()) == (again.machines, again.left)
        with pytest.raises(CloudError, match="contract"):
            self.make("contract").attach()

    def test_sweep_spares_other_clusters(self, provider, secrets):
        """What belongs to another cluster in the same account is not touched."""
        other = self.make("other")
        self.prepare(other, make_secrets(other.identity))
        machine = self.one(other)
        try:
            until(lambda: other.list("other"), self.patience_s, "the machine is listed")
            provider.sweep("contract")

            assert [machine.id] == [m.id for m in other.list("other")]
            assert self.make("other").attach().client
        finally:
            other.sweep("other")

    def test_attach_reads_the_client_secret_and_the_identity(self, provider, secrets):
        """Another process gets the client's keys, whose cluster it is, and boots that can be ordered."""
        other = self.make("contract")
        found = other.attach()

        assert json.loads(secrets.client) == json.loads(found.client)
        assert "" == found.machine
        assert provider.identity == other.identity
        assert provider.boot("worker") == other.boot("worker")

    def test_attach_to_nothing_says_what_there_is(self, provider):
        """A wrong name is an error that names the clusters there are."""
        with pytest.raises(CloudError, match="contract"):
            self.make("nobody").attach()

    def test_boot_holds_references_only(self, provider, secrets):
        """What a machine is told has no key in it."""
        for role in ("scheduler", "worker"):
            text = provider.boot(role).dumps()
            assert "PRIVATE" not in text
            assert json.loads(secrets.machine)["token"] not in text

    def test_prepare_twice_changes_nothing(self, provider, secrets):
        """A retried preparation makes nothing twice."""
        self.prepare(provider, secrets)
        assert self.make("contract").attach().client

    def test_a_name_has_one_cluster(self, provider):
        """Of two clusters of one owner, name and second, the second is refused, and the first goes on."""
        second = self.make("contract")
        second.identity = provider.identity
        with pytest.raises(CloudError, match="contract"):
            self.prepare(second, make_secrets(provider.identity))
        assert self.make("contract").attach().client

    def test_expired_clusters_are_swept(self, secrets):
        """What a cluster left behind goes when its `expires` has passed, and no sooner."""
        provider = self.make("contract", max_lifetime="1s")
        self.prepare(provider, make_secrets(provider.identity))
        young = self.make("young")
        self.prepare(young, make_secrets(young.identity))
        try:
            until(lambda: time.time() > provider.identity.expires + 1, self.patience_s, "the cluster expired")
            assert ("contract",) == tuple(self.make("x").sweep_expired())
            assert young.attach().client
        finally:
            young.sweep("young")

    def test_allow_twice_is_no_error(self, provider):
        """The ingress rules are made exactly what is asked, again and again."""
        provider.allow(["127.0.0.1/32"])
        provider.allow(["127.0.0.1/32", "127.0.0.2/32"])
        provider.allow(["127.0.0.2/32"])

    def test_logs_of_a_machine(self, provider):
        """The last lines of a machine's log can be read, dead or alive."""
        machine = self.one(provider)
        lines = until(lambda: provider.logs(machine.id), self.patience_s, "the machine logs")
        assert lines
        provider.delete([machine.id])
        assert provider.logs(machine.id)
