"""What keeps a cluster on Amazon EC2 from starting."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cloudprovider.doctor import of_error, ok
from cloudprovider.errors import CloudError
from cloudprovider.providers import _aws_rehearsal as rehearsal
from cloudprovider.providers import _ec2_landing as land
from cloudprovider.providers import _ec2_starts as starts
from cloudprovider.providers._aws_doctor import Doctor
from cloudprovider.providers._aws_landing import LOG_GROUP
from cloudprovider.providers._ec2_types import quotas_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cloudprovider.doctor import Finding
    from cloudprovider.providers._ec2_images import MachineImage
    from cloudprovider.providers._ec2_types import Choice

__all__ = ["EC2Doctor"]


class EC2Doctor(Doctor):
    """Looks at an account for clusters whose machines are instances."""

    policy = "aws-ec2"
    table = "ec2"

    def more(self) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
        """Which types there would be, and how many of them."""
        return [("types", self.types)]

    def types(self) -> Iterator[Finding]:
        """Which types the machines would be of, from which image, and how many the account may run."""
        choices, images = starts.choose(self.aws, self.config)
        for role, choice in choices.items():
            yield ok("types", f"{role.capitalize()}: {choice.reason}, from {images[role].id}.")
        sizes = {
            role: (choice.types[0].name, float(choice.types[0].vcpu)) for role, choice in choices.items()
        }

        def ask(_: Any, market: str) -> Any:
            return quotas_of(self.aws, sizes, "worker", [market])

        try:
            yield from self.quotas(ask)
        except CloudError as error:
            yield of_error("quotas", error)

    def parts(self) -> Iterator[tuple[str, Callable[[], bool]]]:
        """The parts of the landing, and whether each is there."""
        yield from super().parts()
        if self.config.role:
            return
        reached = self.config.reached_by_ssm
        wanted = [land.MANAGED if role in reached else land.MACHINE for role in ("scheduler", "worker")]
        for name in dict.fromkeys(role.name for role in wanted):
            yield f"instance profile {name}", partial(self._has_profile, name)

    def roles(self) -> Mapping[str, str | None]:
        """By the name of a role or instance profile of ours, the one of the user's instead; None where none is needed.

        The role in a profile of the user's may have any name: whether it may be passed, only an order tells.
        """
        if self.config.role:
            return dict.fromkeys((land.MACHINE.name, land.MANAGED.name))
        return {} if self.config.reached_by_ssm else {land.MANAGED.name: None}

    def _has_profile(self, name: str) -> bool:
        found = self.aws.call("iam", "get_instance_profile", InstanceProfileName=name, fine=["NoSuchEntity"])
        return bool(found.get("InstanceProfile", {}).get("Roles"))

    def text(self, name: str) -> str:
        """A policy of ours for this account and region, as JSON."""
        from cloudprovider.providers.ec2 import policy

        return policy(
            name,
            account=self.account,
            region=self.aws.region,
            partition=self.aws.partition,
            log_group=self.config.log_group or LOG_GROUP,
        )

    def rehearsals(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """EC2's calls that can be rehearsed: action, operation and request."""
        yield from super().rehearsals()
        choices, images = starts.choose(self.aws, self.config)
        request = self._machine(choices, images)
        yield "ec2:RunInstances", "run_instances", rehearsal.of_machine(request)
        yield "ec2:CreateLaunchTemplate", "create_launch_template", rehearsal.template_request(request)

    def _machine(self, choices: Mapping[str, Choice], images: Mapping[str, MachineImage]) -> dict[str, Any]:
        """One machine like the scheduler's, in a zone that has its type."""
        kind = choices["scheduler"].types[0].name
        zones = choices["scheduler"].zones[kind]
        there = self.network.roomiest if self.network else {}
        return {
            "ImageId": images["scheduler"].id,
            "InstanceType": kind,
            "SubnetId": next((there[zone] for zone in zones if zone in there), ""),
            "MinCount": 1,
            "MaxCount": 1,
        }
