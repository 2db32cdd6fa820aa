"""What Google's errors are in our tree, whichever of its services and libraries they come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["OperationError", "because", "code", "is_fine", "is_passing", "refusal", "translate"]

POLICY = "`dask cloud policy {policy}` prints the rights that are needed."
RAISE = "Ask for more at https://console.cloud.google.com/iam-admin/quotas, or use fewer or smaller machines."
SLOWER = "Other callers share your project's rates: try again in a minute."
ELSEWHERE = "Try again later, or let it be in more zones= or of more types: instance_type= may be a list."
PROJECT = "Is project= (or GOOGLE_CLOUD_PROJECT) right, and is it yours? `gcloud projects list` shows those there are."
LOGIN = "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file."
ENABLE = "Enable it with `gcloud services enable {service} --project {project}`, and try again in a minute."

#: Error codes of compute, its operations, and the other services: what they become, and what to do next.
# https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation
ERRORS: dict[str, tuple[type[CloudError], str]] = {
    **dict.fromkeys(
        ("forbidden", "IAM_PERMISSION_DENIED", "PERMISSION_DENIED", "insufficientPermissions"),
        (CredentialsError, POLICY),
    ),
    **dict.fromkeys(("accessNotConfigured", "SERVICE_DISABLED"), (CredentialsError, ENABLE)),
    **dict.fromkeys(
        ("authError", "required", "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_TYPE_UNSUPPORTED"),
        (CredentialsError, f"Google does not know your credentials, or they have expired. {LOGIN}"),
    ),
    **dict.fromkeys(
        ("CONSUMER_INVALID", "USER_PROJECT_DENIED", "UNKNOWN_PROJECT", "projectNotFound"),
        (ConfigError, PROJECT),
    ),
    **dict.fromkeys(("BILLING_DISABLED", "billingNotEnabled"), (CredentialsError, "Enable billing for it.")),
    **dict.fromkeys(
        ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"),
        (QuotaError, SLOWER),
    ),
    **dict.fromkeys(
        ("QUOTA_EXCEEDED", "quotaExceeded", "limitExceeded", "RESOURCE_LIMIT_EXCEEDED"), (QuotaError, RAISE)
    ),
    # https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-resource-availability
    **dict.fromkeys(
        (
            "RESOURCE_POOL_EXHAUSTED",
            "STOCKOUT",
            "insufficientCapacity",
            "VM_MIN_COUNT_NOT_REACHED",
            "ZONE_RESOURCE_POOL_EXHAUSTED",
            "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
            "zoneResourcePoolExhausted",
        ),
        (CapacityError, ELSEWHERE),
    ),
    "IP_SPACE_EXHAUSTED": (CapacityError, "The subnetwork has no free addresses: pass subnetwork= a larger one."),
    "UNSUPPORTED_OPERATION": (ConfigError, "Not every zone has every type: pass other zones= or another type."),
    **dict.fromkeys(
        ("alreadyExists", "RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"),
        (CloudError, "Something else has that name: choose another name= for the cluster."),
    ),
}  # fmt: skip
#: What the texts of errors mean that share a code, most telling first.
TEXTS: tuple[tuple[str, type[CloudError], str], ...] = (
    (r"has not been used in project|api .* is disabled", CredentialsError, ENABLE),
    (r"billing (must be|account|has been|to be) ", CredentialsError, "Enable billing for the project."),
    (r"unknown project|the resource 'projects/[^/']+' was not found", ConfigError, PROJECT),
    (
        r"the resource 'projects/[^/']+/regions/[^/']+' was not found",
        ConfigError,
        "Is region= right? `gcloud compute regions list` shows those there are.",
    ),
    (
        r"the resource 'projects/[^/']+/zones/[^/']+' was not found|invalid value for field 'zone'",
        ConfigError,
        "Is zones= right? `gcloud compute zones list` shows those there are.",
    ),
    (
        r"resource pool exhausted|does not have enough resources|currently unavailable|stockout",
        CapacityError,
        ELSEWHERE,
    ),
    (
        r"ip.space.*exhausted|no free (internal )?(ip )?addresses",
        CapacityError,
        "The subnetwork has no free addresses: pass subnetwork= a larger one.",
    ),
    (r"rate.?limit|requests per|queries per", QuotaError, SLOWER),
    (r"quota .*exceeded|exceeded .*quota", QuotaError, RAISE),
    (
        r"service ?account.*(not found|does not exist)|serviceAccounts?/[^ ]+ was not found",
        ConfigError,
        "Is service_account= right? A new one takes up to a minute to be known everywhere.",
    ),
    (r"(global/images/|image)[^ ]*' (was not found|is not ready)", ConfigError, "Is machine_image= right?"),
    (r"machineTypes?/[^ ]*' (was not found|does not exist)", ConfigError, "Not every zone has every type."),
    (
        r"(networks|subnetworks)/[^ ]*' (was not found|does not exist)",
        ConfigError,
        "Are network= and subnetwork= right, and in this region?",
    ),
)
#: A permission's name in a refusal: `compute.instances.create`.
PERMISSION = re.compile(r"'([a-z]+\.[A-Za-z]+\.[A-Za-z]+)'")
#: A service's name in a refusal: `compute.googleapis.com`.
SERVICE = re.compile(r"([a-z]+\.googleapis\.com)")
#: Words of codes that are the HTTP status's, where an answer has no code.
STATUS = {401: "UNAUTHENTICATED", 403: "forbidden", 404: "notFound", 409: "alreadyExists", 429: "rateLimitExceeded"}  # fmt: skip
#: HTTP answers after which the same request may be made again.
PASSING = frozenset({429, 500, 502, 503, 504})


class OperationError(Exception):
    """Why an operation came to nothing, in Google's words.

    Parameters
    ----------
    code
        Such as `ZONE_RESOURCE_POOL_EXHAUSTED`.
    message
        What Google says of it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def is_passing(error: Exception) -> bool:
    """Whether the same request may be made again: every change has a request id."""
    import requests
    from google.auth.exceptions import TransportError

    if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.Timeout)):
        return True
    if isinstance(error, TransportError):
        return True
    kind, advice = ERRORS.get(code(error), (None, ""))
    if advice == SLOWER:
        return True
    if kind is None:
        kind, _ = because(str(error)) or (None, "")
    return kind is None and getattr(error, "code", None) in PASSING


def code(error: BaseException | None) -> str:
    """The code of Google's error, or of the one that an error of ours was raised from."""
    if error is None:
        return ""
    if isinstance(error, OperationError):
        return error.code
    return next(_codes(error), "") or (code(error.__cause__) if isinstance(error, CloudError) else "")


def _codes(error: BaseException) -> Iterator[str]:
    """Google's codes of an error, the most telling first."""
    status = getattr(error, "code", None)
    if not isinstance(status, int):
        return
    said = [entry.get("reason") for entry in getattr(error, "errors", ()) if isinstance(entry, dict)]
    every = [str(one) for one in [getattr(error, "reason", None), *said] if one]
    yield from (one for one in every if one in ERRORS)
    yield from every
    yield STATUS.get(int(status), "")


def is_fine(error: BaseException, fine: Collection[int | str]) -> bool:
    status = getattr(error, "code", None)
    return bool(fine) and (code(error) in fine or (isinstance(status, int) and int(status) in fine))


def translate(error: Exception, where: str, *, policy: str = "gcp") -> Exception | None:
    """What an error of Google's libraries is in our tree; None for what is none of theirs.

    Parameters
    ----------
    error, where
        What was raised, and in which project.
    policy
        The name of the role with the permissions that are needed.
    """
    if isinstance(error, CloudError):
        return error
    module = type(error).__module__
    if module.startswith("google.auth"):
        return _of_credentials(error, where)
    if module.startswith("google.api_core"):
        if type(error).__name__ == "RetryError":
            cause = getattr(error, "cause", None) or error.__cause__
            return (
                translate(cause, where, policy=policy)
                if isinstance(cause, Exception)
                else CloudError(str(error))
            )
        return _of_service(error, where, policy)
    if module.startswith(("requests", "urllib3")):
        return CloudError(f"Google Cloud could not be reached: {error}. Check your network.")
    return _of_ourselves(error)


def _of_ourselves(error: Exception) -> CloudError | None:
    """What the SDK raises of a request that it does not know."""
    if isinstance(error, ValueError) and "Unknown field" in str(error):
        return ConfigError(f"Compute Engine knows no such request; check instance_args=. {error}")
    return None


def _of_service(error: Any, where: str, policy: str) -> CloudError:
    """What a service's refusal is."""
    metadata = dict(getattr(error, "metadata", None) or {})
    message = str(getattr(error, "message", error))
    # The method and the address come first: https://github.com/googleapis/python-api-core
    what, _, said = (
        message.partition(": ")
        if re.match(r"(GET|POST|PUT|PATCH|DELETE) http", message)
        else ("", "", message)
    )
    verb, _, url = what.partition(" ")
    path = url.partition("?")[0].rpartition("/projects/")[2].partition("/")[2]
    return refusal(
        f"{verb} {path}".strip() or "a call", code(error), said or message, where, policy, metadata
    )


def refusal(
    what: str, code: str, said: str, where: str, policy: str, metadata: Mapping[str, str] | None = None
) -> CloudError:
    """A refusal by its code, or by its text where a code says little."""
    metadata = metadata or {}
    kind, advice = ERRORS.get(code, (CloudError, ""))
    if kind is CloudError or advice is POLICY:
        kind, advice = because(said) or (kind, advice)
    if advice is ENABLE:
        service = metadata.get("service") or (SERVICE.findall(said) or ["compute.googleapis.com"])[0]
        project = metadata.get("consumer", "").removeprefix("projects/") or where
        advice = ENABLE.format(service=service, project=where if project.isdecimal() else project)
        return CredentialsError(f"{service} is not enabled in project {where}: {_short(said)} {advice}")
    if advice is POLICY:
        named = metadata.get("permission") or next(iter(PERMISSION.findall(said)), "")
        right = f"lack {named}" if named else f"may not {what}"
        return CredentialsError(
            f"Your Google Cloud credentials {right} in project {where}: {_short(said)} {POLICY.format(policy=policy)}"
        )
    return kind(
        f"Google Cloud refused {what} in {where} ({code or 'no code'}): {_short(said)} {advice}".strip()
    )


def _short(message: str) -> str:
    """The message as a sentence."""
    said = " ".join(message.split())[:600]
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _of_credentials(error: Exception, where: str) -> CloudError:
    """What google-auth raises."""
    name, said = type(error).__name__, str(error)
    if name == "TransportError":
        return CloudError(f"Google Cloud could not be reached: {said}. Check your network.")
    if "reasonable timeframe" in said or "iat" in said.split():
        return CredentialsError(
            f"Google refused your credentials, for this computer's clock is wrong: set it right, best by NTP. {said}"
        )
    if name == "RefreshError":
        return CredentialsError(
            f"Your Google credentials for {where} are not accepted any more: {said}. {LOGIN}"
        )
    return CredentialsError(f"No usable Google Cloud credentials were found: {said} {LOGIN}")


def because(text: str) -> tuple[type[CloudError], str] | None:
    """What a reason in words means, and what to do next; None when nobody knows."""
    for pattern, kind, advice in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, advice
    return None
