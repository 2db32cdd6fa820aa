"""A provider in memory: a real implementation of the contract for tests of what is above it."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter

from cloudprovider.errors import CapacityError, CloudError
from cloudprovider.provider import Created, Identity, Machine, Provider, State, Swept

IDENTITY = Identity(name="memory", owner="tester", created=1, expires=2**40)


class MemoryProvider(Provider):
    """Machines are entries of a dictionary; `room` limits them and `refusal` refuses the next orders."""

    wave = 10

    def __init__(self, config=None, identity=IDENTITY):
        super().__init__(config, identity)
        self.machines: dict[str, Machine] = {}
        self.room = 10_000
        self.refusal: CloudError | None = None
        self.calls: Counter[str] = Counter()
        self._numbers = itertools.count()

    def prepare(self, boots, secrets):
        return tuple(boots)

    def attach(self):
        raise CloudError("No cluster is in memory.")

    def boot(self, role):
        raise CloudError("A boot of memory is its caller's.")

    def create(self, boot, count):
        self.calls["create"] += 1
        if self.refusal:
            raise self.refusal
        live = [m for m in self.machines.values() if m.state is not State.gone]
        got = max(0, min(count, self.room - len(live)))
        made = tuple(
            Machine(
                id=f"m{next(self._numbers):05}",
                role=boot.role,
                state=State.starting,
                cluster=self.identity.name,
                created=time.time(),
            )
            for _ in range(got)
        )
        self.machines.update((m.id, m) for m in made)
        short = CapacityError(f"Memory has room for {got} of {count} machines.") if got < count else None
        return Created(machines=made, refusal=short)

    def describe(self, ids):
        self.calls["describe"] += 1
        return [self.machines[id] for id in ids if id in self.machines]

    def delete(self, ids):
        self.calls["delete"] += 1
        for id in ids:
            self.end(id, "deleted")

    def end(self, id, reason):
        if id in self.machines:
            self.machines[id] = dataclasses.replace(
                self.machines[id], state=State.gone, ended=time.time(), reason=reason
            )

    def list(self, cluster=None):
        return [m for m in self.machines.values() if m.state is not State.gone]

    def sweep(self, cluster):
        live = tuple(m.id for m in self.list(cluster))
        self.delete(live)
        return Swept(machines=live)

    def expired(self):
        return ()

    def sweep_expired(self):
        return ()

    def allow(self, sources):
        """Memory has no rules."""

    def logs(self, id, lines=100):
        return f"the log of {id}"
