"""Who may do what in a project: policies of the project and of single resources, with their conditions.

https://cloud.google.com/iam/docs/policies
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.gcp_conditions import Condition, ConditionError
from cloudprovider.emulator.gcp_wire import NUMBER, PERSON, PROJECT, GCPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gcp_conditions import Value
    from cloudprovider.emulator.gcp_roles import Roles

#: https://cloud.google.com/iam/docs/principal-identifiers
MEMBER = re.compile(r"(allUsers|allAuthenticatedUsers|(user|serviceAccount|group|domain):[^:\s]+)")
WITH_CONDITIONS = 3
CONTENDED = (
    "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff."
)

Binding = dict[str, Any]

#: What a resource has on whose policy nobody has set anything.
EMPTY: dict[str, Any] = {"version": 1, "etag": "ACAB", "bindings": []}


class Policies:
    """The policies of one project's resources; thread-safe.

    Parameters
    ----------
    account
        Of the emulated cloud; its fault `role-propagation` delays what a binding gives.
    roles
        What can be bound.
    has_account
        Whether there is a service account of this email.
    """

    def __init__(self, account: Account, roles: Roles, has_account: Callable[[str], bool]) -> None:
        self._account, self._roles, self._has_account = account, roles, has_account
        self._policies: dict[str, dict[str, Any]] = {}
        self._since: dict[tuple[str, str], float] = {}
        owner = {"role": "roles/owner", "members": [f"serviceAccount:{PERSON}"]}
        self._policies[f"projects/{PROJECT}"] = _policy([owner], 1)

    def get(self, resource: str, version: int = 1) -> dict[str, Any]:
        """The policy of a resource; conditions are shown to who asks for version 3 alone.

        https://cloud.google.com/iam/docs/policies#specify-version-get
        """
        policy = self._policies.get(resource, EMPTY)
        if version >= WITH_CONDITIONS:
            return (
                json.loads(json.dumps(policy))
                if policy["bindings"]
                else {"etag": policy["etag"], "version": 1}
            )
        shown = [_without_condition(binding) for binding in policy["bindings"]]
        return {"etag": policy["etag"], "version": 1, **({"bindings": shown} if shown else {})}

    def set(self, resource: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the policy of a resource, unless somebody has since it was read."""
        version, bindings = given.get("version", 0), _merged(given.get("bindings") or [])
        with self._account.lock:
            was = self._policies.get(resource, EMPTY)
            if given.get("etag") and given["etag"] != was["etag"]:
                raise GCPError(409, CONTENDED, code="ABORTED", reason="aborted")
            self._check(bindings, version, was)
            new = _policy(bindings, WITH_CONDITIONS if any(b.get("condition") for b in bindings) else 1)
            known = set(_grants(was["bindings"]))
            now = time.time()
            for grant in set(_grants(bindings)) - known:
                self._since[resource, grant] = now
            for grant in known - set(_grants(bindings)):
                self._since.pop((resource, grant), None)
            self._policies[resource] = new
        return self.get(resource, WITH_CONDITIONS)

    def forget(self, resource: str) -> None:
        """Remove the policy of a resource that is no more."""
        self._policies.pop(resource, None)

    def _check(self, bindings: list[Binding], version: int, was: Mapping[str, Any]) -> None:
        conditional = any(binding.get("condition") for binding in [*bindings, *was["bindings"]])
        if version not in (0, 1, WITH_CONDITIONS):
            raise GCPError(400, f"Invalid policy version: {version}. Valid values are 0, 1 and 3.")
        if conditional and version < WITH_CONDITIONS:
            message = "Policies with conditional role bindings must specify version 3 when they are set."
            raise GCPError(400, message)
        for binding in bindings:
            self._check_binding(binding)

    def _check_binding(self, binding: Binding) -> None:
        role = str(binding.get("role", ""))
        if not self._roles.has(role):
            raise GCPError(400, f"Role {role} is not supported for this resource.")
        for member in binding.get("members", ()):
            if not MEMBER.fullmatch(member):
                raise GCPError(400, f"Invalid member {member}: a prefix such as 'serviceAccount:' is needed.")
            kind, _, email = member.partition(":")
            if kind == "serviceAccount" and not self._has_account(email):
                raise GCPError(400, f"Service account {email} does not exist.")
        if condition := binding.get("condition"):
            if not condition.get("title"):
                raise GCPError(400, "A condition needs a title.")
            if role in ("roles/owner", "roles/editor", "roles/viewer"):
                raise GCPError(400, f"Conditions can't be set on bindings of the basic role {role}.")
            try:
                _condition(str(condition.get("expression", "")))
            except ConditionError as error:
                raise GCPError(400, f"Condition expression compilation failed: {error}.") from error

    def allows(self, member: str, permission: str, resource: str, attributes: Mapping[str, Value]) -> bool:
        """Whether who is named may do something on a resource, by its policy or one above it."""
        delay_s = max((fault.seconds for fault in self._account.faults.of("role-propagation")), default=0.0)
        oldest = time.time() - delay_s
        given = {"request.time": dt.datetime.now(dt.UTC), **attributes}
        with self._account.lock:
            for above in _chain(resource):
                for binding in self._policies.get(above, {}).get("bindings", ()):
                    if not self._roles.allows(binding["role"], permission):
                        continue
                    grants = [_grant(binding, one) for one in (member, "allAuthenticatedUsers", "allUsers")]
                    held = [grant for grant in grants if grant.partition(" ")[0] in binding["members"]]
                    if any(self._since.get((above, grant), 0.0) <= oldest for grant in held) and _holds(
                        binding, given
                    ):
                        return True
        return False


def canonical(resource: str) -> str:
    """A resource's name with the project's id in place of its number."""
    return re.sub(rf"^projects/{NUMBER}(?=/|$)", f"projects/{PROJECT}", resource)


def _chain(resource: str) -> Iterator[str]:
    """A resource and what is above it, up to its project."""
    parts = canonical(resource).split("/")
    # What is global has a part more: projects/P/global/networks/N.
    for end in sorted({len(parts), *range(2, len(parts), 2)}, reverse=True):
        yield "/".join(parts[:end])


def _policy(bindings: list[Binding], version: int) -> dict[str, Any]:
    etag = base64.b64encode(b"\x07" + secrets.token_bytes(7)).decode()
    return {"version": version, "etag": etag, "bindings": bindings}


def _merged(bindings: list[Binding]) -> list[Binding]:
    """Bindings as they are kept: one for each role and condition, none without a member."""
    merged: dict[str, Binding] = {}
    for binding in bindings:
        key = json.dumps([binding.get("role"), binding.get("condition")], sort_keys=True)
        one = merged.setdefault(key, {**binding, "members": []})
        one["members"] += [member for member in binding.get("members", ()) if member not in one["members"]]
    return [binding for binding in merged.values() if binding["members"]]


def _grant(binding: Binding, member: str) -> str:
    return f"{member} {binding['role']} {json.dumps(binding.get('condition'), sort_keys=True)}"


def _grants(bindings: list[Binding]) -> Iterator[str]:
    for binding in bindings:
        for member in binding["members"]:
            yield _grant(binding, member)


def _holds(binding: Binding, attributes: Mapping[str, Value]) -> bool:
    condition = binding.get("condition")
    return condition is None or _condition(condition["expression"]).holds(attributes)


@functools.lru_cache(1024)
def _condition(text: str) -> Condition:
    return Condition(text)


def _without_condition(binding: Binding) -> Binding:
    """A conditional binding as older versions are told it: its role says that there is something to it."""
    if not binding.get("condition"):
        return dict(binding)
    return {
        "role": f"{binding['role']}_withcond_{secrets.token_hex(10)}",
        "members": list(binding["members"]),
    }
