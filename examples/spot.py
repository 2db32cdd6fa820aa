"""Workers on spare capacity at about a third of the price; on demand for what there is none of."""

from collections import Counter

from cloudprovider import FargateCluster


def main() -> None:
    """See which market each worker came from."""
    # When AWS takes a worker back, the two minutes of its notice are used to move its data to the others,
    # and another machine is ordered. The scheduler is always on demand.
    with FargateCluster(n_workers=3, spot="fallback", worker_cpu=1, worker_memory="2 GiB") as cluster:
        cluster.wait_for_workers(3)
        markets = Counter(machine.market for machine in cluster.workers.values())
        print(", ".join(f"{count} {market}" for market, count in sorted(markets.items())))
        for line in cluster.cost().lines:
            print(f"{line.machines} {line.market} {line.role}: ${line.per_hour:.3f} an hour")


if __name__ == "__main__":
    main()
