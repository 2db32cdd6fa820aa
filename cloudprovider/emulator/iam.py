"""moto's IAM, made anew in milliseconds: a test's account begins with AWS's thousand own policies."""

from __future__ import annotations

import copy
import functools
from typing import Any

from moto.iam import iam_backends
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend

PARTITION = "aws"


class LiveIAM(IAMBackend):  # type: ignore[misc]
    """moto's IAM whose policies of AWS's own are parsed once a process."""

    def _init_aws_policies(self) -> list[Any]:
        # moto asks the backend of every partition whose access key it is; the others have no policies here.
        if self.region_name != PARTITION:
            return []
        return [copy.copy(policy) for policy in _own(self.account_id)]

    def remove_role_from_instance_profile(self, profile_name: str, role_name: str) -> None:
        """Take a role out of a profile; moto fails where it is not in it."""
        role = self.get_role(role_name)
        if role not in self.get_instance_profile(profile_name).roles:
            raise NotFoundException(f"The role {role_name} is not in the instance profile {profile_name}.")
        super().remove_role_from_instance_profile(profile_name, role_name)

    def parsed(self) -> list[Any]:
        """AWS's own policies, which takes moto a fifth of a second."""
        policies: list[Any] = super()._init_aws_policies()
        return policies


LiveIAM.__module__ = IAMBackend.__module__  # moto finds its URLs through the module's name


@functools.cache
def _own(account: str) -> list[Any]:
    backend = LiveIAM.__new__(LiveIAM)
    backend.region_name, backend.account_id = PARTITION, account
    return backend.parsed()


def install() -> None:
    """Make moto's IAM quick in this process."""
    iam_backends.clear()
    iam_backends.backend = LiveIAM
