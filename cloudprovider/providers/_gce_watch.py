"""What machines of one cluster are there, and which were: Compute Engine says of who is no more nothing at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cloudprovider.provider import Machine, State
from cloudprovider.providers import _gce_ends as ends
from cloudprovider.providers import _gce_wire as wire

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cloudprovider.providers._gcp import GCP

__all__ = ["Watch"]


class Watch:
    """The machines of one cluster, as they were last seen. Thread-safe.

    A machine that was seen and is no more is gone; one that was never seen may only be too new.

    Parameters
    ----------
    gcp
        Whose they are.
    cluster
        Its name.
    """

    def __init__(self, gcp: GCP, cluster: str) -> None:
        self._gcp, self._cluster = gcp, cluster
        self.seen: dict[str, Machine] = {}
        self._gone: dict[str, Machine] = {}
        self._told: dict[str, float] = {}  # when we told which to end

    def look(self, ids: Collection[str]) -> Sequence[Machine]:
        """What is said of these: by one call of one of them, else by those that list the cluster's."""
        wanted = set(ids) - self._gone.keys()
        found, whole = self._asked(wanted) if wanted else ([], True)
        there = {machine.id: machine for machine in self.note(found)}
        silent = [self.seen[id] for id in wanted - there.keys() if id in self.seen]
        if whole and silent:
            self._bury(silent)
        every = {**self._gone, **there}
        return [every[id] for id in sorted(set(ids)) if id in every]

    def _asked(self, wanted: Collection[str]) -> tuple[Sequence[Any], bool]:
        known = [self.seen[id] for id in wanted if id in self.seen]
        if len(wanted) == len(known) == 1 and known[0].zone:
            [one] = known
            found = self._gcp.call("instances", "get", fine=[404], instance=one.id, zone=one.zone)
            return ([] if found is None else [found]), True
        return ends.instances(self._gcp, self._cluster)

    def listed(self, cluster: str | None) -> Sequence[Machine]:
        """The machines of a cluster, or of all."""
        found, _ = ends.instances(self._gcp, cluster)
        return self.note(found)

    def end(self, ids: Collection[str]) -> None:
        """Begin to delete machines, of those that are there."""
        wanted = set(ids) - self._gone.keys()
        if wanted - self.seen.keys():
            self.listed(self._cluster)
        self._delete([self.seen[id] for id in sorted(wanted) if id in self.seen])

    def told(self, ids: Iterable[str]) -> None:
        """Note that machines have been told to end."""
        now = self._gcp.now()
        self._told = {**dict.fromkeys(ids, now), **self._told}

    def note(self, found: Iterable[Any]) -> list[Machine]:
        """Read instances of an answer; ours are remembered, and those that powered off are deleted."""
        machines, off = [], []
        for instance in found:
            machine = wire.machine(instance)
            if machine.cluster == self._cluster:
                machine = self._ending(machine) if machine.state is State.gone else machine
                self.seen[machine.id] = machine
                # Its disk bills on, and nobody starts it again.
                if instance.status in wire.POWERED_OFF and machine.id not in self._told:
                    off.append(machine)
            machines.append(machine)
        self._delete(off)
        return machines

    def _delete(self, machines: Sequence[Machine]) -> None:
        ends.delete(self._gcp, {machine.id: machine.zone or "" for machine in machines})
        self.told(machine.id for machine in machines)

    def _ending(self, machine: Machine) -> Machine:
        """A machine that is gone and still there: since we ended it, where we did, else since it was first so."""
        before = self.seen.get(machine.id)
        ended = machine.ended or self._told.get(machine.id) or (before and before.ended) or self._gcp.now()
        reason = "deleted" if machine.id in self._told else machine.reason
        return dataclasses.replace(machine, ended=ended, reason=reason)

    def _bury(self, silent: Sequence[Machine]) -> None:
        """Take machines that were there and are no more for gone, with what their zones' operations say."""
        strange = [one for one in silent if one.id not in self._told]
        since = min((one.created for one in strange), default=0.0) - 1.0
        said = ends.endings(self._gcp, strange, since) if strange else {}
        for one in silent:
            own = ("deleted", self._told.get(one.id)) if one.id in self._told else None
            reason, ended = said.get(one.id) or own or (one.reason or "it is no longer there", one.ended)
            ended = ended or self._gcp.now()
            self._gone[one.id] = dataclasses.replace(one, state=State.gone, ended=ended, reason=reason)
