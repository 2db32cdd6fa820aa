"""A first cluster: start it, compute on it, see what it cost. Nothing is left when the block ends."""

from cloudprovider import FargateCluster


def square(x: int) -> int:
    """What runs on the workers: any function of yours."""
    return x * x


def main() -> None:
    """Sum a thousand squares on two machines."""
    with FargateCluster(n_workers=2) as cluster, cluster.get_client() as client:
        print(f"Dashboard: {cluster.dashboard_link}")
        total = client.submit(sum, client.map(square, range(1000))).result()
        print(f"The sum of squares is {total:,}.")
        print(f"Until now: {cluster.cost()!r}")
    print(f"After close: {cluster.cost()!r}")


if __name__ == "__main__":
    main()
