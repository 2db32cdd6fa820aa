"""Requests and answers of the embedded AWS are held to botocore's own service models."""

from __future__ import annotations

import json

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider.emulator import wire
from cloudprovider.emulator.wire import AWSError

UNCHECKED = Config(parameter_validation=False, retries={"total_max_attempts": 1})


def request(service, operation, parameters):
    """A JSON request as botocore would send it."""
    headers, _ = wire.example(service, operation)
    return wire.read(headers, "/", json.dumps(parameters).encode())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "Value null at 'taskDefinition' failed to satisfy constraint: Member must not be null"),
        ({"taskDefinition": 1}, "Member must be a string"),
        ({"taskDefinition": "a", "count": "1"}, "Member must be a integer"),
        ({"taskDefinition": "a", "count": True}, "Member must be a integer"),
        ({"taskDefinition": "a", "launchType": "SPOT"}, "Member must satisfy enum value set: "),
        ({"taskDefinition": "a", "nope": 1}, "Member is unknown"),
        ({"taskDefinition": "a", "tags": {"a": "b"}}, "Member must be a list"),
        ({"taskDefinition": "a", "overrides": {"secrets": []}}, r"'overrides.secrets' .* Member is unknown"),
    ],
)
def test_wrong_requests_are_refused(parameters, message):
    """What the model does not allow is refused with the service's own code, and says where."""
    with pytest.raises(AWSError, match=message) as caught:
        request("ecs", "RunTask", parameters)

    assert "InvalidParameterException" == caught.value.code


def test_overrides_have_no_secrets_and_no_entry_point():
    """A container override cannot hold secrets or an entry point: the model has no such members."""
    for member in ("secrets", "entryPoint"):
        override = {"containerOverrides": [{"name": "a", member: []}]}
        with pytest.raises(AWSError, match="Member is unknown"):
            request("ecs", "RunTask", {"taskDefinition": "a", "overrides": override})


def test_patterns_are_javas():
    """The models' regular expressions, which are Java's, hold for values."""
    request("ssm", "DescribeParameters", {"Filters": [{"Key": "Name", "Values": ["a"]}]})
    with pytest.raises(AWSError, match="Member must satisfy regular expression pattern"):
        request("logs", "CreateLogGroup", {"logGroupName": "a b"})


@given(
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=3)
)
def test_any_json_is_accepted_or_refused(parameters):
    """No JSON body breaks the check: it is a request, or an error of AWS."""
    try:
        answered = request("ecs", "ListTasks", parameters).parameters
    except AWSError as error:
        answered = error.code

    assert answered in (parameters, "InvalidParameterException")


def test_query_parameters_are_read_and_checked():
    """EC2's form parameters become what the model says, and unknown ones are refused by name."""
    headers, body = wire.example("ec2", "DescribeSubnets")
    read = wire.read(
        headers, "/", body + b"&Filter.1.Name=vpc-id&Filter.1.Value.1=a&Filter.1.Value.2=b&MaxResults=5"
    )

    assert "ec2" == read.protocol
    assert [["a", "b"]] == [list(one.values())[-1] for one in next(iter(read.parameters.values()))]
    for wrong, code in [
        (b"&Fitler.1.Name=x", "UnknownParameter"),
        (b"&MaxResults=x", "InvalidParameterValue"),
    ]:
        with pytest.raises(AWSError) as caught:
            wire.read(headers, "/", body + wrong)
        assert code == caught.value.code


def test_wrong_request_through_an_sdk(emulated_aws):
    """An SDK that does not check gets the service's error, and the call is remembered with it."""
    client = boto3.client("ecs", config=UNCHECKED)
    with pytest.raises(ClientError, match="Member must satisfy enum value set"):
        client.run_task(taskDefinition="a", launchType="SPOT")

    [call] = emulated_aws.calls
    assert ("RunTask", "InvalidParameterException") == (call.operation, call.error)


def test_answers_are_checked():
    """An answer with an unknown member, a wrong type or a wrong enum is found, in JSON and in XML."""
    asked = request("ecs", "ListTasks", {})
    headers, body = wire.example("ec2", "DescribeVpcs")
    asked_xml = wire.read(headers, "/", body)
    head = '<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId>'
    inside = "<vpcSet><item>{}</item></vpcSet></DescribeVpcsResponse>"

    assert [] == wire.answer_problems(asked, b'{"taskArns": ["a"]}')
    assert 1 == len(wire.answer_problems(asked, b'{"taskArns": [1]}'))
    assert 1 == len(wire.answer_problems(asked, b'{"tasks": []}'))
    for xml, count in [
        ("<vpcId>a</vpcId><isDefault>true</isDefault><state>available</state>", 0),
        ("<vpcID>a</vpcID>", 1),
        ("<isDefault>yes</isDefault>", 1),
        ("<state>there</state>", 1),
    ]:
        assert count == len(wire.answer_problems(asked_xml, (head + inside.format(xml)).encode()))


@pytest.mark.parametrize("service", ["ecs", "ec2", "iam", "logs", "secretsmanager", "ssm", "sts"])
def test_errors_are_in_the_services_protocol(emulated_aws, service):
    """An error reaches the SDK with its code and its message, whatever the protocol."""
    emulated_aws.inject("error", code="Some", message="a <reason> & more")
    calls = {
        "ecs": "list_clusters",
        "ec2": "describe_vpcs",
        "iam": "list_roles",
        "logs": "describe_log_groups",
        "secretsmanager": "list_secrets",
        "ssm": "describe_parameters",
        "sts": "get_caller_identity",
    }
    with pytest.raises(ClientError) as caught:
        getattr(boto3.client(service), calls[service])()

    assert ("Some", "a <reason> & more") == (
        caught.value.response["Error"]["Code"],
        caught.value.response["Error"]["Message"],
    )
