"""A dataframe larger than you would want on a laptop, made and reduced on the workers."""

import dask

from cloudprovider import FargateCluster


def main() -> None:
    """Average a month of readings, one a minute, by sensor."""
    with FargateCluster(n_workers=3, worker_cpu=1, worker_memory="4 GiB") as cluster, cluster.get_client():
        # Yours would be dask.dataframe.read_parquet("s3://..."), with role= a role that may read it.
        readings = dask.datasets.timeseries(
            "2026-01-01", "2026-02-01", freq="1min", partition_freq="1D", seed=1
        )
        means = readings.groupby("name").x.mean().compute()
        rows = len(readings)
    print(f"{rows:,} readings of {len(means)} sensors.")
    print(f"The highest mean is {means.idxmax()}'s.")


if __name__ == "__main__":
    main()
