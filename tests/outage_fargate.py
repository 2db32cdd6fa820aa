"""A FargateCluster on the embedded AWS whose client loses everything for a while: machines and the cloud's API.

Run as ``python outage_fargate.py`` in a network namespace of its own, as root; prints JSON. The client is
another process in a group of its own, by which the kernel tells its packets from those of machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

from distributed import Client
from outage import wall

from cloudprovider import FargateCluster
from cloudprovider.emulator import Emulator
from cloudprovider.events import Phase

GROUP = 12345
MARKED = f"""
add table inet outage
add chain inet outage output {{ type filter hook output priority 0; }}
add rule inet outage output meta skgid {GROUP} ct mark set 7
"""
WALL = """
add chain inet outage input { type filter hook input priority 0; }
add rule inet outage input ct mark 7 drop
"""
NO_WALL = "delete chain inet outage input"
SMALL = {"worker_cpu": 0.25, "worker_memory": "0.5 GiB", "progress": False}


def serve() -> dict[str, object]:
    """Run the cloud, and the client beside it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    wall(MARKED)
    with Emulator("aws") as cloud:
        command = [sys.executable, __file__, "client"]
        environ = {**os.environ, **cloud.environ}
        done = subprocess.run(command, env=environ, group=GROUP, stdout=subprocess.PIPE, check=True)
        orders = sum(call.operation == "RunTask" for call in cloud.calls)
        return {**json.loads(done.stdout), "orders": orders, "machines": len(cloud.machines())}


def use() -> dict[str, object]:
    """Compute and scale while the network is away."""
    with FargateCluster(n_workers=2, network_timeout="20s", **SMALL) as cluster, Client(cluster) as client:
        cluster.wait_for_workers(2, timeout=60)
        machines = sorted(cluster.workers)
        before = client.submit(sum, [1, 2])
        before.result()
        time.sleep(2.5)
        wall(WALL)
        cut = not reachable(os.environ["AWS_ENDPOINT_URL"])
        after = client.submit(sum, [3, 4])
        scaling = threading.Thread(target=cluster.scale, args=(3,))
        scaling.start()
        time.sleep(4)
        wall(NO_WALL)
        results = client.gather([before, after])
        scaling.join(60)
        cluster.wait_for_workers(3, timeout=60)
        return {
            "cut": cut,
            "results": results,
            "kept": set(machines) < set(cluster.workers),
            "said": [event.message for event in cluster.events.of(Phase.network, Phase.lost)],
        }


def reachable(url: str) -> bool:
    """Whether anything comes back."""
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except TimeoutError:
        return False
    except OSError as error:
        return not isinstance(getattr(error, "reason", None), TimeoutError)
    return True


if __name__ == "__main__":
    sys.stdout.write(json.dumps(use() if sys.argv[1:] == ["client"] else serve()))
