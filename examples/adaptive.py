"""As many machines as there is work for: none while you think, four while you compute."""

import time

from cloudprovider import FargateCluster


def simulate(seed: int) -> float:
    """Something that takes a while."""
    time.sleep(0.5)
    return seed / 2


def main() -> None:
    """Let the work decide how many machines there are."""
    with FargateCluster(worker_cpu=1, worker_memory="2 GiB") as cluster, cluster.get_client() as client:
        # By default a machine is ordered when enough of what it will bill is work, and stays for the minute
        # that bills anyway. These options are for seeing all of it in seconds:
        cluster.adapt(minimum=0, maximum=4, interval="500ms", target_duration="1s", keep_paid=False)
        print(f"{len(cluster.workers)} workers before the work.")
        futures = client.map(simulate, range(40))
        most = 0
        while not all(future.done() for future in futures):
            most = max(most, len(cluster.workers))
            time.sleep(0.1)
        print(f"The sum is {sum(client.gather(futures)):g}, by up to {most} workers.")
        futures.clear()  # a worker that holds results is not idle
        while cluster.workers:
            time.sleep(0.1)
        print(f"{len(cluster.workers)} workers after it.")


if __name__ == "__main__":
    main()
