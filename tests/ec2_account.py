"""An account of the embedded AWS with what EC2 machines need."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import boto3

IMAGE = "/aws/service/ecs/optimized-ami/amazon-linux-2023/{}recommended/image_id"
TYPE = "m7i.xlarge"


@dataclass
class Machines:
    """Clients of one account, and short ways to what tests ask for again and again."""

    ec2: Any
    iam: Any
    ssm: Any
    image: str = ""

    @classmethod
    def clients(cls) -> dict[str, Any]:
        """The clients, which may be shared; a refusal of theirs is not tried again."""
        config = boto3.session.Config(retries={"total_max_attempts": 1})
        return {name: boto3.client(name, config=config) for name in ("ec2", "iam", "ssm")}

    def prepare(self) -> Machines:
        """Look up the image that machines boot."""
        self.image = self.image_of()
        return self

    def image_of(self, variant: str = "") -> str:
        """The ECS-optimised image: '', 'arm64/' or 'gpu/'."""
        return self.ssm.get_parameter(Name=IMAGE.format(variant))["Parameter"]["Value"]

    def run(self, count: int = 1, **more: Any) -> list[dict[str, Any]]:
        """Order machines, as RunInstances tells them."""
        given = {"ImageId": self.image, "InstanceType": TYPE, "MinCount": count, "MaxCount": count, **more}
        return self.ec2.run_instances(**given)["Instances"]

    def spot(self, count: int = 1, **more: Any) -> list[dict[str, Any]]:
        """Order spot machines."""
        return self.run(count, InstanceMarketOptions={"MarketType": "spot"}, **more)

    def template(self, name: str = "dask", **data: Any) -> str:
        """Make a launch template; its id."""
        data = {"ImageId": self.image, "InstanceType": TYPE, **data}
        made = self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        return made["LaunchTemplate"]["LaunchTemplateId"]

    def fleet(
        self, template: str, count: int, *overrides: Any, market: str = "on-demand", **more: Any
    ) -> Any:
        """Order machines by CreateFleet."""
        config: dict[str, Any] = {
            "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "1"}
        }
        if overrides:
            config["Overrides"] = list(overrides)
        target = {"TotalTargetCapacity": count, "DefaultTargetCapacityType": market}
        return self.ec2.create_fleet(
            Type="instant", LaunchTemplateConfigs=[config], TargetCapacitySpecification=target, **more
        )

    def profile(self, name: str, *statements: dict[str, Any]) -> str:
        """Make a role that machines may take, with what it may do, and its instance profile."""
        trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
        if statements:
            self.iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy(*statements))
        self.iam.create_instance_profile(InstanceProfileName=name)
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    def look(self, *ids: str) -> list[dict[str, Any]]:
        """Machines as DescribeInstances tells them, all of them when none is named."""
        given = {"InstanceIds": list(ids)} if ids else {}
        pages = self.ec2.get_paginator("describe_instances").paginate(**given)
        return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]

    def until(self, ids: list[str], state: str, timeout_s: float = 30) -> list[dict[str, Any]]:
        """Wait until machines are in a state, and tell them."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.look(*ids)
            states = [one["State"]["Name"] for one in found]
            if set(states) == {state}:
                return found
            assert time.monotonic() < deadline, f"They are {states}, not all {state}."
            time.sleep(0.03)


def policy(*statements: dict[str, Any]) -> str:
    """A policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def ids_of(instances: list[dict[str, Any]]) -> list[str]:
    """Their ids."""
    return [one["InstanceId"] for one in instances]


def fleet_ids(answer: Any) -> list[str]:
    """The ids of the machines that a fleet started."""
    return [id for group in answer["Instances"] for id in group["InstanceIds"]]
