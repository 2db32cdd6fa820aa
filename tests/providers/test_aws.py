"""What every AWS provider shares: errors, calls side by side, pacing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError

from cloudprovider import errors
from cloudprovider.errors import CapacityError, CloudError, ConfigError, CredentialsError, QuotaError
from cloudprovider.providers import _aws, _calls


def refused(code: str, message: str = "because", operation: str = "RunTask") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            refused(
                "AccessDeniedException",
                "User: arn:aws:iam::1:user/x is not authorized to perform: ecs:RunTask",
            ),
            CredentialsError,
            "may not call ecs:RunTask in us-east-1.*dask cloud policy aws-fargate",
        ),
        (
            refused("UnauthorizedOperation", "No. Encoded authorization failure message: abc"),
            CredentialsError,
            "No",
        ),
        (refused("ExpiredTokenException"), CredentialsError, "have expired"),
        (refused("UnrecognizedClientException"), CredentialsError, "does not know your credentials"),
        (refused("ThrottlingException", "Rate exceeded"), QuotaError, "try again in a minute"),
        (refused("SecurityGroupLimitExceeded"), QuotaError, "servicequotas"),
        (
            refused(
                "ThrottlingException",
                "You've reached the limit on the number of vCPUs you can run concurrently",
            ),
            QuotaError,
            "servicequotas",
        ),
        (
            refused(
                "ClientException", "You've reached the limit on the number of vCPUs you can run concurrently"
            ),
            QuotaError,
            "servicequotas",
        ),
        (refused("ClientException", "Capacity is unavailable at this time"), CapacityError, "other zones"),
        (refused("ClusterNotFoundException"), ConfigError, "ecs_cluster="),
        (
            refused("SomethingNew", "Out of order"),
            CloudError,
            r"RunTask in us-east-1 \(SomethingNew\): Out of order",
        ),
        (botocore.exceptions.NoCredentialsError(), CredentialsError, "aws configure"),
        (botocore.exceptions.SSOTokenLoadError(error_msg="x"), CredentialsError, "aws sso login"),
        (botocore.exceptions.NoRegionError(), ConfigError, "pass region="),
        (
            botocore.exceptions.EndpointConnectionError(endpoint_url="https://x"),
            CloudError,
            "region and your network",
        ),
        (botocore.exceptions.ParamValidationError(report="Unknown parameter"), ConfigError, "task_args"),
    ],
)
def test_foreign_errors_become_ours(error, kind, said):
    """Each error of AWS is one of our tree, and says what to do next."""
    ours = _aws.translate(error, "us-east-1")

    assert kind is type(ours)
    assert "Encoded" not in str(ours)
    with pytest.raises(kind, match=said):
        raise ours


def test_errors_of_nobody_we_know_are_let_through():
    """A bug of ours stays what it is."""
    assert _aws.translate(KeyError("x"), "us-east-1") is None


def test_every_code_leads_to_an_error_of_the_tree():
    """The tables name only errors that users can catch."""
    kinds = {kind for kind, _ in _aws.ERRORS.values()} | {kind for _, kind, _ in _aws.TEXTS}
    assert kinds <= {getattr(errors, name) for name in errors.__all__}


def test_calls_run_side_by_side_and_answer_in_order():
    """As many calls as the width wait at the same time."""
    together = threading.Barrier(8, timeout=10)

    def call(number):
        together.wait()
        return number

    assert list(range(8)) == _calls.side_by_side([lambda n=n: call(n) for n in range(8)], width=8)
    assert [] == _calls.side_by_side([])


def test_first_error_comes_once_all_have_ended():
    """An error does not leave calls running behind the caller's back."""
    ended = []

    def slow():
        time.sleep(0.05)
        ended.append(1)

    def fails():
        raise CloudError("no")

    with pytest.raises(CloudError, match="no"):
        _calls.side_by_side([fails, slow, slow])
    assert [1, 1] == ended


def test_side_by_side_works_at_the_interpreter_s_exit():
    """Where executors refuse work, calls are still made: clusters close at exit."""
    script = """
        import atexit
        from cloudprovider.providers._calls import side_by_side
        atexit.register(lambda: print(side_by_side([lambda: 1, lambda: 2, lambda: 3])))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "[1, 2, 3]" == done.stdout.strip()


def test_pace_keeps_to_burst_and_rate():
    """A burst goes at once, the rest as the rate allows."""
    pace = _calls.Pace(burst=10, rate=100)
    start = time.monotonic()
    pace.take(10)
    assert time.monotonic() - start < 0.05
    for _ in range(3):
        pace.take(10)

    assert 0.28 < time.monotonic() - start < 1.0


def test_no_sdk_before_the_first_call():
    """Importing the provider and making one imports no SDK."""
    script = """
        import sys
        from cloudprovider.providers.ecs import ECSProvider, FargateConfig
        config = FargateConfig.of(region="us-east-1")
        ECSProvider(config, config.identity())
        print([name for name in ("boto3", "botocore", "cryptography") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "[]" == done.stdout.strip()
