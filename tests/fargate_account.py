"""What a Fargate task needs of an account of the embedded AWS, and short ways to run one."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import boto3

from cloudprovider.emulator.images import dask_image

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
EXECUTION = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
SECRETS = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["ssm:GetParameters", "secretsmanager:GetSecretValue"],
            "Resource": ["arn:aws:ssm:*:*:parameter/dask/*", "arn:aws:secretsmanager:*:*:secret:dask*"],
        }
    ],
}
LOGS = {
    "logDriver": "awslogs",
    "options": {"awslogs-group": "/dask", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "dask"},
}
#: As PID 1 a program is ended by SIGTERM only if it wants to be.
SLEEP = "import signal, time; signal.signal(15, lambda *a: exit(0)); time.sleep(120)"


@dataclass
class Account:
    """Clients, and what was made with them."""

    ecs: Any
    ec2: Any
    iam: Any
    ssm: Any
    logs: Any
    role: str = ""
    subnets: tuple[str, ...] = ()

    @staticmethod
    def clients():
        """A client of each service that an account needs."""
        return {name: boto3.client(name) for name in ("ecs", "ec2", "iam", "ssm", "logs")}

    def prepare(self):
        """Make roles, log group and cluster."""
        made = self.iam.create_role(RoleName="execution", AssumeRolePolicyDocument=json.dumps(TRUST))
        self.role = made["Role"]["Arn"]
        self.iam.attach_role_policy(RoleName="execution", PolicyArn=EXECUTION)
        self.iam.put_role_policy(
            RoleName="execution", PolicyName="secrets", PolicyDocument=json.dumps(SECRETS)
        )
        self.logs.create_log_group(logGroupName="/dask")
        self.ecs.create_cluster(clusterName="dask", capacityProviders=["FARGATE", "FARGATE_SPOT"])
        self.subnets = tuple(subnet["SubnetId"] for subnet in self.ec2.describe_subnets()["Subnets"])
        return self

    def define(self, code=SLEEP, container=(), beside=(), **definition):
        """Register a definition whose container runs Python code; its name is `family:revision`.

        Those beside it are told like itself, each with its code, and do not end the task by their end.
        """
        own = {
            "image": dask_image(),
            "entryPoint": ["python", "-c"],
            "logConfiguration": LOGS,
            "stopTimeout": 2,
        }
        made = self.ecs.register_task_definition(
            **{
                "family": "dask",
                "requiresCompatibilities": ["FARGATE"],
                "networkMode": "awsvpc",
                "cpu": "256",
                "memory": "512",
                "executionRoleArn": self.role,
                **definition,
            },
            containerDefinitions=[
                {"name": "dask", "command": [code], **own, **dict(container)},
                *({"essential": False, **own, **dict(one)} for one in beside),
            ],
        )["taskDefinition"]
        return f"{made['family']}:{made['revision']}"

    def order(self, definition, count=1, **parameters):
        """Call RunTask with what it needs; the whole answer."""
        network = {"subnets": list(self.subnets), "assignPublicIp": "ENABLED"}
        return self.ecs.run_task(
            **{
                "cluster": "dask",
                "taskDefinition": definition,
                "count": count,
                "launchType": "FARGATE",
                "networkConfiguration": {"awsvpcConfiguration": network},
                **parameters,
            }
        )

    def run(self, definition, count=1, **parameters):
        """Call RunTask with what it needs; the ARNs of its tasks."""
        return [task["taskArn"] for task in self.order(definition, count, **parameters)["tasks"]]

    def spot(self, definition, count=1):
        """Call RunTask for spot tasks; their ARNs."""
        network = {"subnets": list(self.subnets), "assignPublicIp": "ENABLED"}
        answer = self.ecs.run_task(
            cluster="dask",
            taskDefinition=definition,
            count=count,
            capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}],
            networkConfiguration={"awsvpcConfiguration": network},
        )
        return [task["taskArn"] for task in answer["tasks"]]

    def describe(self, arns):
        """What DescribeTasks says of tasks."""
        return self.ecs.describe_tasks(cluster="dask", tasks=arns, include=["TAGS"])["tasks"]

    def until(self, arns, *states, timeout_s=30):
        """Wait until all of some tasks are in one of these states; what they are then."""
        deadline = time.monotonic() + timeout_s
        while True:
            tasks = self.describe(arns)
            if all(task["lastStatus"] in states for task in tasks):
                return tasks
            assert time.monotonic() < deadline, [task["lastStatus"] for task in tasks]
            time.sleep(0.02)

    def lines(self, arn, container="dask"):
        """What a container of a task wrote."""
        stream = f"dask/{container}/{arn.rpartition('/')[2]}"
        events = self.logs.get_log_events(logGroupName="/dask", logStreamName=stream, startFromHead=True)
        return [event["message"] for event in events["events"]]
