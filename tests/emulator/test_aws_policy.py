"""What the embedded AWS makes of IAM's policies: their language, and who calls under them."""

from __future__ import annotations

import json

import boto3
import pytest
from botocore.exceptions import ClientError

from cloudprovider.emulator.aws_policy import Need, Unevaluated, allows, everything, verdict

RUN = "arn:aws:ecs:us-east-1:123456789012:task-definition/dask-it-worker:3"


def statement(**parts):
    """A statement that allows everything, but for what is given."""
    return {"Effect": "Allow", "Action": "*", "Resource": "*", **parts}


def says(need, *statements):
    """What a policy of these statements says."""
    return verdict([{"Version": "2012-10-17", "Statement": [*statements]}], need)


# -- actions and resources ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"Action": "ecs:RunTask"}, "Allow"),
        ({"Action": "ECS:runtask"}, "Allow"),
        ({"Action": ["s3:*", "ecs:R?nT*"]}, "Allow"),
        ({"Action": "ecs:Run"}, ""),
        ({"Action": "ecs:[R]unTask"}, ""),
        ({"Resource": "arn:aws:ecs:*:*:task-definition/dask-*:*"}, "Allow"),
        ({"Resource": "arn:aws:ecs:*:*:task-definition/DASK-*"}, ""),
        ({"Resource": ["arn:aws:ecs:*", "x"]}, "Allow"),
        ({"Effect": "Deny"}, "Deny"),
    ],
)
def test_actions_and_resources(parts, said):
    """Actions are matched in any case, resources exactly; in both only `*` and `?` are wild."""
    assert said == says(Need(action="ecs:RunTask", resource=RUN), statement(**parts))


def test_what_is_not_meant():
    """NotAction and NotResource speak of all others."""
    need = Need(action="ecs:RunTask", resource=RUN)
    not_action = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}
    not_resource = {"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:ecs:*:*:task-definition/*"}

    assert "Allow" == says(need, not_action)
    assert "" == says(Need(action="iam:PassRole"), not_action)
    assert "" == says(need, not_resource)


def test_a_denial_wins():
    """One statement that denies outweighs any number that allow."""
    need = Need(action="ecs:RunTask", resource=RUN)

    assert "Deny" == says(need, statement(), statement(Effect="Deny", Action="ecs:*"))
    assert not allows([{"Statement": [statement(), statement(Effect="Deny")]}], need)
    assert everything([json.dumps({"Statement": [statement()]})])
    assert not everything([{"Statement": [statement(), statement(Effect="Deny", Action="s3:*")]}])
    assert not everything([{"Statement": [statement(Condition={"Bool": {"aws:SecureTransport": "true"}})]}])


# -- conditions --------------------------------------------------------------------------------------------

CONTEXT = {
    "aws:requesttag/dask-cluster": "it",
    "aws:tagkeys": ["dask-cluster", "team"],
    "ecs:cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/dask",
    "ssm:overwrite": "false",
    "n": "5",
    "when": "2026-06-22T12:00:00Z",
    "from": "198.51.100.7",
}


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "met"),
    [
        ("StringEquals", "aws:RequestTag/dask-cluster", ["other", "it"], True),
        ("StringEquals", "aws:RequestTag/dask-cluster", "IT", False),
        ("StringEqualsIgnoreCase", "aws:requesttag/DASK-cluster", "IT", True),
        ("StringNotEquals", "aws:RequestTag/dask-cluster", ["a", "it"], False),
        ("StringLike", "aws:RequestTag/dask-cluster", "i?", True),
        ("StringNotLike", "aws:RequestTag/dask-cluster", "x*", True),
        ("StringEquals", "aws:RequestTag/none", "it", False),
        ("StringEqualsIfExists", "aws:RequestTag/none", "it", True),
        ("StringNotEquals", "aws:RequestTag/none", "it", True),
        ("ArnLike", "ecs:cluster", "arn:aws:ecs:*:*:cluster/d*", True),
        ("ArnEquals", "ecs:cluster", "arn:aws:ecs:*:cluster/dask", False),
        ("ArnNotLike", "ecs:cluster", "arn:aws:ecs:*:*:cluster/x", True),
        ("Bool", "ssm:Overwrite", "false", True),
        ("NumericLessThan", "n", "6", True),
        ("NumericGreaterThanEquals", "n", ["6"], False),
        ("DateLessThan", "when", "2026-07-01T00:00:00Z", True),
        ("IpAddress", "from", "198.51.100.0/24", True),
        ("NotIpAddress", "from", "198.51.100.0/24", False),
        ("Null", "aws:RequestTag/none", "true", True),
        ("Null", "aws:RequestTag/dask-cluster", "true", False),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["dask-cluster", "team", "more"], True),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["team"], False),
        ("ForAllValues:StringEquals", "aws:none", ["team"], True),
        ("ForAnyValue:StringEquals", "aws:TagKeys", ["team"], True),
        ("ForAnyValue:StringEquals", "aws:none", ["team"], False),
    ],
)
def test_conditions(operator, key, wanted, met):
    """Each operator compares as IAM's does, also a key that a call does not have."""
    need = Need(action="ecs:RunTask", resource=RUN, context=CONTEXT)

    assert met is bool(says(need, statement(Condition={operator: {key: wanted}})))


def test_all_conditions_must_be_met():
    """Several operators, and several keys of one, must all be met."""
    need = Need(action="ecs:RunTask", resource=RUN, context=CONTEXT)
    both = {
        "StringEquals": {"aws:RequestTag/dask-cluster": "it", "n": "5"},
        "Bool": {"ssm:Overwrite": "true"},
    }

    assert "" == says(need, statement(Condition=both))


def test_variables():
    """A policy variable stands for the call's value, and a wild character in braces for itself."""
    named = {"aws:requesttag/name": "it", "aws:username": "jo*"}
    need = Need(action="x:Y", resource="arn:aws:x:::it/jo*", context=named)

    assert "Allow" == says(need, statement(Resource="arn:aws:x:::${aws:RequestTag/name}/jo${*}"))
    assert "" == says(need, statement(Resource="arn:aws:x:::${aws:RequestTag/name}/other"))


def test_what_cannot_be_told_is_no_leave():
    """A key that the emulator does not tell, and an operator that it does not know, are errors."""
    need = Need(action="ec2:RunInstances", unknown=frozenset({"ec2:tenancy"}))
    with pytest.raises(Unevaluated, match="ec2:Tenancy of ec2:RunInstances"):
        says(need, statement(Condition={"StringEquals": {"ec2:Tenancy": "default"}}))
    with pytest.raises(Unevaluated, match="StringIs"):
        says(need, statement(Condition={"StringIs": {"ec2:Region": "x"}}))


# -- who calls ---------------------------------------------------------------------------------------------


@pytest.fixture
def session(bare):
    """Makes a session of somebody with these statements."""

    def of(*statements, name="somebody"):
        with bare.active(bare.login({"Version": "2012-10-17", "Statement": [*statements]}, name=name)):
            made = boto3.Session()
            made.client("sts").get_caller_identity()
        return made

    return of


def refused(call, **request):
    """What a call is refused with."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    return str(caught.value)


def test_a_refusal_names_what_and_who(session):
    """Each service refuses in its own form, with the caller, the action and the resource."""
    somebody = session(statement(Action="sts:*"))
    ecs, ec2 = somebody.client("ecs"), somebody.client("ec2")
    who = "User: arn:aws:iam::123456789012:user/somebody is not authorized to perform: "
    said = refused(ecs.stop_task, cluster="mine", task="0123")
    encoded = refused(ec2.terminate_instances, InstanceIds=["i-1"]).rpartition("message: ")[2]
    told = json.loads(
        somebody.client("sts").decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"]
    )

    assert (
        f"{who}ecs:StopTask on resource: arn:aws:ecs:us-east-1:123456789012:task/mine/0123 because no" in said
    )
    assert ("ec2:TerminateInstances", "i-1") == (
        told["context"]["action"],
        told["context"]["resource"].rpartition("/")[2],
    )
    assert "ec2:region" in {one["key"] for one in told["context"]["conditions"]["items"]}


def test_an_explicit_denial_says_so(session):
    """A statement that denies is told apart from none that allows."""
    ecs = session(statement(), statement(Effect="Deny", Action="ecs:List*")).client("ecs")

    assert "with an explicit deny in an identity-based policy" in refused(ecs.list_clusters)


def test_what_is_not_in_the_table_is_an_error(session, bare):
    """Who may do some things is refused what the emulator cannot judge; who may do all is not."""
    some, admin = session(statement(Action="elasticfilesystem:*")), session(statement(), name="admin")

    assert "it is not in its table" in refused(some.client("rds").describe_db_instances)
    assert [] == admin.client("rds").describe_db_instances()["DBInstances"]
    assert {"EmulatorCannotTell"} == {call.error for call in bare.calls if call.service == "rds"} - {""}


def test_rights_of_resources_there_are(session):
    """What a resource is tagged with decides who may end it, and what a call tags who may make it."""
    mine = statement(
        Action="ec2:DeleteSecurityGroup", Condition={"StringEquals": {"ec2:ResourceTag/team": "a"}}
    )
    make = statement(Action=["ec2:CreateSecurityGroup", "ec2:CreateTags"])
    ec2 = session(mine, make).client("ec2")

    def made(name, *tags):
        given = [{"ResourceType": "security-group", "Tags": [*tags]}] if tags else []
        request = {"GroupName": name, "Description": name, "TagSpecifications": given}
        return ec2.create_security_group(**request)["GroupId"]

    own, others = made("own", {"Key": "team", "Value": "a"}), made("others", {"Key": "team", "Value": "b"})

    assert "ec2:DeleteSecurityGroup" in refused(ec2.delete_security_group, GroupId=others)
    ec2.delete_security_group(GroupId=own)


def test_roles_are_assumed(session, bare):
    """Who a role trusts gets its rights for a while, and no more than the session's own policy leaves."""
    iam = boto3.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName="worker", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    allowed = json.dumps({"Version": "2012-10-17", "Statement": [statement(Action="ecs:*")]})
    iam.put_role_policy(RoleName="worker", PolicyName="it", PolicyDocument=allowed)
    sts = session(statement(Action="sts:AssumeRole")).client("sts")

    def acting(**more):
        given = sts.assume_role(RoleArn=arn, RoleSessionName="me", **more)["Credentials"]
        with bare.active({**bare.environ, "AWS_SESSION_TOKEN": given["SessionToken"]}):
            return boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])

    whole = acting()
    assert whole.client("sts").get_caller_identity()["Arn"].endswith("assumed-role/worker/me")
    assert whole.client("ecs").list_clusters()["clusterArns"] == []
    less = acting(Policy=json.dumps({"Statement": [statement(Action="ecs:DescribeTasks")]})).client("ecs")
    assert "because no session policy allows the ecs:ListClusters" in refused(less.list_clusters)


def test_unknown_keys(bare):
    """An access key that AWS gives, and that is nobody's here, is not taken for the account's own."""
    del bare
    stranger = boto3.Session("AKIAIOSFODNN7EXAMPLE", "secret")

    assert "InvalidClientTokenId" in refused(stranger.client("sts").get_caller_identity)
    assert "AuthFailure" in refused(stranger.client("ec2").describe_vpcs)
    assert "UnrecognizedClientException" in refused(stranger.client("ecs").list_clusters)
