"""What the metadata service answers is what the API says, in the metadata service's words."""

from __future__ import annotations

import pytest

from cloudprovider.emulator.metadata import ecs_container, ecs_task

ARN = "arn:aws:ecs:us-east-1:123456789012"

DEFINITION = {
    "family": "dask-demo-worker",
    "revision": 3,
    "containerDefinitions": [
        {
            "name": "dask",
            "image": "ghcr.io/dask/dask:1",
            "dockerLabels": {"team": "blue"},
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": "/dask", "awslogs-stream-prefix": "demo"},
            },
        }
    ],
}


@pytest.fixture
def task():
    return {
        "taskArn": f"{ARN}:task/dask/0123456789abcdef",
        "clusterArn": f"{ARN}:cluster/dask",
        "desiredStatus": "RUNNING",
        "lastStatus": "PENDING",
        "availabilityZone": "us-east-1a",
        "cpu": "512",
        "memory": "4096",
        "ephemeralStorage": {"sizeInGiB": 21},
        "createdAt": 1_700_000_000.5,
        "pullStartedAt": 1_700_000_001.0,
        "attachments": [
            {
                "type": "ElasticNetworkInterface",
                "details": [
                    {"name": "macAddress", "value": "0e:00:00:00:00:01"},
                    {"name": "privateIPv4Address", "value": "127.31.0.9"},
                ],
            }
        ],
        "containers": [
            {
                "name": "dask",
                "image": "ghcr.io/dask/dask:1",
                "lastStatus": "PENDING",
                "containerArn": f"{ARN}:container/dask/1",
                "runtimeId": "0123456789abcdef-1",
                "cpu": "0",
            }
        ],
    }


def test_task_says_who_and_where_it_is(task):
    """The task's document has its own name, size, zone and times, and each container's document."""
    document = ecs_task(task, DEFINITION)

    assert task["taskArn"] == document["TaskARN"]
    assert task["clusterArn"] == document["Cluster"]
    assert ("dask-demo-worker", "3") == (document["Family"], document["Revision"])
    assert {"CPU": 0.5, "Memory": 4096} == document["Limits"]
    assert {"Utilized": 0, "Reserved": 21 * 1024} == document["EphemeralStorageMetrics"]
    assert "2023-11-14T22:13:21.000000Z" == document["PullStartedAt"]
    assert "PullStoppedAt" not in document
    assert [ecs_container(task, DEFINITION, "dask")] == document["Containers"]


def test_container_says_its_address_and_log_stream(task):
    """A container's document has the address of the task's interface and the stream that its lines go to."""
    document = ecs_container(task, DEFINITION, "dask", subnet="127.31.0.0/20")

    assert ["127.31.0.9"] == document["Networks"][0]["IPv4Addresses"]
    assert "127.31.0.0/20" == document["Networks"][0]["IPv4SubnetCIDRBlock"]
    assert "127.31.0.1/20" == document["Networks"][0]["SubnetGatewayIpv4Address"]
    assert ["127.31.0.2"] == document["Networks"][0]["DomainNameServers"]
    assert "awslogs" == document["LogDriver"]
    assert {"awslogs-group": "/dask", "awslogs-stream": "demo/dask/0123456789abcdef"} == document[
        "LogOptions"
    ]
    assert "blue" == document["Labels"]["team"]
    assert {"CPU": 2} == document["Limits"]
    assert "2023-11-14T22:13:20.500000Z" == document["CreatedAt"]
    assert "StartedAt" not in document


def test_task_without_an_interface_has_no_address(task):
    """Before the interface is attached there is no address to tell."""
    task["attachments"] = []

    assert [] == ecs_container(task, DEFINITION, "dask")["Networks"][0]["IPv4Addresses"]
