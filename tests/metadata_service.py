"""A metadata service and a Systems Manager of one machine, over loopback HTTP."""

from __future__ import annotations

import json
import secrets
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable

ROLE = "dask-machine"
CREDENTIALS = {
    "Code": "Success",
    "AccessKeyId": "AKIDEXAMPLE",
    "SecretAccessKey": "a/secret+key",
    "Token": "a//token==",
}


class MetadataService:
    """What one machine's network offers it.

    Attributes
    ----------
    data
        What is under `/latest/`, by path.
    tokens
        The tokens it accepts; clear them to have them all expire.
    parameters
        The parameters of Systems Manager.
    refusals
        What Systems Manager answers before it answers rightly: status and error code.
    ahead_s
        How far its clock is ahead of this computer's.
    asked
        How often each path was asked for; Systems Manager's is `ssm`.
    """

    def __init__(self, id: str = "i-0123456789abcdef0", address: str = "127.0.0.1") -> None:
        self.data = {
            "meta-data/instance-id": id,
            "meta-data/local-ipv4": address,
            "meta-data/placement/region": "eu-central-1",
            "meta-data/services/domain": "amazonaws.com",
            "meta-data/iam/security-credentials/": ROLE,
            f"meta-data/iam/security-credentials/{ROLE}": json.dumps(CREDENTIALS),
        }
        self.tokens: set[str] = set()
        self.parameters: dict[str, str] = {}
        self.refusals: list[tuple[int, str]] = []
        self.ahead_s = 0.0
        self.asked: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """What the machine's programs are told."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{url}/", "AWS_ENDPOINT_URL": url}

    def interrupt(self, within_s: float) -> str:
        """Say that the machine is taken back; when, in the cloud's own words."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + within_s))
        self.data["meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": moment})
        return moment

    def recommend(self) -> None:
        """Say that the machine is at risk."""
        said = {"noticeTime": "2026-11-05T08:22:00Z"}
        self.data["meta-data/events/recommendations/rebalance"] = json.dumps(said)

    def _metadata(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        self.asked[path] = self.asked.get(path, 0) + 1
        if (method, path) == ("PUT", "api/token"):
            if not 1 <= int(headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21600:
                return 400, ""
            self.tokens.add(secrets.token_hex(8))
            return 200, next(iter(self.tokens))
        if headers["X-aws-ec2-metadata-token"] not in self.tokens:
            return 401, ""
        return (200, self.data[path]) if path in self.data else (404, "")

    def _ssm(self, headers: Any, body: bytes) -> tuple[int, str]:
        self.asked["ssm"] = self.asked.get("ssm", 0) + 1
        if self.refusals:
            status, code = self.refusals.pop(0)
            return status, json.dumps({"__type": code, "message": f"said {code}"})
        if why := self._unsigned(headers, body):
            return 400, json.dumps({"__type": "InvalidSignatureException", "message": why})
        asked = json.loads(body)
        if headers["X-Amz-Target"] != "AmazonSSM.GetParameters" or not asked["WithDecryption"]:
            return 400, json.dumps({"__type": "ValidationException", "message": "not asked so"})
        found = [{"Name": n, "Value": self.parameters[n]} for n in asked["Names"] if n in self.parameters]
        missing = [name for name in asked["Names"] if name not in self.parameters]
        return 200, json.dumps({"Parameters": found[::-1], "InvalidParameters": missing})

    def _unsigned(self, headers: Any, body: bytes) -> str:
        """Why a request is not signed as AWS's own library signs it; empty when it is."""
        stamp = headers["X-Amz-Date"]
        moment = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(moment - time.time() - self.ahead_s) > 300:
            return "Signature not yet current, or expired"
        signed = headers["Authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        request = AWSRequest("POST", f"http://{headers['Host']}/", data=body)
        for name in signed:
            request.headers[name] = headers[name]
        request.context["timestamp"] = stamp
        keys = Credentials(CREDENTIALS["AccessKeyId"], CREDENTIALS["SecretAccessKey"], CREDENTIALS["Token"])
        auth = SigV4Auth(keys, "ssm", "eu-central-1")
        canonical = auth.canonical_request(request)
        expected = auth.signature(auth.string_to_sign(request, canonical), request)
        return "" if headers["Authorization"].endswith(f"Signature={expected}") else "another signature"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(
                    lambda _: service._metadata(self.command, self.path[len("/latest/") :], self.headers)
                )

            do_PUT = do_GET  # noqa: N815  (as the base class names it)

            def do_POST(self) -> None:
                self.answer(lambda body: service._ssm(self.headers, body))

            def answer(self, how: Callable[[bytes], tuple[int, str]]) -> None:
                status, text = how(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + service.ahead_s, usegmt=True))
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler
