"""Service quotas: what an account may have at once, and the API that tells it.

https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.wire import Request

#: What an account of this cloud has when its profile does not say: more than anyone needs here.
AMPLE = 1_000_000.0


@dataclass(frozen=True)
class Quota:
    """One quota.

    Parameters
    ----------
    service, code, name
        As Service Quotas tells them.
    default
        What AWS gives a new account.
    market
        `on-demand` or `spot`.
    families
        First letters of the instance families it is for; empty for Fargate.
    """

    service: str
    code: str
    name: str
    default: float
    market: str
    families: tuple[str, ...] = ()


STANDARD = ("a", "c", "d", "h", "i", "m", "r", "t", "z")
QUOTAS = (
    Quota("fargate", "L-3032A538", "Fargate On-Demand vCPU resource count", 6, "on-demand"),
    Quota("fargate", "L-36FBB829", "Fargate Spot vCPU resource count", 6, "spot"),
    Quota(
        "ec2",
        "L-1216C47A",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        5,
        "on-demand",
        STANDARD,
    ),
    Quota(
        "ec2",
        "L-34B43A08",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
        5,
        "spot",
        STANDARD,
    ),
    Quota("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances", 0, "on-demand", ("g", "vt")),
    Quota("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests", 0, "spot", ("g", "vt")),
    Quota("ec2", "L-417A185B", "Running On-Demand P instances", 0, "on-demand", ("p",)),
    Quota("ec2", "L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests", 0, "spot", ("p",)),
    Quota("ec2", "L-1945791B", "Running On-Demand Inf instances", 0, "on-demand", ("inf",)),
    Quota("ec2", "L-B5D1601B", "All Inf Spot Instance Requests", 0, "spot", ("inf",)),
    Quota("ec2", "L-74FC7D96", "Running On-Demand F instances", 0, "on-demand", ("f",)),
    Quota("ec2", "L-88CF9481", "All F Spot Instance Requests", 0, "spot", ("f",)),
    Quota("ec2", "L-7295265B", "Running On-Demand X instances", 0, "on-demand", ("x",)),
    Quota("ec2", "L-E3A00192", "All X Spot Instance Requests", 0, "spot", ("x",)),
)


def family(instance_type: str) -> str:
    """The letters that an instance type begins with: `m` of `m7i.large`, `inf` of `inf2.xlarge`."""
    letters = ""
    for letter in instance_type:
        if not letter.isalpha():
            break
        letters += letter
    return letters.removesuffix("flex") or letters


def quota_of(instance_type: str, market: str) -> Quota | None:
    """The quota that an instance of this type and market counts for; None when we know of none."""
    letters = family(instance_type)
    special = next((one for one in QUOTAS if letters in one.families and one.market == market), None)
    if special is not None:
        return special
    first = letters[:1]
    return next(
        (
            one
            for one in QUOTAS
            if first in one.families and one.market == market and one.families == STANDARD
        ),
        None,
    )


def fargate_quota(market: str) -> Quota:
    """The quota that a Fargate task of this market counts for."""
    return next(one for one in QUOTAS if one.service == "fargate" and one.market == market)


class Quotas:
    """Answers Service Quotas, by the same numbers that the cloud refuses by."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def handler(self, operation: str) -> Callable[[Request], dict[str, Any]] | None:
        """What answers an operation; None when moto does."""
        return {
            "GetServiceQuota": self.get,
            "ListServiceQuotas": self.list_them,
            "GetAWSDefaultServiceQuota": self.get_default,
            "ListAWSDefaultServiceQuotas": self.list_defaults,
        }.get(operation)

    def value(self, quota: Quota) -> float:
        """What the account may have."""
        own = self._account.profile.quotas.get(quota.code, AMPLE)
        fault = self._account.faults.market("quota", quota.market)
        return min(own, fault.room) if fault else own

    def get(self, request: Request) -> dict[str, Any]:
        """GetServiceQuota: what the account may have."""
        quota = _find(request)
        return {"Quota": _told(request.region, quota, self.value(quota))}

    def get_default(self, request: Request) -> dict[str, Any]:
        """GetAWSDefaultServiceQuota: what AWS gives a new account."""
        quota = _find(request)
        return {"Quota": _told(request.region, quota, quota.default)}

    def list_them(self, request: Request) -> dict[str, Any]:
        """ListServiceQuotas: all of one service that we know of."""
        return {"Quotas": [_told(request.region, one, self.value(one)) for one in _of_service(request)]}

    def list_defaults(self, request: Request) -> dict[str, Any]:
        """ListAWSDefaultServiceQuotas: all of one service that we know of."""
        return {"Quotas": [_told(request.region, one, one.default) for one in _of_service(request)]}


def _of_service(request: Request) -> list[Quota]:
    service = (request.parameters or {})["ServiceCode"]
    found = [one for one in QUOTAS if one.service == service]
    if not found:
        raise AWSError(
            "NoSuchResourceException", "The request failed because the specified service does not exist."
        )
    return found


def _find(request: Request) -> Quota:
    code = (request.parameters or {})["QuotaCode"]
    for one in _of_service(request):
        if one.code == code:
            return one
    raise AWSError(
        "NoSuchResourceException", "The request failed because the specified quota does not exist."
    )


def _told(region: str, quota: Quota, value: float) -> dict[str, Any]:
    names = {"fargate": "AWS Fargate", "ec2": "Amazon Elastic Compute Cloud (Amazon EC2)"}
    return {
        "ServiceCode": quota.service,
        "ServiceName": names[quota.service],
        "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:{quota.service}/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
