"""Account settings of ECS: those that were made, and AWS's defaults where none was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudprovider.emulator.account import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-account-settings.html
DEFAULTS: Mapping[str, str] = {
    "awsvpcTrunking": "disabled",
    "containerInsights": "disabled",
    "containerInstanceLongArnFormat": "enabled",
    "defaultLogDriverMode": "non-blocking",
    "fargateTaskRetirementWaitPeriod": "7",
    "serviceLongArnFormat": "enabled",
    "tagResourceAuthorization": "on",
    "taskLongArnFormat": "enabled",
}


def settings(made: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to ListAccountSettings, which is at most ten: one page."""
    own = {name: setting.value for name, setting in made.items()}
    there = {**DEFAULTS, **own} if parameters.get("effectiveSettings") else own
    wanted, value = parameters.get("name"), parameters.get("value")
    principal = f"arn:aws:iam::{ACCOUNT}:root"
    return {
        "settings": [
            {"name": name, "value": is_now, "principalArn": principal, "type": "user"}
            for name, is_now in sorted(there.items())
            if wanted in {None, name} and value in {None, is_now}
        ]
    }
