"""Start a cluster, leave it running, find it again from another process or computer, and end it."""

import sys

from dask.distributed import fire_and_forget

from cloudprovider import FargateCluster


def start(name: str) -> None:
    """Start a cluster with work, and leave it."""
    cluster = FargateCluster(
        name=name,
        n_workers=1,
        work_timeout="8 hours",  # how long work may go on with nobody looking
        client_timeout="30 minutes",  # how long it waits for you when there is none
        max_lifetime="12 hours",  # the end, whatever happens
    )
    with cluster.get_client() as client:
        client.publish_dataset(answer=client.submit(sum, range(10)))
        fire_and_forget(client.submit(print, "work that nobody waits for"))
    print(f"Left {cluster.detach()} running.")


def finish(name: str) -> None:
    """Find the cluster by its name, take the result, and end it."""
    with FargateCluster.from_name(name) as cluster, cluster.get_client() as client:
        print(f"The answer is {client.get_dataset('answer').result()}.")
    print(f"Ended {name}.")


if __name__ == "__main__":
    {"start": start, "finish": finish}[sys.argv[1]](sys.argv[2])
