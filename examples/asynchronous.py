"""The same with `async` and `await`, as in a web service or beside other clusters in one event loop."""

import asyncio

from dask.distributed import Client

from cloudprovider import FargateCluster


async def main() -> None:
    """Start two clusters at once, and use both."""
    async with (
        FargateCluster(n_workers=1, asynchronous=True) as one,
        FargateCluster(n_workers=1, asynchronous=True) as other,
        Client(one, asynchronous=True) as here,
        Client(other, asynchronous=True) as there,
    ):
        sums = await asyncio.gather(here.submit(sum, [1, 2]), there.submit(sum, [3, 4]))
        print(f"{sums[0]} here, {sums[1]} there.")
        await one.scale(2)
        await here.wait_for_workers(2)
        print(f"{len(one.workers)} workers here, {len(other.workers)} there.")


if __name__ == "__main__":
    asyncio.run(main())
