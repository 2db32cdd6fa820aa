"""Machine images, with what moto does not know of them: the size and kind of their root volume, and IMDSv2."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.amis import Ami

#: What the ECS-optimised Amazon Linux 2023 images boot from.
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-optimized_AMI.html
ECS_ROOT = (30, "gp3")
AL2023_ROOT = (
    8,
    "gp3",
)  # "gp3 as the default EBS volume type": docs.aws.amazon.com/linux/al2023/ug/compare-with-al2.html
OTHER_ROOT = (8, "gp2")


class LiveAmi(Ami):  # type: ignore[misc]
    """moto's image, told as EC2 tells it."""

    @property
    def root_volume(self) -> tuple[int, str]:
        """Size in GiB and type of the root volume."""
        name = str(self.name or "")
        if not name.startswith("al2023-"):
            return OTHER_ROOT
        return ECS_ROOT if "-ecs-" in name else AL2023_ROOT

    @property
    def is_ecs(self) -> bool:
        """Whether an ECS agent starts with it."""
        return "-ecs-" in str(self.name or "")

    @property
    def imds_support(self) -> str | None:
        """`v2.0` when instances need a token of IMDSv2 unless they are told otherwise."""
        return "v2.0" if str(self.name or "").startswith("al2023-") else None

    @property
    def ena_support(self) -> bool:
        """Whether it has the driver of today's network interfaces."""
        return bool(self.virtualization_type == "hvm")

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """The volumes that an instance gets of it."""
        size, kind = self.root_volume
        ebs = {
            "SnapshotId": self.ebs_snapshot.id,
            "VolumeSize": size,
            "DeleteOnTermination": True,
            "VolumeType": kind,
            "Encrypted": False,
        }
        return [{"DeviceName": self.root_device_name, "Ebs": ebs}]


def enliven(image: Any) -> None:
    """Tell one of moto's images as EC2 tells it."""
    # "The value is Windows for Windows AMIs; otherwise blank": API_Image
    image.platform = "Windows" if str(image.platform).lower() == "windows" else None
    image.__class__ = LiveAmi
