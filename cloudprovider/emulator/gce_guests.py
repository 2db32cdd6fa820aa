"""The insides of instances: Container-Optimized OS, with its metadata server and its logs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cloudprovider.emulator.gce_links import region_of
from cloudprovider.emulator.guest import Kind
from cloudprovider.emulator.vms import Insides, pull_failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudprovider.emulator.account import Account
    from cloudprovider.emulator.gce_machine import LiveInstance
    from cloudprovider.emulator.gce_networks import Networks
    from cloudprovider.emulator.gcp_services import GCPServices
    from cloudprovider.emulator.guest import Guest

POLL_S = 5.0  # how often a machine looks for notices
#: What the permission to write logs is needed on, and the scopes that do for it.
WRITE = "logging.logEntries.create"
SCOPES = frozenset(
    f"https://www.googleapis.com/auth/{name}" for name in ("cloud-platform", "logging.admin", "logging.write")
)


class Guests(Insides["LiveInstance"]):
    """The insides of Compute Engine's instances."""

    def __init__(
        self,
        account: Account,
        services: GCPServices,
        networks: Networks,
        halted: Callable[[LiveInstance], None],
    ) -> None:
        super().__init__(account, halted)
        self._services, self._networks = services, networks

    def made(self, machine: LiveInstance) -> Guest:
        """The inside of an instance."""
        order = machine.order
        kind = Kind(
            name=machine.type,
            architecture=order.architecture,
            gpus=sum(order.gpus.values()),
            disks=sum(one.kind == "local-ssd" for one in order.disks),
            region=region_of(machine.zone),
            zone=machine.zone,
            image=str((order.disks[0].image or {}).get("name", "")),
            ecs_agent=False,
            system="cos",
        )
        return self.guest(
            machine,
            address=machine.address,
            kind=kind,
            user_data=machine.attributes.get("user-data", "").encode(),
            environ=self._environ(machine),
            logs=functools.partial(self._log, machine),
            open_log=functools.partial(self._open_log, machine),
            reach=functools.partial(self._reach, machine),
        )

    def heard(self, machine: LiveInstance, line: str) -> None:
        """Take a line of its serial console, and keep it where Cloud Logging does when its metadata says so."""
        super().heard(machine, line)
        if machine.attributes.get("serial-port-logging-enable", "").lower() in {"true", "1"}:
            self._services.logging.of_console(
                id=machine.number, name=machine.name, zone=machine.zone, lines=[line]
            )

    def _environ(self, machine: LiveInstance) -> dict[str, str]:
        """How the emulated cloud is reached from within it."""
        endpoint, scale = self._account.endpoint, self._account.timers.scale
        metadata = f"{endpoint.partition('//')[2]}/_cloud/gce/{machine.id}"
        return {
            # https://googleapis.dev/python/google-auth/latest/reference/google.auth.environment_vars.html
            **dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_IP"), metadata),
            **overrides(endpoint),
            "DASK_CLOUD_POLL_S": f"{max(0.2, POLL_S * scale):g}",  # a notice is as short as its time
        }

    def _reach(self, machine: LiveInstance, image: str) -> str:
        """Why an image's registry does not hand it out; empty when it does."""
        registry = image.partition("/")[0]
        if self._networks.has_way_out(machine.order.subnetwork, registry, public=machine.order.public):
            return pull_failure(self._account, image)
        return f'Get "https://{registry}/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)'

    def _open_log(self, machine: LiveInstance, driver: str, name: str, create: bool) -> str:  # noqa: FBT001  (as it is asked)
        """Why a container's log cannot be opened; empty when it is."""
        del driver, name, create
        order = machine.order
        principal = self._services.tokens.who(
            self._services.tokens.token(order.email, order.scopes)["access_token"]
        ) if order.email else None  # fmt: skip
        if principal is None:
            return 'metadata: GCE metadata "instance/service-accounts/default/token?scopes=" not defined'
        why = self._services.may(principal, WRITE, f"projects/{machine.where.project}")
        if not principal.scopes & SCOPES:
            why = "Request had insufficient authentication scopes."
        return f"rpc error: code = PermissionDenied desc = {why}" if why else ""

    def _log(self, machine: LiveInstance, driver: str, name: str, line: str) -> None:
        """Take a line of a container under the `gcplogs` driver."""
        del driver
        self._services.logging.of_container(
            id=machine.number, name=machine.name, zone=machine.zone, container=name, lines=[line]
        )


def overrides(endpoint: str) -> dict[str, str]:
    """Where each API is, by gcloud's own variables: https://cloud.google.com/sdk/docs/properties"""  # noqa: D400
    services = ("cloudresourcemanager", "iam", "logging", "secretmanager", "serviceusage")
    prefix = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
    return {
        f"{prefix}COMPUTE": f"{endpoint}/compute/v1/",
        **{f"{prefix}{name.upper()}": f"{endpoint}/{name}/" for name in services},
    }
