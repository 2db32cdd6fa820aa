"""What the embedded EC2 refuses, in EC2's own words: bad orders, no capacity, quotas, rates, permissions."""

from __future__ import annotations

import base64
import json
import time
from email.utils import parsedate_to_datetime

import boto3
import pytest
from botocore.exceptions import ClientError
from ec2_account import Machines, fleet_ids, ids_of

from cloudprovider.emulator.quotas import QUOTAS, quota_of

BAD = {
    "unknown type": ({"InstanceType": "m9x.large"}, r"InvalidParameterValue.*Invalid value 'm9x.large'"),
    "type of another architecture": (
        {"InstanceType": "m7g.large"},
        r"InvalidParameterValue.*architecture 'arm64' of the .* type does not match the architecture 'x86_64'",
    ),
    "type that the zone lacks": (
        {"Placement": {"AvailabilityZone": "us-east-1e"}},
        r"Unsupported.*\(m7i.xlarge\) is not supported in your requested Availability Zone \(us-east-1e\)",
    ),
    "unknown zone": ({"Placement": {"AvailabilityZone": "us-east-1z"}}, r"InvalidParameterValue.*us-east-1z"),
    "unknown image": ({"ImageId": "ami-0123456789abcdef0"}, r"InvalidAMIID.NotFound.*ami-0123456789abcdef0"),
    "no image's id": ({"ImageId": "debian"}, r"InvalidAMIID.Malformed"),
    "unknown key": ({"KeyName": "mine"}, r"InvalidKeyPair.NotFound.*'mine'"),
    "unknown subnet": ({"SubnetId": "subnet-01"}, r"InvalidSubnetID.NotFound.*subnet-01"),
    "unknown group": ({"SecurityGroupIds": ["sg-01"]}, r"InvalidGroup.NotFound.*sg-01"),
    "unknown profile": (
        {"IamInstanceProfile": {"Name": "none"}},
        r"InvalidParameterValue.*Value \(none\) for parameter iamInstanceProfile.name is invalid",
    ),
    "user data too long": (
        {"UserData": "x" * 16385},
        r"InvalidParameterValue.*User data is limited to 16384 bytes",
    ),
    "subnet beside interfaces": (
        {"SubnetId": "subnet-01", "NetworkInterfaces": [{"DeviceIndex": 0}]},
        r"InvalidParameterCombination.*instance-level subnet ID",
    ),
    "more than most": ({"MinCount": 3, "MaxCount": 2}, r"InvalidParameterValue"),
    "asked only": ({"DryRun": True}, r"DryRunOperation"),
}


@pytest.fixture(scope="module")
def account(bare_process, bare_clients):
    """One account for all orders that are refused."""
    bare_process.reset(profile="instant")
    with bare_process.active():
        yield Machines(**bare_clients).prepare()


@pytest.mark.parametrize("name", BAD)
def test_bad_order_is_refused(account, name):
    """What cannot be ordered is refused as EC2 refuses it, and starts nothing."""
    given, words = BAD[name]
    with pytest.raises(ClientError, match=words):
        account.run(**given)

    assert [] == account.look()


def test_user_data_may_be_as_long_as_the_limit(machines):
    """16,384 raw bytes are taken, however long their base64 is."""
    data = b"#" * 16384
    [made] = ids_of(machines.run(UserData=data.decode()))
    told = machines.ec2.describe_instance_attribute(InstanceId=made, Attribute="userData")

    assert data == base64.b64decode(told["UserData"]["Value"])


def test_images_of_other_architectures_and_gpus(machines):
    """The public parameters name an image for arm64 and one for GPUs, which fit such types."""
    arm = machines.run(ImageId=machines.image_of("arm64/"), InstanceType="m7g.large")
    gpu = machines.run(ImageId=machines.image_of("gpu/"), InstanceType="g5.xlarge")

    assert ["arm64", "x86_64"] == [one["Architecture"] for one in (*arm, *gpu)]


def test_fresh_profile_is_not_known_yet(machines, bare):
    """An instance profile that was only just made is refused, until EC2 knows it."""
    machines.profile("new")
    with (
        bare.inject("role-propagation", seconds=600),
        pytest.raises(ClientError, match="Invalid IAM Instance Profile name"),
    ):
        machines.run(IamInstanceProfile={"Name": "new"})

    assert 1 == len(machines.run(IamInstanceProfile={"Name": "new"}))


def test_no_capacity_by_zone_and_type(machines, bare):
    """A zone without room for a type is named with those that may have it; other types are not concerned."""
    with bare.inject("capacity", room=0, zone="us-east-1a", type="m7i.*"):
        with pytest.raises(
            ClientError, match=r"InsufficientInstanceCapacity.*\(us-east-1a\).*choosing us-east-1b"
        ):
            machines.run(Placement={"AvailabilityZone": "us-east-1a"})
        assert "us-east-1b" == machines.run()[0]["Placement"]["AvailabilityZone"]
        assert 1 == len(machines.run(InstanceType="c7i.large", Placement={"AvailabilityZone": "us-east-1a"}))
    with (
        bare.inject("capacity", room=0, market="spot"),
        pytest.raises(ClientError, match=r"InsufficientInstanceCapacity.*There is no Spot capacity"),
    ):
        machines.spot()


def test_vcpu_quotas(machines, bare):
    """Orders beyond the vCPU quota of a market are refused, by call and by fleet; the quota is what is told."""
    bare.reset(quotas={"L-1216C47A": 5, "L-34B43A08": 8})
    machines.prepare()
    quotas = boto3.client("service-quotas")

    assert 5 == quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]["Value"]
    assert 1 == len(machines.run())  # 4 vCPUs
    with pytest.raises(ClientError, match=r"VcpuLimitExceeded.*current vCPU limit of 5 allows"):
        machines.run()
    with pytest.raises(ClientError, match=r"MaxSpotInstanceCountExceeded.*Max spot instance count exceeded"):
        machines.spot(3)
    answer = machines.fleet(machines.template(), 3, market="spot")
    assert 2 == len(fleet_ids(answer))
    assert ["MaxSpotInstanceCountExceeded"] == [one["ErrorCode"] for one in answer["Errors"]]


def test_quotas_of_fargate_are_told(bare):
    """The vCPU quotas of Fargate are told by code and in a list, as large as the cloud's."""
    quotas = boto3.client("service-quotas")
    bare.inject("quota", room=12, market="spot")
    told = quotas.get_service_quota(ServiceCode="fargate", QuotaCode="L-36FBB829")["Quota"]
    listed = quotas.list_service_quotas(ServiceCode="fargate")["Quotas"]
    default = quotas.get_aws_default_service_quota(ServiceCode="fargate", QuotaCode="L-3032A538")["Quota"]

    assert ("Fargate Spot vCPU resource count", 12) == (told["QuotaName"], told["Value"])
    assert {"L-3032A538", "L-36FBB829"} == {one["QuotaCode"] for one in listed}
    assert 6 == default["Value"]
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        quotas.get_service_quota(ServiceCode="fargate", QuotaCode="L-00000000")


@pytest.mark.parametrize(
    ("kind", "market", "code"),
    [
        ("m7i.large", "on-demand", "L-1216C47A"),
        ("c7gn.large", "spot", "L-34B43A08"),
        ("inf2.xlarge", "on-demand", "L-1945791B"),
        ("i4i.large", "on-demand", "L-1216C47A"),
        ("g5.xlarge", "spot", "L-3819A6DF"),
        ("p5.48xlarge", "on-demand", "L-417A185B"),
        ("u-6tb1.metal", "on-demand", ""),
    ],
)
def test_quota_of_a_type(kind, market, code):
    """Each family counts for its own quota; what we know of none counts for none."""
    quota = quota_of(kind, market)

    assert code == (quota.code if quota else "")
    assert len(QUOTAS) == len({one.code for one in QUOTAS})


def test_rates_are_those_of_the_published_table(machines, bare):
    """RunInstances has five tokens at first and a thousand instances; other calls are not concerned."""
    slow = {"latency_s": 0, "latencies": {}, "running_s": 0.1}
    bare.reset(profile="ec2", time_scale=1000, figures=slow)
    for _ in range(5):
        machines.run()
    with pytest.raises(ClientError, match=r"RequestLimitExceeded.*Request limit exceeded") as caught:
        machines.run()
    assert 503 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert 5 == len(machines.look())
    bare.reset(profile="ec2", time_scale=1000, figures={**slow, "calls": ()})
    machines.run(990)
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        machines.run(11)


def test_refusal_can_be_decoded(machines, bare):
    """UnauthorizedOperation names the action, and its encoded message says on what and to whom."""
    allowed = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}],
    }
    with (
        bare.inject("policy", allowed=[allowed]),
        pytest.raises(ClientError, match=r"UnauthorizedOperation.*perform: ec2:RunInstances") as caught,
    ):
        machines.run()
    encoded = str(caught.value).rpartition("failure message: ")[2]
    sts = boto3.client("sts")
    told = json.loads(sts.decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"])

    assert (False, "ec2:RunInstances") == (told["allowed"], told["context"]["action"])
    with pytest.raises(ClientError, match="InvalidAuthorizationMessageException"):
        sts.decode_authorization_message(EncodedMessage="no message")


def test_orders_need_what_they_take_along(machines, bare):
    """To order with a profile its role must be passed; a fleet needs RunInstances too, and tags CreateTags."""
    machines.profile("worker")
    template = machines.template(IamInstanceProfile={"Name": "worker"})

    def lacking(call, *actions):
        allowed = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}],
        }
        with bare.inject("policy", allowed=[allowed]), pytest.raises(ClientError) as caught:
            call()
        return str(caught.value).partition("perform: ")[2].split()[0]

    tags = [{"ResourceType": "instance", "Tags": [{"Key": "k", "Value": "v"}]}]
    run = {"IamInstanceProfile": {"Name": "worker"}, "TagSpecifications": tags}
    assert "ec2:CreateTags" == lacking(lambda: machines.run(**run), "ec2:RunInstances", "iam:*")
    assert "iam:PassRole" == lacking(lambda: machines.run(**run), "ec2:*")
    assert "ec2:RunInstances" == lacking(lambda: machines.fleet(template, 1), "ec2:CreateFleet", "iam:*")
    assert "iam:PassRole" == lacking(lambda: machines.fleet(template, 1), "ec2:*")


def test_spot_prices_are_told_where_a_type_is(machines):
    """A spot price is told for each zone that has the type, below the price on demand."""
    answer = machines.ec2.describe_spot_price_history(
        InstanceTypes=["m7i.xlarge"], ProductDescriptions=["Linux/UNIX"]
    )
    prices = {one["AvailabilityZone"]: float(one["SpotPrice"]) for one in answer["SpotPriceHistory"]}

    assert {f"us-east-1{zone}" for zone in "abcdf"} == set(prices)
    assert 0 < min(prices.values()) <= max(prices.values()) < 0.2016


def test_clocks_that_disagree(machines, bare):
    """Calls signed too far from the cloud's time are refused, and the answer tells the cloud's time."""
    with bare.inject("clock-skew", seconds=3600):
        with pytest.raises(ClientError, match="RequestExpired") as caught:
            machines.look()
        with pytest.raises(ClientError, match=r"InvalidSignatureException.*is now earlier than"):
            machines.ssm.describe_parameters()
    told = caught.value.response["ResponseMetadata"]["HTTPHeaders"]["date"]

    assert 3500 < parsedate_to_datetime(told).timestamp() - time.time() <= 3601
    assert [] == machines.look()
