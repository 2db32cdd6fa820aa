"""Whether a cloud may have credentials here at all, as can be seen without its SDK and without a call.

Each SDK ends its own search with a question to the metadata service that only a machine of its cloud has,
and waits seconds for an answer elsewhere; importing one takes as long. Who lists the clusters of all clouds
therefore looks first for what a search would find.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VENDORS", "Vendor", "configured"]

#: What the firmware says of the machine that runs this; Linux alone shows it to everybody.
FIRMWARE = Path("/sys/class/dmi/id")


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """Where one vendor's SDK finds credentials.

    Parameters
    ----------
    variables
        Environment variables, each of which is enough.
    files
        Files and folders, each of which is enough: the variable that names it, the folder that it is in
        otherwise, and what it is called there. A variable that names a folder has the same name added.
    firmware
        What a machine of the vendor's own has in each of these files of `FIRMWARE`.
    unasked
        Variables that, set to a value, keep the SDK from its metadata service.
    """

    variables: tuple[str, ...]
    files: tuple[tuple[str, str, str], ...]
    firmware: Mapping[str, str]
    unasked: Mapping[str, str]


VENDORS = {
    # https://docs.aws.amazon.com/boto3/latest/guide/credentials.html
    "aws": Vendor(
        variables=(
            "AWS_ACCESS_KEY_ID",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_DEFAULT_PROFILE",
            "AWS_PROFILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        files=(
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws", "credentials"),
            ("AWS_CONFIG_FILE", "~/.aws", "config"),
        ),
        # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html
        firmware={"sys_vendor": "Amazon EC2", "bios_version": "amazon"},
        unasked={"AWS_EC2_METADATA_DISABLED": "true"},
    ),
    # https://cloud.google.com/docs/authentication/application-default-credentials
    "gcp": Vendor(
        variables=("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"),
        files=(
            ("CLOUDSDK_CONFIG", "~/.config/gcloud", "application_default_credentials.json"),
            ("", "$APPDATA/gcloud", "application_default_credentials.json"),
        ),
        # https://cloud.google.com/compute/docs/instances/detect-compute-engine
        firmware={"product_name": "Google"},
        unasked={"NO_GCE_CHECK": "true"},
    ),
    # https://learn.microsoft.com/azure/developer/python/sdk/authentication/credential-chains
    "azure": Vendor(
        variables=(
            "AZURE_CLIENT_ID",
            "AZURE_FEDERATED_TOKEN_FILE",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST",
            "IDENTITY_ENDPOINT",
            "MSI_ENDPOINT",
        ),
        files=(
            ("AZURE_CONFIG_DIR", "~/.azure", "azureProfile.json"),  # the Azure CLI
            ("AZURE_CONFIG_DIR", "~/.azure", "AzureRmContext.json"),  # Azure PowerShell
            ("AZD_CONFIG_DIR", "~/.azd", "auth"),  # the Azure Developer CLI
        ),
        # What cloud-init knows the cloud by: https://github.com/canonical/cloud-init/blob/main/tools/ds-identify
        firmware={"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},
        unasked={},
    ),
}


def configured(name: str) -> bool:
    """Whether a vendor's SDK may find credentials here; whether those are good only the vendor knows."""
    vendor = VENDORS[name]
    named = any(os.environ.get(variable) for variable in vendor.variables)
    return named or any(_is_there(*file) for file in vendor.files) or _is_its_machine(vendor)


def _is_there(variable: str, folder: str, name: str) -> bool:
    chosen = os.environ.get(variable, "")
    place = Path(os.path.expandvars(chosen or folder)).expanduser()
    if chosen and not place.is_dir():
        return place.is_file()
    return (place / name).exists()


def _is_its_machine(vendor: Vendor) -> bool:
    if any(os.environ.get(variable, "").lower() == value for variable, value in vendor.unasked.items()):
        return False
    for name, words in vendor.firmware.items():
        with suppress(OSError):
            if words in (FIRMWARE / name).read_text():
                return True
    return False
