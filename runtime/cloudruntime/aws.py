"""What a machine on EC2 asks AWS, with the standard library alone: who it is, and its secret."""

from __future__ import annotations

import datetime as dt
import email.utils
import hashlib
import hmac
import json
import random
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Metadata", "parameters", "signed"]

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
METADATA = "http://169.254.169.254"
TOKEN_S = 21600
#: How long a question may take, and the longest pause between two.
TIMEOUT_S, PAUSE_S = 5.0, 10.0
#: What SSM says when another time may do: https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html
AGAIN = ("InternalServerError", "ParameterNotFound", "ServiceUnavailable", "ThrottlingException")
#: And when it is the clock of this machine that is wrong.
SKEWED = ("InvalidSignatureException", "RequestExpired", "SignatureDoesNotMatch")
NOT_FOUND, UNAUTHORIZED, BROKEN = 404, 401, 500


class Metadata:
    """The instance metadata service, version 2.

    Parameters
    ----------
    environ
        May say where it is, as for AWS's own tools.
    patience_s
        How long what is needed may be missing.
    """

    def __init__(self, environ: Mapping[str, str], patience_s: float = 30.0) -> None:
        self._patience_s = patience_s
        self.url = (environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA).rstrip("/")
        if not self.url.startswith("http://"):
            raise ValueError(f"a metadata service speaks http, not {self.url!r}")
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._token = ""

    def get(self, path: str) -> str | None:
        """What is there; None when there is nothing.

        Raises
        ------
        OSError
            When it does not answer.
        """
        for _ in range(2):
            if not self._token:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
                self._token = self._ask("PUT", "api/token", lifetime)
            try:
                return self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == NOT_FOUND:
                    return None
                if error.code != UNAUTHORIZED:
                    raise
                self._token = ""
        raise OSError("it refuses its own token")

    def need(self, path: str) -> str:
        """What is there; a role is there only some seconds after the machine.

        Raises
        ------
        ValueError
            When there is still nothing, or no answer.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                if found := self.get(path):
                    return found
                why = f"has no {path}"
            except OSError as error:
                why = f"does not answer: {error}"
            if time.monotonic() > deadline:
                raise ValueError(f"the metadata service at {self.url} {why}")
            time.sleep(random.uniform(0.1, 1))  # noqa: S311

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(f"{self.url}/latest/{path}", headers=headers, method=method)  # noqa: S310
        with self._open(request, timeout=TIMEOUT_S) as answer:
            return str(answer.read().decode())


def parameters(names: Sequence[str], environ: Mapping[str, str], patience_s: float = 90.0) -> list[str]:
    """The values of up to ten parameters of Systems Manager, read in one call under the machine's own role.

    Parameters
    ----------
    names
        Of the parameters.
    environ
        May say where both services are.
    patience_s
        How long Systems Manager may be busy, or not know a parameter yet.

    Raises
    ------
    ValueError
        When one cannot be read; says what is missing.
    """
    here = Metadata(environ, patience_s / 3)
    region = here.need("meta-data/placement/region")
    own = environ.get("AWS_ENDPOINT_URL_SSM") or environ.get("AWS_ENDPOINT_URL")
    url = own or f"https://ssm.{region}.{here.need('meta-data/services/domain')}"
    role = here.need("meta-data/iam/security-credentials/").split()[0]
    credentials = json.loads(here.need(f"meta-data/iam/security-credentials/{role}"))
    body = json.dumps({"Names": names, "WithDecryption": True}).encode()
    deadline, pause_s, ahead_s = time.monotonic() + patience_s, 0.5, 0.0
    while True:
        code, said, theirs = _post(url, body, signed(url, body, region, credentials, time.time() + ahead_s))
        found = {one["Name"]: str(one["Value"]) for one in said.get("Parameters", ())}
        if not code and set(names) <= set(found):
            return [found[name] for name in names]
        code = code or "ParameterNotFound"
        missing = ", ".join(name for name in names if name not in found)
        why = f"{missing}. {code}: {said.get('message') or said.get('Message') or 'no reason'}"
        if code == "AccessDeniedException":
            raise ValueError(f"the machine's role {role} lacks ssm:GetParameters on {why}")
        skewed = code in SKEWED and not ahead_s
        if not (skewed or code in AGAIN) or time.monotonic() > deadline:
            raise ValueError(f"Systems Manager in {region} does not give {why}")
        if skewed:
            ahead_s = theirs - time.time() or 1.0
            continue
        time.sleep(random.uniform(0, pause_s))  # noqa: S311  (full jitter: all machines start at once)
        pause_s = min(PAUSE_S, 2 * pause_s)


def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[str, dict[str, Any], float]:
    """An error's code or nothing, what was answered, and the answerer's clock."""
    request = urllib.request.Request(url, body, headers)  # noqa: S310  (the region's own, or the user's)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return "", json.load(answer), 0.0
    except urllib.error.HTTPError as error:
        with error:
            said = _document(error.read())
        code = str(said.get("__type", "")).rpartition("#")[2]
        moment = email.utils.parsedate_to_datetime(error.headers.get("Date") or email.utils.formatdate())
        again = error.code >= BROKEN or not code
        return "ServiceUnavailable" if again and code not in AGAIN else code, said, moment.timestamp()
    except OSError as error:
        return "ServiceUnavailable", {"message": str(error)}, 0.0


def _document(text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {"message": text[:200].decode(errors="replace")}


def signed(url: str, body: bytes, region: str, credentials: Mapping[str, str], now: float) -> dict[str, str]:
    """Headers of a GetParameters call, signed.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    stamp = dt.datetime.fromtimestamp(now, dt.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urlsplit(url).netloc,
        "x-amz-date": stamp,
        "x-amz-security-token": credentials["Token"],
        "x-amz-target": "AmazonSSM.GetParameters",
    }
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = "\n".join(["POST", urlsplit(url).path or "/", "", *lines, "", names, _hash(body)])
    scope = f"{stamp[:8]}/{region}/ssm/aws4_request"
    key = f"AWS4{credentials['SecretAccessKey']}".encode()
    for part in scope.split("/"):
        key = _mac(key, part)
    signature = _mac(key, "\n".join(["AWS4-HMAC-SHA256", stamp, scope, _hash(request.encode())])).hex()
    by = f"Credential={credentials['AccessKeyId']}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": f"AWS4-HMAC-SHA256 {by}"}


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
