"""The metadata service of EC2 instances, as version 2 and, where an instance allows it, as version 1.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cloudprovider.emulator.ec2_machine import hostname

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudprovider.emulator.ec2_instances import Instances
    from cloudprovider.emulator.ec2_machine import LiveInstance
    from cloudprovider.emulator.principals import Principals

VERSION = re.compile(r"latest|\d{4}-\d\d-\d\d|1\.0")
LONGEST_S = 21600  # of a token's life
TTL = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "x-aws-ec2-metadata-token"  # noqa: S105  (a header's name)
TEXT = {"Content-Type": "text/plain", "Server": "EC2ws"}
LIVE = ("pending", "running", "shutting-down", "stopping")

Answer = tuple[int, dict[str, str], bytes]


class Metadata:
    """Answers what instances ask of their metadata service."""

    def __init__(self, instances: Instances, principals: Principals) -> None:
        self._instances = instances
        self._principals = principals
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, route: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        """Answer one request for `ID/latest/...`."""
        del body
        id, _, path = urlsplit(route).path.partition("/")
        try:
            instance = self._instances.find(id)
        except KeyError:
            return _refused(404)
        if instance.state not in LIVE or instance.metadata_options.http_endpoint == "disabled":
            return _refused(403)
        lowered = {name.lower(): value for name, value in headers.items()}
        version, _, rest = path.partition("/")
        if method == "PUT":
            return self._token(instance, rest, lowered)
        status = self._unauthorized(instance, lowered) or (0 if method in ("GET", "HEAD") else 405)
        found = None if status or not VERSION.fullmatch(version) else self._find(instance, rest)
        return _refused(status or 404) if found is None else (200, TEXT, found)

    # -- tokens --------------------------------------------------------------------------------------

    def _token(self, instance: LiveInstance, path: str, headers: Mapping[str, str]) -> Answer:
        if path.rstrip("/") != "api/token":
            return _refused(405)
        if "x-forwarded-for" in headers:  # a proxy that asks on behalf of others gets none
            return _refused(403)
        asked = headers.get(TTL, "")
        if not asked.isdigit() or not 1 <= int(asked) <= LONGEST_S:
            return _refused(400)
        token = base64.b64encode(secrets.token_bytes(42)).decode()
        with self._lock:
            over = [old for old, (_, until) in self._tokens.items() if until < time.time()]
            for old in over:
                del self._tokens[old]
            self._tokens[token] = (instance.id, time.time() + int(asked))
        return 200, {**TEXT, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds": asked}, token.encode()

    def _unauthorized(self, instance: LiveInstance, headers: Mapping[str, str]) -> int:
        """What a request is refused with; 0 when it is not."""
        token = headers.get(TOKEN)
        if token is None:
            return 401 if instance.metadata_options.http_tokens == "required" else 0
        owner, until = self._tokens.get(token, ("", 0.0))
        return 0 if owner == instance.id and time.time() < until else 401

    # -- what there is -------------------------------------------------------------------------------

    def _find(self, instance: LiveInstance, path: str) -> bytes | None:
        if path.strip("/") == "user-data":
            return base64.b64decode(instance.order.user_data) or None
        node: Any = self._tree(instance)
        for part in [part for part in path.split("/") if part]:
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
            if callable(node):
                node = node()
        return _listed(node).encode() if isinstance(node, dict) else str(node).encode()

    def _tree(self, instance: LiveInstance) -> dict[str, Any]:
        return {
            "dynamic": {"instance-identity": {"document": lambda: _identity(instance)}},
            "meta-data": self._data(instance),
        }

    def _data(self, instance: LiveInstance) -> dict[str, Any]:
        zone = str(instance.availability_zone)
        name = hostname(instance.region_name, instance.private_ip)
        data: dict[str, Any] = {
            "ami-id": instance.image_id,
            "ami-launch-index": instance.ami_launch_index,
            "hostname": name,
            "instance-action": "none",
            "instance-id": instance.id,
            "instance-life-cycle": instance.market,
            "instance-type": instance.instance_type,
            "local-hostname": name,
            "local-ipv4": instance.private_ip or "",
            "placement": {
                "availability-zone": zone,
                "availability-zone-id": lambda: _zone_id(instance, zone),
                "region": instance.region_name,
            },
            "reservation-id": instance.reservation_id,
            "security-groups": "\n".join(group.name for group in instance.security_groups),
            "services": {"domain": "amazonaws.com", "partition": "aws"},
        }
        if instance.nics:
            first = instance.nics[0]
            data["mac"] = first.mac_address
            data["network"] = {
                "interfaces": {
                    "macs": {one.mac_address: _interface(instance, one) for one in instance.nics.values()}
                }
            }
        if instance.public_ip:
            data |= {"public-ipv4": instance.public_ip, "public-hostname": instance.public_dns_name}
        if instance.key_name:
            data["public-keys"] = {"0": {"openssh-key": instance.key_name}}
        if role := _role(instance):
            data["iam"] = {
                "info": lambda: _profile(instance),
                "security-credentials": {role.name: lambda: self._credentials(instance, role)},
            }
        if instance.notice:
            data["spot"] = {
                "instance-action": json.dumps(instance.notice),
                "termination-time": instance.notice["time"],
            }
        if instance.rebalance:
            notice = json.dumps({"noticeTime": instance.rebalance})
            data["events"] = {"recommendations": {"rebalance": notice}}
        if instance.metadata_options.instance_metadata_tags == "enabled":
            data["tags"] = {"instance": dict(instance.tags)}
        return data

    def _credentials(self, instance: LiveInstance, role: Any) -> str:
        session = self._principals.session(role, instance.id)
        document = {
            "Code": "Success",
            "LastUpdated": _stamp(session.issued),
            "Type": "AWS-HMAC",
            "AccessKeyId": session.key,
            "SecretAccessKey": session.secret,
            "Token": session.token,
            "Expiration": _stamp(session.expires),
        }
        return json.dumps(document, indent=2)


def _refused(status: int) -> Answer:
    return status, TEXT, b""


def _listed(node: Mapping[str, Any]) -> str:
    """A folder as the service lists it: what is a folder itself ends in a slash."""
    return "\n".join(f"{name}/" if isinstance(value, dict) else name for name, value in sorted(node.items()))


def _role(instance: LiveInstance) -> Any:
    profile = instance.order.profile
    return profile.roles[0] if profile is not None and profile.roles else None


def _profile(instance: LiveInstance) -> str:
    profile = instance.order.profile
    document = {
        "Code": "Success",
        "LastUpdated": _stamp(time.time()),
        "InstanceProfileArn": profile.arn,
        "InstanceProfileId": profile.id,
    }
    return json.dumps(document, indent=2)


def _interface(instance: LiveInstance, one: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "device-number": one.device_index,
        "interface-id": one.id,
        "local-hostname": hostname(instance.region_name, one.private_ip_address),
        "local-ipv4s": one.private_ip_address,
        "mac": one.mac_address,
        "owner-id": instance.owner_id,
        "security-group-ids": "\n".join(group.id for group in one.group_set),
        "security-groups": "\n".join(group.name for group in one.group_set),
        "subnet-id": one.subnet.id,
        "subnet-ipv4-cidr-block": one.subnet.cidr_block,
        "vpc-id": one.subnet.vpc_id,
        "vpc-ipv4-cidr-block": instance.ec2_backend.get_vpc(one.subnet.vpc_id).cidr_block,
    }
    if one.public_ip:
        facts["public-ipv4s"] = one.public_ip
    return facts


def _zone_id(instance: LiveInstance, zone: str) -> str:
    return str(instance.ec2_backend.get_zone_by_name(zone).zone_id)


def _identity(instance: LiveInstance) -> str:
    """The instance identity document.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html
    """
    document = {
        "accountId": instance.owner_id,
        "architecture": instance.architecture,
        "availabilityZone": instance.availability_zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "kernelId": None,
        "pendingTime": _stamp(instance.created),
        "privateIp": instance.private_ip,
        "ramdiskId": None,
        "region": instance.region_name,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2)


def _stamp(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
