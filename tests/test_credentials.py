"""Which clouds are asked: those whose credentials may be here, as can be seen without an SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cloudprovider import credentials, discovery
from cloudprovider.discovery import CLOUDS

SDKS = {"aws": {"boto3", "botocore"}, "gcp": {"google", "grpc"}, "azure": {"azure", "msal"}}


@pytest.fixture
def bare_home(tmp_path, monkeypatch):
    """A user's environment as on the first day: no credentials of any cloud, and a home without files."""
    every = {name for vendor in credentials.VENDORS.values() for name in vendor.variables}
    for name in {*every, *(file[0] for vendor in credentials.VENDORS.values() for file in vendor.files)}:
        monkeypatch.delenv(name, raising=False)
    for vendor in credentials.VENDORS.values():
        for name, value in vendor.unasked.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData"))
    monkeypatch.setenv("DASK_CLOUD__LOCAL__DIRECTORY", str(tmp_path / "local"))
    return tmp_path


@pytest.mark.parametrize(
    ("vendor", "variable"),
    [(name, variable) for name, vendor in credentials.VENDORS.items() for variable in vendor.variables],
)
def test_a_variable_is_enough(bare_home, monkeypatch, vendor, variable):
    """Each variable that an SDK takes credentials from makes its cloud one that is asked, and no other."""
    assert not credentials.configured(vendor)
    monkeypatch.setenv(variable, "x")
    assert [vendor] == [name for name in credentials.VENDORS if credentials.configured(name)]


@pytest.mark.parametrize(
    ("vendor", "file"),
    [
        ("aws", ".aws/credentials"),
        ("aws", ".aws/config"),
        ("gcp", ".config/gcloud/application_default_credentials.json"),
        ("gcp", "AppData/gcloud/application_default_credentials.json"),
        ("azure", ".azure/azureProfile.json"),
        ("azure", ".azure/AzureRmContext.json"),
        ("azure", ".azd/auth"),
    ],
)
def test_a_file_is_enough(bare_home, vendor, file):
    """Each file that an SDK or its command line keeps credentials in makes its cloud one that is asked."""
    (bare_home / file).parent.mkdir(parents=True, exist_ok=True)
    (bare_home / file).touch()
    assert [vendor] == [name for name in credentials.VENDORS if credentials.configured(name)]


def test_a_file_elsewhere(bare_home, monkeypatch):
    """A variable may name the file, or the folder that it is in; what it names need not be there."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(bare_home / "elsewhere"))
    assert not credentials.configured("aws")
    assert not credentials.configured("gcp")
    (bare_home / "mine").touch()
    (bare_home / "elsewhere").mkdir()
    (bare_home / "elsewhere" / "application_default_credentials.json").touch()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(bare_home / "mine"))
    assert credentials.configured("aws")
    assert credentials.configured("gcp")


def test_every_cloud_says_whose_credentials_it_takes():
    """Each row of the table has a vendor whose signs are known; only this computer needs none."""
    assert {"local"} == {name for name, row in CLOUDS.items() if not row.vendor}
    assert {row.vendor for row in CLOUDS.values() if row.vendor} <= set(credentials.VENDORS)


def listed() -> tuple[list, set[str], str]:
    """What `dask cloud list` finds, whose SDKs it imports, and what it says beside."""
    code = (
        "import sys\nfrom cloudprovider.cli import cloud\n"
        "try:\n    cloud(['list', '--json'])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *answer, modules = done.stdout.splitlines()
    asked = {vendor for vendor, sdk in SDKS.items() if sdk & set(modules.split())}
    return json.loads("\n".join(answer)), asked, done.stderr


def test_without_any_credentials_no_cloud_is_asked(bare_home):
    """Listing then imports no SDK, which would look for a metadata service, and says which were not asked."""
    found, asked, said = listed()
    assert ([], set()) == (found, asked)
    assert all(name in said for name, row in CLOUDS.items() if row.vendor)


@pytest.mark.parametrize("vendor", SDKS)
def test_with_credentials_of_one_cloud_only_that_is_asked(bare_home, request, vendor):
    """Who has credentials of one cloud alone waits for no other, imports no other's SDK, and hears nothing of it."""
    request.getfixturevalue(f"emulated_{vendor}")
    assert ([], {vendor}, "") == listed()


async def test_discovery_without_credentials(bare_home):
    """Tools that speak Dask's discovery protocol find nothing, and no error."""
    assert ("local",) == discovery.configured()
    assert [] == [found async for found in discovery.discover()]
