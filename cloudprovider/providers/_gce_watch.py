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
        self._known: dict[str, Machine] = {}  # as last told, or as ordered
        self._seen: set[str] = set()  # of those, the ones that were told of since their order
        self._gone: dict[str, Machine] = {}
        self._ends: dict[str, tuple[str, float]] = {}  # why and when each machine ended, as far as is known
        self._deleted: set[str] = set()

    def zone(self, id: str) -> str | None:
        """Where a machine is; None when nobody has told."""
        return self._known[id].zone if id in self._known else None

    def expect(self, machines: Iterable[Machine]) -> None:
        """Note what has been ordered, which a list may not know yet."""
        self._known |= {machine.id: machine for machine in machines}

    def look(self, ids: Collection[str]) -> Sequence[Machine]:
        """What is said of these: by one call of one of them, else by those that list the cluster's."""
        wanted = set(ids) - self._gone.keys()
        found, whole = self._asked(wanted) if wanted else ([], True)
        there = {machine.id: machine for machine in self.note(found)}
        silent = [self._known[id] for id in wanted - there.keys() if id in self._known] if whole else []
        self._explain([*silent, *(one for one in there.values() if one.state is State.gone)])
        for one in silent:
            if one.id in self._seen or one.id in self._ends:
                self._gone[one.id] = self._ended(one, "it is no longer there")
        every = {**self._gone, **{id: self._known.get(id, one) for id, one in there.items()}}
        return [every[id] for id in sorted(set(ids)) if id in every]

    def _asked(self, wanted: Collection[str]) -> tuple[Sequence[Any], bool]:
        known = [self._known[id] for id in wanted if id in self._known]
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
        if wanted - self._known.keys():
            self.listed(self._cluster)
        self._delete([self._known[id] for id in sorted(wanted) if id in self._known])

    def told(self, ids: Iterable[str]) -> None:
        """Note that machines have been told to end."""
        now = self._gcp.now()
        for id in ids:
            self._deleted.add(id)
            self._ends.setdefault(id, ("deleted", now))

    def note(self, found: Iterable[Any]) -> list[Machine]:
        """Read instances of an answer; ours are remembered, and those that powered off are deleted."""
        machines, off = [], []
        for instance in found:
            machine = wire.machine(instance)
            if machine.cluster == self._cluster:
                machine = self._ended(machine, machine.reason) if machine.state is State.gone else machine
                self._known[machine.id] = machine
                self._seen.add(machine.id)
                # Its disk bills on, and nobody starts it again.
                if instance.status in wire.POWERED_OFF and machine.id not in self._deleted:
                    off.append(machine)
            machines.append(machine)
        self._delete(off)
        return machines

    def _delete(self, machines: Sequence[Machine]) -> None:
        ends.delete(self._gcp, {machine.id: machine.zone or "" for machine in machines})
        self.told(machine.id for machine in machines)

    def _ended(self, machine: Machine, reason: str) -> Machine:
        """A machine that is gone: why and since when as it was first known."""
        moment = machine.ended or self._gcp.now()
        reason, ended = self._ends.get(machine.id, (reason, moment))
        return dataclasses.replace(machine, state=State.gone, ended=ended, reason=reason)

    def _explain(self, machines: Sequence[Machine]) -> None:
        """Learn from their zones' operations why machines ended that we did not end."""
        strange = [one for one in machines if one.id not in self._ends]
        if strange:
            said = ends.endings(self._gcp, strange, min(one.created for one in strange) - 1.0)
            self._ends |= said
        for one in strange:
            if one.id in self._ends and one.state is State.gone:
                self._known[one.id] = self._ended(one, one.reason)
