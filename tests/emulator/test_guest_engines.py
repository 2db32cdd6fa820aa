"""What an emulated machine runs follows the room's engine: real containers, or nothing at all."""

from __future__ import annotations

import sys

import pytest
from container_images import with_distributed
from guests import make

from cloudprovider.emulator.images import Images, dask_image
from cloudprovider.emulator.podman import unavailable
from cloudprovider.emulator.room import Room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded cloud runs on Linux")

SERVICE = """#cloud-config
write_files:
  - path: /run/work/file
    content: of the machine
  - path: /etc/systemd/system/work.service
    content: |
      [Service]
      ExecStart=docker run --rm --name work --network host -v /run/work:/inside --entrypoint python IMAGE -c "import sys; print('read', open('/inside/file').read(), flush=True); sys.stdin.read(); import time; time.sleep(600)"
      ExecStop=-docker stop -t 1 work
      ExecStopPost=shutdown -h now
      StandardOutput=journal+console
runcmd:
  - [systemctl, start, --no-block, work.service]
"""


@pytest.mark.podman
@pytest.mark.timeout(300)
def test_containers_are_real_where_the_engine_is_podman():
    """With podman a machine's `docker run` is a real container, which sees a mounted folder of the machine."""
    if why := unavailable():
        pytest.skip(why)
    image = with_distributed()
    images = Images()
    images.add(image)
    room = Room(images, "podman")
    try:
        machine = make(room, "i-podman", SERVICE.replace("IMAGE", image))
        machine.said("docker: read of the machine", 120)
        machine.guest.stop(60)
        machine.halted()
        machine.guest.discard()
    finally:
        room.close()


def test_machines_live_until_they_are_stopped_where_the_engine_is_none():
    """With no engine a machine boots, its scripts end at once, and its container lives until it is stopped."""
    room = Room(Images(), "none")
    try:
        user_data = SERVICE.replace("IMAGE", dask_image()) + "bootcmd: [[sh, -c, 'exit 1']]\n"
        machine = make(room, "i-none", user_data)
        machine.said("Started work.service")
        assert "failed" not in machine.finished()
        machine.guest.stop(10)
        machine.halted()
        folder = room.folder
    finally:
        room.close()

    assert not folder.exists()
