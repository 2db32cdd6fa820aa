"""Launch templates: made, found and deleted, in EC2's words; moto keeps them, and their versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from moto.core.types import Base64EncodedString

from cloudprovider.emulator.account import ACCOUNT
from cloudprovider.emulator.ec2_errors import invalid
from cloudprovider.emulator.ec2_filters import matches, page
from cloudprovider.emulator.ec2_instances import backend
from cloudprovider.emulator.ec2_orders import checked_user_data, find_template, tags_by_type
from cloudprovider.emulator.wire import AWSError
from cloudprovider.emulator.wire_xml import named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.ec2_instances import Instances
    from cloudprovider.emulator.wire import Request

NAME = re.compile(r"[a-zA-Z0-9().\-/_]{3,128}")
LOOKS: Mapping[str, Callable[[Any], Any]] = {
    "launch-template-name": lambda one: one.name,
}

Document = dict[str, Any]


class Templates:
    """The launch templates of one account."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def handler(self, operation: str) -> Callable[[Request], Document] | None:
        """What answers an operation; None when moto does."""
        return {
            "CreateLaunchTemplate": self.create,
            "DescribeLaunchTemplates": self.describe,
            "DeleteLaunchTemplate": self.delete,
        }.get(operation)

    def create(self, request: Request) -> Document:
        """CreateLaunchTemplate: its first version; the same token makes the same one."""
        given, network = named(request), backend(request.region)
        token = given.get("ClientToken", "")
        if known := self._instances.remembered(request, token, given):
            return {"LaunchTemplate": _told(known)}
        name = given["LaunchTemplateName"]
        if not NAME.fullmatch(name):
            raise AWSError("InvalidLaunchTemplateName.MalformedException", f"The name '{name}' is invalid.")
        if name in network.launch_template_name_to_ids:
            raise AWSError(
                "InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use."
            )
        data = dict(given["LaunchTemplateData"])
        if data.get("UserData"):
            data["UserData"] = Base64EncodedString(checked_user_data(data["UserData"]))
        tags = tags_by_type(given.get("TagSpecifications", []))
        if unknown := set(tags) - {"launch-template"}:
            raise invalid(f"'{unknown.pop()}' is not a valid taggable resource type for this operation.")
        if given.get("DryRun"):
            raise AWSError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        made = network.create_launch_template(name, given.get("VersionDescription"), data, tags)
        self._instances.remember(request, token, given, made)
        return {"LaunchTemplate": _told(made)}

    def describe(self, request: Request) -> Document:
        """DescribeLaunchTemplates: by id, by name, by filter, in pages."""
        given, network = named(request), backend(request.region)
        ids, names = given.get("LaunchTemplateIds") or [], given.get("LaunchTemplateNames") or []
        asked = [find_template(network, id, None) for id in ids]
        asked += [find_template(network, None, name) for name in names]
        found = asked or ([] if ids or names else list(network.launch_templates.values()))
        filters = given.get("Filters") or []
        found = [one for one in found if matches(_Tagged(one), filters, LOOKS)]
        found, next_token = page(found, given, smallest=1)
        return {"LaunchTemplates": [_told(one) for one in found], "NextToken": next_token}

    def delete(self, request: Request) -> Document:
        """DeleteLaunchTemplate: with all its versions."""
        given, network = named(request), backend(request.region)
        found = find_template(network, given.get("LaunchTemplateId"), given.get("LaunchTemplateName"))
        document = _told(found)
        network.delete_launch_template(None, found.id)
        network.tags.pop(found.id, None)
        return {"LaunchTemplate": document}


class _Tagged:
    """A template as filters look at it."""

    def __init__(self, template: Any) -> None:
        self.name = template.name
        self.tags = template.ec2_backend.tags.get(template.id, {})


def _told(template: Any) -> Document:
    tags = template.ec2_backend.tags.get(template.id, {})
    return {
        "LaunchTemplateId": template.id,
        "LaunchTemplateName": template.name,
        "CreateTime": template.create_time,
        "CreatedBy": f"arn:aws:iam::{ACCOUNT}:root",
        "DefaultVersionNumber": template.default_version_number,
        "LatestVersionNumber": template.latest_version_number,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
