"""What Azure's errors are in our tree: one table of codes, and what the texts name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["because", "code", "codes", "translate"]

POLICY = "`dask cloud policy azure` prints the role that is needed."
RAISE = (
    "Ask for more at https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade, or use fewer or "
    "smaller machines."
)
SLOWER = "Other callers share the subscription's rates: try again in a minute."
ELSEWHERE = (
    "Try again later, in another region=, without zones=, or with more sizes: instance_type= may be a list."
)
LOGIN = "Run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or use a managed identity."
SUBSCRIPTION = "Pass subscription= one of `az account list`, or set AZURE_SUBSCRIPTION_ID."
AGAIN = "Somebody else changes it at this moment: try again."
IMAGE = "Is machine_image= right, and is it in this region? `az vm image list --all` shows the marketplace's."
TERMS = "Accept the image's terms with `az vm image terms accept`, and pass plan=."

# https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
#: Error codes of every service: what they become, and what to do next.
ERRORS: dict[str, tuple[type[CloudError], str]] = {
    **dict.fromkeys(
        ("AuthorizationFailed", "AuthorizationPermissionMismatch", "Forbidden", "ForbiddenByRbac"),
        (CredentialsError, POLICY),
    ),
    "LinkedAuthorizationFailed": (CredentialsError, POLICY),
    **dict.fromkeys(
        ("AuthenticationFailed", "ExpiredAuthenticationToken", "InvalidAuthenticationToken", "Unauthorized"),
        (CredentialsError, LOGIN),
    ),
    "InvalidAuthenticationTokenTenant": (CredentialsError, f"It is another tenant's. {SUBSCRIPTION}"),
    **dict.fromkeys(("InvalidSubscriptionId", "SubscriptionNotFound"), (ConfigError, SUBSCRIPTION)),
    **dict.fromkeys(
        ("DisallowedProvider", "ReadOnlyDisabledSubscription", "SubscriptionNotRegistered"),
        (CredentialsError, "The subscription may not do this: see it in the Azure portal."),
    ),
    "RequestDisallowedByPolicy": (
        CredentialsError,
        "A policy of your organisation forbids it: ask who made it.",
    ),
    "ScopeLocked": (CredentialsError, "The resource group is locked: `az lock list` shows by what."),
    **dict.fromkeys(
        ("QuotaExceeded", "ResourceQuotaExceeded", "CoreQuotaExceeded", "ResourcesQuotaExceeded"),
        (QuotaError, RAISE),
    ),
    **dict.fromkeys(
        ("PublicIPCountLimitReached", "PublicIPAddressCountLimitReached", "PublicIpAddressCountLimitReached"),
        (QuotaError, f"public=False takes no public addresses. {RAISE}"),
    ),
    "PrivateIPAddressesExhausted": (CapacityError, "Its subnet is full: pass subnet= a larger one."),
    "SubnetIsFull": (CapacityError, "Its subnet is full: pass subnet= a larger one."),
    **dict.fromkeys(
        ("SubscriptionRequestsThrottled", "TooManyRequests", "OperationThrottled", "429"),
        (QuotaError, SLOWER),
    ),
    **dict.fromkeys(
        (
            "AllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
            "SkuNotAvailable",
            "SpotAllocationFailed",
            "ZonalAllocationFailed",
        ),
        (CapacityError, ELSEWHERE),
    ),
    **dict.fromkeys(
        (
            "ImageNotFound",
            "GalleryImageNotFound",
            "PlatformImageNotFound",
            "VMImageNotFound",
            "ImageVersionDeprecated",
        ),
        (ConfigError, IMAGE),
    ),
    **dict.fromkeys(
        (
            "MarketplacePurchaseEligibilityFailed",
            "ResourcePurchaseValidationFailed",
            "VMMarketplaceInvalidInput",
        ),
        (ConfigError, TERMS),
    ),
    "ResourceGroupNotFound": (ConfigError, "Pass resource_group= one that is there, or none."),
    "ResourceGroupBeingDeleted": (CloudError, "Wait until it is gone, or pass another resource_group=."),
    **dict.fromkeys(
        ("InvalidResourceLocation", "LocationNotAvailableForResourceType", "NoRegisteredProviderFound"),
        (ConfigError, "Is region= right? `az account list-locations` shows them."),
    ),
    **dict.fromkeys(
        (
            "AnotherOperationInProgress",
            "Conflict",
            "ConflictingUserInput",
            "RetryableError",
            "OperationPreempted",
        ),
        (CloudError, AGAIN),
    ),
    "MissingSubscriptionRegistration": (CredentialsError, ""),
}
#: What codes that mean several things mean by their text, most telling first.
TEXTS = (
    (r"quota|exceeding approved|maximum number of|core.{0,20}limit", QuotaError, RAISE),
    (
        r"spot.{0,80}(capacity|evict)|insufficient capacity|do(es)? not have sufficient capacity",
        CapacityError,
        ELSEWHERE,
    ),
    (r"size .{0,60}(not available|not supported)|not available in zone", CapacityError, ELSEWHERE),
    (r"image .{0,200}(not found|does not exist)", ConfigError, IMAGE),
)
#: Codes that say nothing without what is inside them, or that say several things.
VAGUE = frozenset(
    {
        "",
        "BadRequest",
        "DeploymentFailed",
        "InvalidParameter",
        "OperationNotAllowed",
        "ResourceDeploymentFailure",
    }
)
ACTION = r"(?:perform(?:ing)? (?:the )?action|Action:) '([\w./*]+)'"
SCOPE = r"(?:over scope|Resource:) '([^']+)'"
PROVIDER = r"namespace '([\w.]+)'"


def codes(error: BaseException | None) -> Iterator[str]:
    """The codes of an error of the SDK, or of the one that an error of ours was raised from; the inmost first."""
    found = getattr(error, "error", None)
    if found is None and error is not None and error.__cause__ is not None:
        found = getattr(error.__cause__, "error", None)
    yield from _nested(found)


def _nested(found: Any) -> Iterator[str]:
    for detail in getattr(found, "details", None) or ():
        yield from _nested(detail)
    inner = getattr(found, "innererror", None)
    if isinstance(inner, dict) and inner.get("code"):
        yield str(inner["code"])
    if getattr(found, "code", None):
        yield str(found.code)


def code(error: BaseException | None) -> str:
    """The most telling code of an error; empty when it has none."""
    every = [*codes(error)]
    return next((one for one in every if one in ERRORS), every[-1] if every else "")


def translate(error: Exception, subscription: str) -> Exception | None:
    """What an error of Azure's SDK is in our tree; None for what is none of it."""
    if isinstance(error, CloudError):
        return error
    if not type(error).__module__.startswith(("azure.", "msal")):
        return None
    name = type(error).__name__
    if name in {"CredentialUnavailableError", "AuthenticationRequiredError"} or (
        name == "ClientAuthenticationError" and not getattr(error, "error", None)
    ):
        return CredentialsError(f"No usable Azure credentials were found: {_first(error)} {LOGIN}")
    if name.startswith(("ServiceRequest", "ServiceResponse", "IncompleteRead")):
        return CloudError(f"Azure could not be reached: {error}. Check your network.")
    if not hasattr(error, "status_code"):
        return CloudError(f"{error}")
    return _of_service(error, subscription)


def _of_service(error: Any, subscription: str) -> CloudError:
    """What a service's refusal is."""
    found = code(error)
    if not found and error.status_code:
        found = {401: "Unauthorized", 403: "Forbidden", 429: "429"}.get(error.status_code, "")
    said = _message(error)
    kind, advice = ERRORS.get(found) or because(said) or (CloudError, "")
    if found in VAGUE and (told := because(said)):
        kind, advice = told
    if advice is POLICY:
        return CredentialsError(_forbidden(said))
    if found == "MissingSubscriptionRegistration":
        return CredentialsError(_unregistered(said))
    if advice is SLOWER and (after := _retry_after(error)):
        advice = f"It may be asked again after {after} seconds. {SLOWER}"
    where = f" for subscription {subscription}" if advice is SUBSCRIPTION and subscription else ""
    return kind(f"Azure refused{where} ({found or error.status_code}): {_short(said)} {advice}".strip())


def _forbidden(said: str) -> str:
    action, scope = re.search(ACTION, said), re.search(SCOPE, said)
    what = f"may not perform {action.group(1)}" if action else "may not do this"
    where = f" on {scope.group(1)}" if scope else ""
    return f"Your Azure credentials {what}{where}: {_short(said)} {POLICY}"


def _unregistered(said: str) -> str:
    provider = re.search(PROVIDER, said)
    name = provider.group(1) if provider else "Microsoft.Compute"
    return (
        f"The subscription is not registered for {name} (MissingSubscriptionRegistration): "
        f"`az provider register --namespace {name}` does it, once."
    )


def _retry_after(error: Any) -> str:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return str(headers.get("Retry-After", ""))


def _message(error: Any) -> str:
    """The inmost message: outer ones say only that something inside failed."""
    found = getattr(error, "error", None)
    while inner := getattr(found, "details", None):
        found = inner[0]
    return str(getattr(found, "message", None) or getattr(error, "message", None) or error)


def _first(error: Exception) -> str:
    """The first sentence of what the chain of credentials says, which is a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") + "." if lines else ""


def _short(message: str) -> str:
    said = " ".join(message.split())[:600]
    return said if said.endswith((".", "!", "?")) else f"{said}."


def because(text: str) -> tuple[type[CloudError], str] | None:
    """What a reason in words means, and what to do next; None when nobody knows."""
    for name, (kind, advice) in ERRORS.items():
        if kind in (CapacityError, QuotaError) and re.search(rf"\b{name}\b", text):
            return kind, advice
    for pattern, kind, advice in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, advice
    return None
