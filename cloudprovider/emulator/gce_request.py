"""A call of Compute Engine's, with what all that answer it want to know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import gcp_wire
from cloudprovider.emulator.gce_links import Place, invalid
from cloudprovider.emulator.gcp_wire import Request

if TYPE_CHECKING:
    from cloudprovider.emulator.gcp_tokens import Principal


@dataclass(kw_only=True)
class Call(Request):
    """One call.

    Parameters
    ----------
    principal
        Who makes it.
    """

    principal: Principal

    @classmethod
    def of(cls, request: Request, principal: Principal) -> Call:
        """The call that a request is."""
        return cls(**vars(request), principal=principal)

    @property
    def project(self) -> str:
        """Whose resources it is about."""
        return self.arguments["project"]

    @property
    def scope(self) -> str:
        """Such as `zones/us-central1-a`; `global` when it says no other."""
        for kind in ("zone", "region"):
            if kind in self.arguments:
                return f"{kind}s/{self.arguments[kind]}"
        return "global"

    @property
    def path(self) -> str:
        """What it is made to, without the name of the API."""
        path = self.method.path.removeprefix("compute/v1/")
        return re.sub(r"{(\w+)}", lambda match: self.arguments[match[1]], path)

    @property
    def given(self) -> dict[str, Any]:
        """The body."""
        return self.body or {}

    def place(self, collection: str, name: str) -> Place:
        """A resource where the call is made to."""
        return Place(self.project, self.scope, collection, name)


def check(request: Request) -> None:
    """Refuse what Google's description does not allow; what is no name or link in Compute Engine's own words."""
    for one in request.method.body_problems(request.body):
        if one.kind == "pattern":
            raise invalid(f"resource.{one.field}", one.value, f"Must be a match of regex '(?:{one.wanted})'")
    gcp_wire.check(request)
