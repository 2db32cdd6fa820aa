"""The operations of Azure's management API, as its own SDK knows them: method, path, what is sent and answered."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cloudprovider.emulator.azure_models import is_model, problems
from cloudprovider.emulator.azure_wire import AzureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudprovider.emulator.azure_models import Problem
    from cloudprovider.emulator.azure_wire import Reply

__all__ = ["Operation", "check", "check_answer", "find", "operations"]

#: Which groups of operations of which package are answered here.
GROUPS = {
    "azure.mgmt.compute": (
        *("VirtualMachines", "VirtualMachineScaleSets", "VirtualMachineScaleSetVMs", "ResourceSkus", "Usage"),
        *("Disks", "Images", "VirtualMachineImages", "GalleryImageVersions", "SharedGalleryImageVersions"),
        *("CommunityGalleryImageVersions", "Galleries", "GalleryImages"),
    ),
    "azure.mgmt.network": (
        *("VirtualNetworks", "Subnets", "NetworkSecurityGroups", "SecurityRules", "NetworkInterfaces"),
        *("PublicIPAddresses", "BastionHosts", "Usages", "NatGateways", "ApplicationSecurityGroups"),
    ),
    "azure.mgmt.resource.resources": ("ResourceGroups", "Providers", "Resources"),
}
PROVIDER = re.compile(r"/providers/Microsoft\.(\w+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation.

    Parameters
    ----------
    service, name
        Such as `compute` and `VirtualMachines.CreateOrUpdate`.
    method, path
        The path as its parts; what varies is None.
    names
        What varies, in the SDK's own words, in the order of the path.
    version
        The api-version that this SDK asks for: none newer is known.
    sent, answered
        Model class, or None; `listed` says that there are many of it, in pages.
    """

    service: str
    name: str
    method: str
    path: tuple[str | None, ...]
    names: tuple[str, ...]
    version: str
    sent: Any = None
    answered: Any = None
    listed: bool = False

    def fits(self, parts: list[str]) -> bool:
        """Whether a path, in lower case, is of this operation."""
        return len(parts) == len(self.path) and all(
            mine is None or mine == given for mine, given in zip(self.path, parts, strict=True)
        )


@functools.cache
def operations() -> Mapping[tuple[str, int], list[Operation]]:
    """Every operation, by method and length of its path."""
    found: dict[tuple[str, int], list[Operation]] = {}
    for package, groups in GROUPS.items():
        for operation in _of_package(package, groups):
            found.setdefault((operation.method, len(operation.path)), []).append(operation)
    for known in found.values():
        known.sort(key=lambda one: one.path.count(None))  # what is named goes before what varies
    return found


def find(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """The operation that a request is, and what fills its path; None when there is none."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    lowered = [part.lower() for part in parts]
    for one in operations().get((method, len(parts)), ()):
        if one.fits(lowered):
            values = [part for mine, part in zip(one.path, parts, strict=True) if mine is None]
            return one, dict(zip(one.names, values, strict=True))
    return None


def check(operation: Operation, body: Any) -> None:
    """Refuse a body that is not what the operation takes, in the words of its service."""
    if operation.sent is None:
        return
    if body is None and operation.method != "POST":
        text = "The request content was invalid and could not be deserialized: 'Required body is missing'."
        raise AzureError(400, "InvalidRequestContent", text)
    if wrong := next(problems(operation.sent, body, path=""), None) if body is not None else None:
        raise _refusal(operation, wrong)


def _refusal(operation: Operation, wrong: Problem) -> AzureError:
    if (wrong.path, wrong.what) == ("location", "missing"):
        return AzureError(400, "LocationRequired", "The location property is required for this definition.")
    if wrong.what in ("missing", "value"):
        return AzureError(400, "InvalidParameter", wrong.text, target=wrong.path)
    if operation.service == "network":
        details = [{"code": "InvalidJson", "message": wrong.text}]
        return AzureError(400, "InvalidRequestFormat", "Cannot parse the request.", details=details)
    text = f"The request content was invalid and could not be deserialized: '{wrong.text}'."
    return AzureError(400, "InvalidRequestContent", text, target=wrong.path)


def check_answer(operation: Operation, reply: Reply) -> None:
    """Refuse to answer what the operation never answers: it would be an error of the emulator."""
    if operation.answered is None or reply.body is None:
        return
    body = reply.body["value"] if operation.listed else reply.body
    found = body if isinstance(body, list) else [body]
    for one in found[:3]:
        if wrong := next(problems(operation.answered, one, answer=True), None):
            name = f"{operation.service}:{operation.name}"
            raise AzureError(500, "EmulatorBug", f"The emulator's answer to {name} is wrong: {wrong.text}")


def _of_package(package: str, groups: tuple[str, ...]) -> Iterator[Operation]:
    module = importlib.import_module(f"{package}.operations._operations")
    models = importlib.import_module(f"{package}.models")
    builders = {
        name.replace("_", "").lower(): builder
        for name, builder in vars(module).items()
        if name.startswith("build_")
    }
    for group in groups:
        kind = getattr(module, f"{group}Operations")
        for method, function in inspect.getmembers(kind, inspect.isfunction):
            plain = method.removeprefix("begin_")
            builder = builders.get(f"build{group.lower()}{plain.replace('_', '')}request")
            if not method.startswith("_") and builder:
                yield _operation(f"{group}.{_camel(plain)}", builder, inspect.signature(function), models)


def _operation(name: str, builder: Any, signature: inspect.Signature, models: Any) -> Operation:
    given = {
        parameter.name: "0" if parameter.kind is parameter.KEYWORD_ONLY else f"varies{parameter.name}"
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.default is parameter.empty
    }
    request = builder(**given)
    parts = urlsplit(request.url)
    found = parts.path.strip("/").split("/")
    provider = PROVIDER.search(parts.path)
    sent = [_sent(one.annotation) for one in signature.parameters.values()]
    answered, listed = _answered(signature.return_annotation, models)
    return Operation(
        service=provider[1].lower() if provider else "resources",
        name=name,
        method=request.method,
        path=tuple(None if part.startswith("varies") else part.lower() for part in found),
        names=tuple(part.removeprefix("varies") for part in found if part.startswith("varies")),
        version=parts.query.rpartition("api-version=")[2][:10],
        sent=next(filter(None, sent), None),
        answered=answered,
        listed=listed,
    )


def _sent(annotation: Any) -> Any:
    """The model of a parameter that is a body."""
    return next((one for one in (annotation, *typing.get_args(annotation)) if is_model(one)), None)


def _answered(annotation: Any, models: Any) -> tuple[Any, bool]:
    """The model that is answered, and whether there are many of it."""
    listed = getattr(typing.get_origin(annotation), "__name__", "") == "ItemPaged"
    kind = next(iter(typing.get_args(annotation)), annotation)
    if isinstance(kind, (str, typing.ForwardRef)):
        name = kind if isinstance(kind, str) else kind.__forward_arg__
        kind = getattr(models, name.rpartition(".")[2], None)
    return (kind if is_model(kind) else None), listed


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
