"""What every AWS provider needs: one client a service, and errors in one place."""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import re
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cloudprovider.errors import (
    CapacityError,
    CloudError,
    ConfigError,
    CredentialsError,
    QuotaError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["AWS", "ahead", "because", "code", "translate"]

#: Seconds by which two clocks may seem to differ that are the same: an answer's date has whole ones.
SAME_CLOCK_S = 5.0

RENEW = "Renew them (`aws sso login`, or new keys) and try again."
POLICY = "`dask cloud policy {policy}` prints the rights that are needed."
RAISE = "Ask for more at https://console.aws.amazon.com/servicequotas, or use fewer or smaller machines."
SLOWER = "Other callers share your account's rates: try again in a minute."
LATER = "Try again later, or add subnets in other zones."
ELSEWHERE = "Try again later, or let it be in more zones= or of more types: instance_type= may be a list."
CHEAPER = "spot='fallback' orders on demand what spot refuses."
#: Codes that a clock which is wrong by more than this many seconds leads to.
SKEWED = (
    "AuthFailure",
    "InvalidSignatureException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
)
SKEW_S = 240.0
#: With what EC2 begins the part of a refusal that only STS can read.
ENCODED = "Encoded authorization failure message"
#: The action that a refusal names.
ACTION = r"perform:? ([a-z0-9-]+:\w+)"

#: What the first order of its kind in an account needs, whose refusal names no action.
LINKED = (
    "The first such call in an account makes the service's own role, which takes iam:CreateServiceLinkedRole: "
    "`dask cloud policy aws-fargate-landing` and `aws-ec2-landing` print it. Who may do so needs to only once."
)
#: Error codes of every service: what they become, and what to do next.
ERRORS: dict[str, tuple[type[CloudError], str]] = {
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"),
        (CredentialsError, POLICY),
    ),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
        (CredentialsError, f"Your AWS credentials have expired. {RENEW}"),
    ),
    **dict.fromkeys(
        (
            "AuthFailure",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        (CredentialsError, f"AWS does not know your credentials, or your clock is wrong. {RENEW}"),
    ),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": (CredentialsError, LINKED),
    "OptInRequired": (CredentialsError, "Enable the region or the service for your account first."),
    "BlockedException": (CredentialsError, "AWS has blocked your account: see your mail from AWS."),
    **dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "TooManyUpdates",
        ),
        (QuotaError, SLOWER),
    ),
    **dict.fromkeys(
        (
            "HierarchyLevelLimitExceededException",
            "InstanceLimitExceeded",
            "LimitExceeded",
            "LimitExceededException",
            "ParameterLimitExceeded",
            "RulesPerSecurityGroupLimitExceeded",
            "SecurityGroupLimitExceeded",
            "SecurityGroupsPerInterfaceLimitExceeded",
            "ServiceQuotaExceededException",
            "VcpuLimitExceeded",
        ),
        (QuotaError, RAISE),
    ),
    **dict.fromkeys(
        ("InsufficientFreeAddressesInSubnet", "InsufficientCapacity"),
        (CapacityError, LATER),
    ),
    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    **dict.fromkeys(
        (
            "InsufficientHostCapacity",
            "InsufficientInstanceCapacity",
            "InsufficientReservedInstanceCapacity",
            "UnfulfillableCapacity",
        ),
        (CapacityError, ELSEWHERE),
    ),
    "MaxSpotInstanceCountExceeded": (QuotaError, f"{RAISE} {CHEAPER}"),
    "SpotMaxPriceTooLow": (CapacityError, CHEAPER),
    "Unsupported": (
        ConfigError,
        "Not every zone has every type, nor every type every option: pass other zones= or another type.",
    ),
    "InvalidAMIID": (ConfigError, "Is ami= right, available, and in this region?"),
    "InvalidKeyPair": (ConfigError, "Is key_name= right, and is it in this region?"),
    **dict.fromkeys(
        ("InvalidLaunchTemplateId", "InvalidLaunchTemplateName"),
        (CloudError, "Did somebody delete the cluster's launch template? The next order makes it again."),
    ),
    **dict.fromkeys(
        (
            "InvalidSubnetID.NotFound",
            "InvalidGroup.NotFound",
            "InvalidVpcID.NotFound",
            "InvalidParameterValue",
        ),
        (ConfigError, "Is it in this region?"),
    ),
    "ClusterNotFoundException": (ConfigError, "Is ecs_cluster= right, and is it in this region?"),
    "PlatformTaskDefinitionIncompatibilityException": (ConfigError, "Check architecture= and task_args=."),
}

#: What the texts of general errors and of stopped tasks mean, most telling first.
TEXTS: tuple[tuple[str, type[CloudError], str], ...] = (
    (r"capacity is unavailable|no capacity|insufficient capacity", CapacityError, LATER),
    (
        r"insufficientfreeaddresses|insufficient (free|ip) addresses|no free addresses",
        CapacityError,
        "The subnets have no free addresses: pass subnets= larger ones or more of them.",
    ),
    (
        r"(?-i:RESOURCE:|AGENT)|were unable to be placed|no container instances",
        CapacityError,
        "The ECS cluster's own capacity has no room: add container instances or a capacity provider.",
    ),
    (
        r"(?-i:\bATTRIBUTE\b)",
        ConfigError,
        "No container instance fits: is architecture= theirs, and is one of subnets= in a zone of theirs?",
    ),
    (
        r"vcpus? you can run|limit on the number|quota|limit exceeded|tasks? in the provisioning",
        QuotaError,
        RAISE,
    ),
    (r"rate exceeded|throttl", QuotaError, SLOWER),
    (r"unable to assume the service linked role", CredentialsError, LINKED),
    (
        r"unable to assume the role|role is not valid",
        CredentialsError,
        "Does the role exist, and does it trust ecs-tasks.amazonaws.com? A new one takes some seconds.",
    ),
)


class AWS:
    """One session in one region, with one client a service.

    Parameters
    ----------
    region
        Such as `eu-central-1`; None for what the environment and the AWS config files say.
    clock
        Ours, in seconds since the epoch.
    policy
        The name of the policy with the rights that are needed.
    """

    def __init__(
        self,
        region: str | None = None,
        clock: Callable[[], float] = time.time,
        policy: str = "aws-fargate",
    ) -> None:
        self._wanted = region
        self._policy = policy
        self._clock = clock
        self._ahead_s = 0.0  # AWS's clock of ours
        self._clients: dict[str, Any] = {}
        self._made: Any = None
        self._lock = threading.RLock()

    @property
    def region(self) -> str:
        """The region of every call."""
        return str(self._session().region_name)

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn` and the like."""
        return str(self._session().get_partition_for_region(self.region))

    @property
    def source(self) -> str:
        """From where the credentials are, as botocore calls it, such as `env` or `sso`; empty without any."""
        found = self._session().get_credentials()
        return str(found.method) if found else ""

    def client(self, service: str) -> Any:
        """The client of a service, made once: making one costs 40 ms, reusing it nothing."""
        with self._lock:
            if service not in self._clients:
                with translated(self._translate):
                    client = self._session().client(service, config=_client_config())
                client.meta.events.register_first(f"needs-retry.{service}", _is_final)
                self._clients[service] = client
            return self._clients[service]

    def call(
        self, service: str, operation: str, /, *, fine: Collection[str] = (), **request: Any
    ) -> dict[str, Any]:
        """One call, with its errors translated.

        Parameters
        ----------
        service, operation
            Such as `ecs` and `run_task`.
        fine
            Error codes that are no error: the answer is then empty. `Code/text` asks for a text in the
            error's message as well.
        **request
            As in boto3.
        """
        with translated(self._translate):
            method = getattr(self.client(service), operation)
            try:
                answer: dict[str, Any] = method(**request)
            except Exception as error:
                if _is_fine(error, fine):
                    return {}
                raise
            self._hear(answer)
            return answer

    def now(self) -> float:
        """The time by AWS's clock, as far as its last answer tells: ours may be wrong, or jump."""
        return self._clock() + self._ahead_s

    def _hear(self, answer: Mapping[str, Any]) -> None:
        """Compare our clock with the answer's date, which has whole seconds and took a while to come."""
        said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        with contextlib.suppress(TypeError, ValueError):
            ahead_s = parsedate_to_datetime(said).timestamp() + 0.5 - self._clock()
            self._ahead_s = ahead_s if abs(ahead_s) > SAME_CLOCK_S else 0.0

    def pages(self, service: str, operation: str, key: str, /, **request: Any) -> list[Any]:
        """All items under `key` of a call that answers in pages."""
        with translated(self._translate):
            pages = [*self.client(service).get_paginator(operation).paginate(**request)]
        for page in pages[-1:]:
            self._hear(page)
        return [item for page in pages for item in page.get(key, ())]

    def _session(self) -> Any:
        with self._lock:
            if self._made is None:
                with translated(self._translate):
                    self._made = _session(self._wanted)
            return self._made

    def refusal(self, operation: str, code: str, message: str) -> CloudError:
        """What an error is that stands in an answer, as CreateFleet's do."""
        message = self._decoded(message)
        return _refusal(operation, self.region, code, message, self._policy)

    def _translate(self, error: Exception) -> Exception | None:
        region = self._made.region_name if self._made else self._wanted
        response = getattr(error, "response", None)
        if isinstance(response, dict) and ENCODED in str(error):
            said = response.setdefault("Error", {})
            said["Message"] = self._decoded(str(said.get("Message", "")))
        return translate(error, region or "no region", policy=self._policy, now=self._clock())

    def _decoded(self, message: str) -> str:
        """EC2's refusal with what its encoded half page says, where we may know it."""
        said, _, encoded = message.partition(ENCODED)
        if not encoded or re.search(ACTION, said):
            return said.strip()
        try:
            # Not `call`: a refusal of this one is no news.
            answer = self.client("sts").decode_authorization_message(EncodedMessage=encoded.strip(" :"))
            context = json.loads(answer["DecodedMessage"])["context"]
        except Exception:  # noqa: BLE001  (most people may not decode it, and then the text must do)
            return said.strip()
        return f"{said.strip()} You may not perform: {context['action']} on {context.get('resource', 'it')}."


def _session(wanted: str | None) -> Any:
    try:
        import boto3
    except ImportError as error:
        raise ConfigError("AWS needs boto3: pip install 'dask-cloud[aws]'.") from error
    session = boto3.Session(botocore_session=_core(), region_name=wanted)
    if not session.region_name:
        raise ConfigError("No AWS region: pass region='eu-central-1' or the like, or set AWS_REGION.")
    partitions = session.get_available_partitions()
    known = [name for part in partitions for name in session.get_available_regions("ecs", part)]
    if session.region_name not in known:
        near = difflib.get_close_matches(session.region_name, known, n=2)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise ConfigError(
            f"region={session.region_name!r} is no AWS region that boto3 {boto3.__version__} knows{hint} "
            "(For a new region, upgrade boto3.)"
        )
    return session


def _core() -> Any:
    """A botocore session that shares what was parsed of the service models: EC2's alone costs 150 ms."""
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return core


@functools.cache
def _loader(data_path: str | None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(data_path)


def _client_config() -> Any:
    from botocore.config import Config

    from cloudprovider import __version__

    return Config(
        # Not "adaptive": after one throttled call it holds a quiet client to one call in two seconds.
        # With every third call throttled a cluster's start and end took 37 s, here 11 s; `Pace` keeps the rates.
        retries={"mode": "standard", "total_max_attempts": 10},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        user_agent_extra=f"dask-cloud/{__version__}",
    )


def _is_final(response: tuple[Any, Mapping[str, Any]] | None, **_: Any) -> bool | None:
    """Whether a refusal is not worth asking again at once; None leaves that to botocore.

    EC2 answers that it has no capacity as if it had failed, with status 500, which botocore asks again for
    a minute; another zone, type or market is worth more.
    """
    said = response[1].get("Error", {}).get("Code", "") if response else ""
    return False if ERRORS.get(said, (None,))[0] is CapacityError else None


def code(error: BaseException | None) -> str:
    """The code of a botocore ClientError, or of the one that an error of ours was raised from."""
    response = (
        getattr(error, "response", None) or getattr(error.__cause__, "response", None) if error else None
    )
    return (
        str(response["Error"].get("Code", "")) if isinstance(response, dict) and "Error" in response else ""
    )


def _is_fine(error: Exception, fine: Collection[str]) -> bool:
    mine = code(error)
    for entry in fine:
        wanted, _, text = entry.partition("/")
        if mine == wanted and text.lower() in str(error).lower():
            return True
    return False


def translate(
    error: Exception, region: str, *, policy: str = "aws-fargate", now: float | None = None
) -> Exception | None:
    """What an error of boto3 is in our tree; None for what is none of boto3's.

    Parameters
    ----------
    error, region
        What was raised, and where.
    policy
        The name of the policy with the rights that are needed.
    now
        Seconds since the epoch by our clock, which may be what is wrong.
    """
    if isinstance(error, CloudError):
        return error
    module = type(error).__module__
    if not module.startswith(("botocore", "boto3")):
        return None
    if isinstance(getattr(error, "response", None), dict):
        return _of_service(error, region, policy, now)
    return _of_client(error, region)


def _of_service(error: Any, region: str, policy: str, now: float | None) -> CloudError:
    """What a service's refusal is."""
    said = str(error.response.get("Error", {}).get("Message", "")) or code(error)
    if code(error) in SKEWED and abs(skew := ahead(error.response, now)) > SKEW_S:
        minutes, side = f"{abs(skew) / 60:.0f} minutes", "slow" if skew > 0 else "fast"
        return CredentialsError(
            f"AWS refused {getattr(error, 'operation_name', 'a call')} in {region} ({code(error)}), for this "
            f"computer's clock is {minutes} {side}: set it right, best by NTP, and try again."
        )
    return _refusal(getattr(error, "operation_name", "a call"), region, code(error), said, policy)


def ahead(response: Mapping[str, Any], now: float | None) -> float:
    """Seconds by which the clock of whoever answered is ahead of ours, as far as the answer says."""
    said = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(said).timestamp() - now if now is not None else 0.0
    except (TypeError, ValueError):
        return 0.0


def _refusal(operation: str, region: str, code: str, said: str, policy: str) -> CloudError:
    """A service's error by its code, by what codes like it have in common, or by its text."""
    kind, advice = ERRORS.get(code) or ERRORS.get(code.partition(".")[0]) or because(said) or (CloudError, "")
    if advice is SLOWER:  # ECS calls Fargate's quota on vCPUs a throttled call, too
        kind, advice = because(said) or (kind, advice)
    action = _action(said, operation)
    if advice is POLICY:
        return CredentialsError(
            f"Your AWS credentials may not call {action} in {region}: {_short(said)} "
            f"{POLICY.format(policy=policy)}"
        )
    return kind(f"AWS refused {action} in {region} ({code}): {_short(said)} {advice}".strip())


def _action(message: str, operation: str) -> str:
    found = re.search(ACTION, message)
    return found.group(1) if found else operation


def _short(message: str) -> str:
    """The message as a sentence, without EC2's encoded half page."""
    said = message.partition(ENCODED)[0].strip()[:600]
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _of_client(error: Exception, region: str) -> CloudError | None:
    """What botocore raises without an answer of a service."""
    name = type(error).__name__
    if name in {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "CredentialRetrievalError",
    }:
        return CredentialsError(
            f"No usable AWS credentials were found: {error}. Run `aws configure` or `aws sso login`, or set "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if "SSO" in name or "Token" in name or name == "LoginRefreshRequired":
        return CredentialsError(f"Your AWS sign-on has ended: {error}. Run `aws sso login` and try again.")
    if name == "NoRegionError":
        return ConfigError("No AWS region: pass region='eu-central-1' or the like, or set AWS_REGION.")
    if name == "ParamValidationError":
        return ConfigError(f"AWS knows no such request; check task_args and the other *_args. {error}")
    if name.endswith(
        ("ConnectionError", "TimeoutError", "ConnectTimeoutError", "SSLError", "ProxyError")
    ) or (name == "ConnectionClosedError"):
        return CloudError(
            f"AWS could not be reached in {region}: {error}. Check the region and your network."
        )
    return CloudError(f"{error} (in {region}).")


def because(text: str) -> tuple[type[CloudError], str] | None:
    """What a reason in words means, and what to do next; None when nobody knows."""
    for pattern, kind, advice in TEXTS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, advice
    return None
