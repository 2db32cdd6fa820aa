"""What a project still has that costs or clutters, beside what it keeps on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudprovider.emulator.gcp_wire import PROJECT
from cloudprovider.tags import CLUSTER, LANDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudprovider.emulator.gcp import GCP


def leftovers(cloud: GCP) -> list[str]:
    """Everything but the landing and what every project has: one line each, `service: name`."""
    return sorted([*_of_compute(cloud), *_of_services(cloud)])


def _of_compute(cloud: GCP) -> Iterator[str]:
    compute = cloud.compute
    for one in compute.instances.all():
        yield f"compute instance: {one.name} {one.state}"
    for disk in compute.disks.all():
        yield f"compute disk: {disk['name']} {disk['sizeGb']} GB"
    for image in compute.offers.own():
        yield f"compute image: {image['name']}"
    for address in compute.networks.all("addresses"):
        yield f"compute address: {address['name']} {address['address']}"
    for collection in ("firewalls", "networks"):
        for document in compute.networks.all(collection):
            known = document["name"].startswith("default") or LANDING in document.get("description", "")
            if not known:
                yield f"compute {collection.removesuffix('s')}: {document['name']}"


def _of_services(cloud: GCP) -> Iterator[str]:
    for secret in cloud.services.secrets.all():
        if LANDING not in secret.get("labels", {}):
            yield f"secret: {secret['name'].rpartition('/')[2]}"
    iam = cloud.services.iam
    for email in iam.accounts():
        if LANDING not in iam.described(email):
            yield f"service account: {email}"
    for binding in iam.policies.get(f"projects/{PROJECT}", 3)["bindings"]:
        condition = binding.get("condition", {})
        if CLUSTER in condition.get("description", ""):
            yield f"iam binding: {binding['role']} {condition['title']}"
