"""What an AWS account may run at once, as Service Quotas says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cloudprovider.provider import Quota
from cloudprovider.providers._calls import side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudprovider.providers._aws import AWS

__all__ = ["FARGATE", "Share", "quotas"]

#: Of Fargate by market: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
FARGATE = {"on-demand": "L-3032A538", "spot": "L-36FBB829"}


@dataclass(frozen=True, kw_only=True)
class Share:
    """What machines take of one quota that is counted in vCPUs.

    Parameters
    ----------
    code
        The quota's, such as `L-3032A538`.
    each
        vCPUs of one machine.
    taken
        vCPUs of the cluster's scheduler, where it counts towards the same quota.
    """

    code: str
    each: float
    taken: float = 0.0


def quotas(aws: AWS, service: str, shares: Sequence[Share]) -> tuple[Quota, ...]:
    """The quotas of a service, one GetServiceQuota each, side by side; empty when one of them is not known.

    Parameters
    ----------
    aws
        The session.
    service
        As Service Quotas calls it, such as `fargate` or `ec2`.
    shares
        What machines take of each.
    """
    found = side_by_side(partial(_quota, aws, service, share) for share in shares)
    return tuple(found) if all(found) else ()


def _quota(aws: AWS, service: str, share: Share) -> Quota | None:
    """One quota; None where the account has no value of its own, which Service Quotas then does not know."""
    request = {"ServiceCode": service, "QuotaCode": share.code}
    answer = aws.call("service-quotas", "get_service_quota", fine=["NoSuchResourceException"], **request)
    if "Value" not in (said := answer.get("Quota", {})):
        return None
    console = f"https://{aws.region}.console.aws.amazon.com/servicequotas/home/services"
    return Quota(
        name=f"{said.get('QuotaName', service)} ({share.code}) in {aws.region}",
        limit=float(said["Value"]),
        unit="vCPU",
        each=share.each,
        taken=share.taken,
        advice=f"Ask for more at {console}/{service}/quotas/{share.code}, or use fewer or smaller machines.",
    )
