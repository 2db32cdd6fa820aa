"""A Dask cluster on any cloud."""
