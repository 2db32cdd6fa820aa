"""What must go well before a task's containers start, and the reasons ECS gives where it does not.

The words are those that users report of Fargate's platform version 1.4.0.
"""

from __future__ import annotations

import json
import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cloudprovider.emulator import ec2, roles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.ecs_task import Container, Task

SSM_ARN = re.compile(r"arn:[\w-]+:ssm:([\w-]+):\d+:parameter(/?.+)")
SECRET_ARN = re.compile(r"(arn:[\w-]+:secretsmanager:([\w-]+):\d+:secret:[^:]+):?([^:]*):?([^:]*):?([^:]*)")
PLATFORMS = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}
NO_POLICY = "because no identity-based policy allows the {action} action"


class BootFailure(Exception):  # noqa: N818  (not an error of ours)
    """Why a task's containers cannot start, as its stoppedReason says it."""


def resource_failure(what: str) -> BootFailure:
    """A failure before any image is pulled."""
    return BootFailure(f"ResourceInitializationError: {what}")


def check_way_out(task: Task, network: Any, service: str) -> None:
    """Raise when a task cannot reach a service of AWS that its start needs."""
    subnet, public = task.way
    if ec2.has_way_out(network, subnet, public=public) or service in ec2.endpoints(network, subnet):
        return
    if service == "logs":
        raise resource_failure(
            "failed to validate logger args: The task cannot find the Amazon CloudWatch log group defined in "
            "the task definition. There is a connection issue between the task and Amazon CloudWatch. "
            "Check your network configuration. : signal: killed"
        )
    raise resource_failure(
        "unable to pull secrets or registry auth: The task cannot pull secrets from AWS "
        f"{'Systems Manager' if service == 'ssm' else 'Secrets Manager'}. There is a connection issue between "
        "the task and AWS. Check your task network configuration. execution resource retrieval failed: "
        f"unable to retrieve secrets from {'ssm' if service == 'ssm' else 'asm'}: service call has been "
        f'retried 5 time(s): RequestCanceled: request context canceled caused by: Post "https://{service}.'
        f'{task.region}.amazonaws.com/": dial tcp: i/o timeout'
    )


def check_image(account: Account, task: Task, network: Any, container: Container) -> None:
    """Raise when a container's image cannot be pulled."""
    name = container.definition["image"]
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    head = f"CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref {name}"
    subnet, public = task.way
    if not ec2.has_way_out(network, subnet, public=public) and "ecr.dkr" not in ec2.endpoints(
        network, subnet
    ):
        url = f"https://{registry}/v2/{repository}/manifests/{tag}"
        raise BootFailure(f'{head}: failed to do request: Head "{url}": dial tcp: i/o timeout')
    if any(fnmatchcase(name, fault.image or "*") for fault in account.faults.of("image-pull")):
        raise BootFailure(
            f"{head}: unexpected status from HEAD request to "
            f"https://{registry}/v2/{repository}/manifests/{tag}: 500 Internal Server Error"
        )
    if not account.images.exists(name):
        raise BootFailure(f"{head}: {name}: not found")
    if task.architecture not in account.images.find(name).architectures:
        raise BootFailure(
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): image Manifest does not "
            f"contain descriptor matching platform '{PLATFORMS[task.architecture]}'"
        )


def resolved_secrets(task: Task, network: Any, container: Container) -> dict[str, str]:
    """The variables of a container whose values come from a store."""
    return {
        secret["name"]: _secret(task, network, secret["valueFrom"])
        for secret in container.definition.get("secrets") or []
    }


def _secret(task: Task, network: Any, reference: str) -> str:
    if match := SECRET_ARN.fullmatch(reference):
        check_way_out(task, network, "secretsmanager")
        return _of_secrets_manager(task, *match.groups())
    check_way_out(task, network, "ssm")
    match = SSM_ARN.fullmatch(reference)
    region, name = match.groups() if match else (task.region, reference)
    return _of_parameter_store(task, region, name)


def _of_parameter_store(task: Task, region: str, name: str) -> str:
    from moto.ssm import ssm_backends

    head = (
        "unable to pull secrets or registry auth: execution resource retrieval failed: "
        "unable to retrieve secrets from ssm: "
    )
    arn = f"arn:aws:ssm:{region}:{task.account}:parameter/{name.lstrip('/')}"
    _check_permission(task, "ssm:GetParameters", arn, head)
    found = ssm_backends[task.account][region].get_parameters([name])
    if not found and name.startswith("/") and "/" not in name[1:]:
        found = ssm_backends[task.account][region].get_parameters([name[1:]])
    if not found:
        raise resource_failure(f"{head}invalid ssm parameters: {name}")
    parameter = next(iter(found.values()))
    return str(parameter.value_for_ecs() if hasattr(parameter, "value_for_ecs") else _decrypted(parameter))


def _decrypted(parameter: Any) -> str:
    return str(parameter.response_object(decrypt=True)["Value"])


def _of_secrets_manager(task: Task, arn: str, region: str, key: str, stage: str, version: str) -> str:
    from moto.core.exceptions import JsonRESTError, ServiceException
    from moto.secretsmanager import secretsmanager_backends

    head = (
        "unable to pull secrets or registry auth: execution resource retrieval failed: "
        "unable to retrieve secret from asm: "
    )
    _check_permission(task, "secretsmanager:GetSecretValue", arn, head)
    backend = secretsmanager_backends[task.account][region]
    try:
        answer = backend.get_secret_value(arn, version or "", stage or "")
    except (JsonRESTError, ServiceException) as error:
        raise resource_failure(
            f"{head}service call has been retried 1 time(s): failed to fetch secret {arn} from secrets manager: "
            "ResourceNotFoundException: Secrets Manager can't find the specified secret."
        ) from error
    text = str(answer["SecretString"])
    if not key:
        return text
    try:
        return str(json.loads(text)[key])
    except (ValueError, KeyError) as error:
        raise resource_failure(
            f"{head}retrieved secret from Secrets Manager did not contain json key {key}"
        ) from error


def _check_permission(task: Task, action: str, arn: str, head: str) -> None:
    if task.own and not task.execution_role:
        return  # the container instance's own role does it
    role = roles.find(task.account, task.execution_role)
    if role is not None and roles.allows(roles.policies(role), action, arn):
        return
    name = task.execution_role.rpartition("/")[2]
    raise resource_failure(
        f"{head}service call has been retried 1 time(s): AccessDeniedException: "
        f"User: arn:aws:sts::{task.account}:assumed-role/{name}/{task.id} is not authorized to perform: "
        f"{action} on resource: {arn} {NO_POLICY.format(action=action)}"
    )


def log_writer(task: Task, network: Any, container: Container, lock: Any) -> Callable[[str], None]:
    """What takes a container's lines, as its definition's log driver says."""
    configuration = container.definition.get("logConfiguration") or {}
    if configuration.get("logDriver") != "awslogs":
        return _nowhere
    options = configuration.get("options", {})
    check_way_out(task, network, "logs")
    region, group = options.get("awslogs-region", task.region), options.get("awslogs-group", "")
    stream = f"{options.get('awslogs-stream-prefix', 'ecs')}/{container.name}/{task.id}"
    backend = _log_stream(task, region, group, stream, options)

    def write(line: str) -> None:
        event = {"timestamp": int(time.time() * 1000), "message": line or " "}
        with lock:
            if group in backend.groups and stream in backend.groups[group].streams:
                backend.put_log_events(group, stream, [event])

    return write


def _nowhere(line: str) -> None:
    """Take a line of a container that has no log driver."""


def _log_stream(task: Task, region: str, group: str, stream: str, options: Mapping[str, str]) -> Any:
    from moto.logs import logs_backends

    head = "failed to validate logger args: create stream has been retried 1 times: "
    arn = f"arn:aws:logs:{region}:{task.account}:log-group:{group}"
    backend = logs_backends[task.account][region]
    if group not in backend.groups and options.get("awslogs-create-group") == "true":
        _check_permission(task, "logs:CreateLogGroup", f"{arn}:log-stream:", head)
        backend.create_log_group(group, {})
    if group not in backend.groups:
        raise resource_failure(
            f"{head}failed to create Cloudwatch log stream: ResourceNotFoundException: "
            "The specified log group does not exist. : exit status 1"
        )
    _check_permission(task, "logs:CreateLogStream", f"{arn}:log-stream:{stream}", head)
    if stream not in backend.groups[group].streams:
        backend.create_log_stream(group, stream)
    return backend
