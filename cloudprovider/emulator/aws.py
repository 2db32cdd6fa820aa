"""The embedded AWS: moto's services, with a live ECS in front, as slow and as strict as AWS is."""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cloudprovider.emulator import aws_faults, wire, wire_xml
from cloudprovider.emulator.aws_control import AWSControl, instance_machine, task_machine
from cloudprovider.emulator.aws_parameters import Expiries
from cloudprovider.emulator.ecs_checks import check_parameter
from cloudprovider.emulator.profiles import EC2_UNFILTERED, UNFILTERED, Bucket
from cloudprovider.emulator.records import Call
from cloudprovider.emulator.refusals import Denied
from cloudprovider.emulator.server import NoAnswer
from cloudprovider.emulator.wire import AWSError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.aws_policy import Need
    from cloudprovider.emulator.network import Network
    from cloudprovider.emulator.records import EmulatedMachine
    from cloudprovider.emulator.server import Answer, Aside
    from cloudprovider.emulator.wire import Request

logger = logging.getLogger(__name__)

#: Before moto is imported: what it would otherwise leave out.
SETTINGS = {
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "MOTO_ALLOW_NONEXISTENT_REGION": "false",
}
#: Services whose every answer is held to the model: these are what the emulator is for.
STRICT = frozenset({"ec2", "ecs", "iam", "logs", "resourcegroupstaggingapi", "secretsmanager", "ssm", "sts"})
#: A call of each that changes nothing.
WARM = {
    "ec2": "DescribeSubnets",
    "ecs": "ListClusters",
    "iam": "ListRoles",
    "logs": "DescribeLogGroups",
    "resourcegroupstaggingapi": "GetTagKeys",
    "secretsmanager": "ListSecrets",
    "ssm": "DescribeParameters",
    "sts": "GetCallerIdentity",
}

#: Services that start and end EC2 instances.
HOSTS = ("ec2", "autoscaling")

REGION = "us-east-1"
#: The access key of the account itself, which may do everything.
ROOT = "AKIAEMULATEDCLOUD000"


@dataclass
class Moto:
    """moto's application, called within this process."""

    application: Any

    def call(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """What moto answers."""
        parts = urlsplit(path)
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(parts.path, "latin-1"),
            "QUERY_STRING": parts.query,
            "RAW_URI": path,
            "REQUEST_URI": path,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": caller,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
                environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        started: list[Any] = []
        chunks = self.application(environ, lambda status, fields, _=None: started.extend((status, fields)))
        content = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        skipped = ("content-length", "connection", "transfer-encoding", "date", "server")
        fields = {name: value for name, value in started[1] if name.lower() not in skipped}
        return int(started[0].split()[0]), fields, content

    @staticmethod
    def reset(network: Network) -> None:
        """Forget every backend: each begins anew, in this network, when it is next asked."""
        from moto.core.base_backend import BackendDict

        from cloudprovider.emulator.ec2 import LiveEC2

        LiveEC2.network = network
        for backend in list(BackendDict._instances):
            backend.clear()
        BackendDict._instances.clear()


@functools.cache
def import_moto() -> Moto:
    """Moto with a live EC2, its settings made before it is first imported."""
    os.environ.update(SETTINGS)
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    from cloudprovider.emulator import ec2, ecs_state, iam

    ec2.install()
    ecs_state.install()
    iam.install()
    return Moto(DomainDispatcherApplication(create_backend_app))


class AWS:
    """Answers the API of one account; see `cloudprovider.emulator.cloud.API`."""

    tls = None

    def __init__(self, account: Account) -> None:
        self._moto = import_moto()
        self._moto.reset(account.network)
        from cloudprovider.emulator.aws_rights import Rights
        from cloudprovider.emulator.aws_simulate import Simulator
        from cloudprovider.emulator.ec2_api import EC2
        from cloudprovider.emulator.ecs import ECS
        from cloudprovider.emulator.imds import Metadata
        from cloudprovider.emulator.principals import Principals
        from cloudprovider.emulator.quotas import Quotas
        from cloudprovider.emulator.sessions import Sessions

        self.account = account
        self.ecs = ECS(account)
        self.principals = Principals(ROOT)
        self._rights = Rights()
        self.sessions = Sessions(self.ecs)
        quotas = Quotas(account)
        self.ec2 = EC2(account, quotas)
        self.ec2.instances.life.changed = self.ecs.instances.watch
        self._own: dict[str, Any] = {
            "ecs": self.ecs,
            "ec2": self.ec2,
            "iam": Simulator(),
            "service-quotas": quotas,
            "ssm": self.sessions,
            "sts": self.principals,
        }
        self.asides: dict[str, Aside] = {"imds": Metadata(self.ec2.instances, self.principals).answer}
        self.actions = AWSControl(self).actions
        self.calls: list[Call] = []
        self._regions = regions()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._expiries = Expiries(account)

    def warm(self) -> None:
        """Make the first calls of each service as quick as the later ones."""
        for service, operation in WARM.items():
            headers, body = wire.example(service, operation)
            request = wire.read(headers, "/", body)
            self._acted(request, "POST", "/", headers, body, "127.0.0.1")

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use it."""
        return {
            "AWS_ENDPOINT_URL": self.account.endpoint,
            "AWS_ACCESS_KEY_ID": ROOT,
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def machines(self) -> list[EmulatedMachine]:
        """Every machine, the ones that ended a while ago included."""
        instances = map(instance_machine, self.ec2.instances.all())
        return [*map(task_machine, self.ecs.tasks()), *instances]

    def leftovers(self) -> list[str]:
        """What the account has beside its landing."""
        from cloudprovider.emulator.leftovers import leftovers

        return leftovers(list(self.ecs.tasks()))

    def interrupt(self, id: str, **given: Any) -> None:
        """Take a spot machine back, with notice."""
        life = self._life(id)
        life.life.interrupt(life.find(id), **given)

    def kill(self, id: str) -> None:
        """Let a machine fail, without notice."""
        life = self._life(id)
        life.life.kill(life.find(id))

    def _life(self, id: str) -> Any:
        return self.ec2.instances if id.startswith("i-") else self.ecs

    def end(self) -> None:
        """End every machine, and let nothing happen later."""
        self.account.timers.close()
        self.ecs.life.end(list(self.ecs.tasks()))
        self.ec2.instances.life.end(list(self.ec2.instances.all()))

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str) -> Answer:
        """Answer one request, and remember it."""
        start = time.time()
        profile = self.account.profile
        request = wire.Request("unknown", "", path)
        error, denied = "", ""
        needed: Sequence[Need] = ()
        try:
            request = wire.read(headers, path, body)
            latency_s = profile.latencies.get(f"{request.service}:{request.operation}", profile.latency_s)
            time.sleep(latency_s * self.account.timers.scale)
            needed = self._admit(request, headers)
            status, fields, content = self._answered(request, method, path, headers, body, caller)
            error = wire.error_code(request, content) if status >= 400 else ""  # noqa: PLR2004
        except NoAnswer:
            error = "NoAnswer"
            raise
        except AWSError as refusal:
            error = refusal.code
            if isinstance(refusal, Denied):
                denied, needed = refusal.need.action, [refusal.need]
            request = request if refusal.request is None else refusal.request
            status, fields, content = _refusal(request, refusal)
        except NotImplementedError:
            error = "NotImplemented"
            missing = f"The emulated AWS has no {request.service}:{request.operation}."
            status, fields, content = _refusal(request, AWSError(error, missing, 501))
        except Exception as bug:
            logger.exception("The emulated cloud failed at %s:%s", request.service, request.operation)
            error = "EmulatorBug"
            status, fields, content = _refusal(request, AWSError(error, repr(bug), 500))
        finally:
            call = Call(
                service=request.service,
                operation=request.operation,
                start=start,
                end=time.time(),
                error=error,
                needs=[need.document() for need in needed],
                denied=denied,
            )
            self.calls.append(call)
        return status, fields, content

    def _admit(self, request: Request, headers: Mapping[str, str]) -> Sequence[Need]:
        """Refuse a call that its caller may not make; what it needs when it is not the account's own."""
        if request.region and request.region not in self._regions:
            raise NoAnswer  # there is no such host
        faults = self.account.faults
        aws_faults.refuse_late(faults, request, headers.get("X-Amz-Date", ""))
        with self.account.lock:
            who = self.principals.who(request)
            aws_faults.refuse(faults, request, person=who is None)
            return self._rights.check(request, who)

    def _answered(
        self, request: Request, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str
    ) -> Answer:
        faults = self.account.faults
        if not self._in_time(request):
            raise aws_faults.throttled(request)
        after = faults.hit("error-after-effect", request)
        lost = faults.hit("lost-answer", request)
        with self.account.lock:
            answer = self._acted(request, method, path, headers, body, caller)
        if after:
            raise aws_faults.server_error(request)
        if lost:
            raise NoAnswer
        return answer

    def _in_time(self, request: Request) -> bool:
        """Whether the rates of the profile leave room for a call."""
        name, scale = f"{request.service}:{request.operation}", self.account.timers.scale
        if is_unfiltered(request):
            name += UNFILTERED
        return all(
            self._buckets.setdefault((request.region, key), Bucket(rate, scale)).take()
            for key, rate in self.account.profile.rates(name)
        )

    def _acted(
        self, request: Request, method: str, path: str, headers: Mapping[str, str], body: bytes, caller: str
    ) -> Answer:
        if request.service == "ecs" and request.model is not None:
            self.ecs.check(request)
        elif (request.service, request.operation) == ("ssm", "PutParameter"):
            check_parameter(request.parameters or {})
        own = self._own.get(request.service)
        if own and (handler := own.handler(request.operation)):
            content, kind = wire_xml.answer(request, handler(request))
            answer = (200, {"Content-Type": kind}, content)
            if request.service == "ec2" and not request.operation.startswith("Describe"):
                self.account.network.refresh()
            return answer if request.protocol == "ec2" else self._checked(request, answer)
        answer = self._moto.call(method, path, headers, body, caller)
        if (request.service, request.operation) == ("ssm", "PutParameter") and answer[0] == HTTPStatus.OK:
            self._expiries.put(request.region, request.parameters or {})
        if request.service in HOSTS and not request.operation.startswith("Describe"):
            self.ec2.touched(request.region)
            self.ecs.instances.watch()
            self.account.network.refresh()
        return self._checked(request, answer)

    def _checked(self, request: Request, answer: Answer) -> Answer:
        status, fields, content = answer
        fields.setdefault("x-amzn-RequestId", str(uuid.uuid4()))
        if status >= 300 or request.model is None:  # noqa: PLR2004
            return status, fields, content
        if found := wire.answer_problems(request, content):
            name = f"{request.service}:{request.operation}"
            logger.error("The answer to %s is not what AWS's model allows: %s", name, "; ".join(found))
            if request.service in STRICT:
                raise AWSError("EmulatorBug", f"The emulator's answer to {name} is wrong: {found[0]}", 500)
        return status, fields, content


def is_unfiltered(request: Request) -> bool:
    """Whether a call asks for all that there is, in one answer."""
    narrows = ("Filter", "MaxResults", "NextToken")
    given = request.parameters or {}
    return (
        request.service == "ec2"
        and request.operation in EC2_UNFILTERED
        and not any(name in narrows or name.endswith("Id") for name in given)
    )


@functools.cache
def regions() -> frozenset[str]:
    """Every region of AWS's common partition, and what global services sign with."""
    import botocore.session

    session = botocore.session.get_session()
    known = {region for service in ("ec2", "ecs") for region in session.get_available_regions(service)}
    return frozenset({*known, "us-east-1", "aws-global"})


def _refusal(request: Request, error: AWSError) -> Answer:
    request_id = str(uuid.uuid4())
    content, kind = wire.error_answer(request, error, request_id)
    fields = {"Content-Type": kind, "x-amzn-RequestId": request_id, "x-amzn-ErrorType": error.code}
    return error.status, fields, content
