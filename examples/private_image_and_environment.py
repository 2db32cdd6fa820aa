"""An image of yours from a private registry, and what its programs need in their environment."""

import os

from cloudprovider import FargateCluster

# It must have the Python minor and the distributed of this computer; nothing of this project's.
IMAGE = "registry.example.com/team/forecast:7"
# Its login: a secret in AWS Secrets Manager whose name starts with `dask/`, so that the default
# execution role may read it: {"username": "...", "password": "..."}.
LOGIN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:dask/registry-AbCdEf"


def region_of_model() -> str:
    """What user code on a worker sees."""
    return os.environ["MODEL_REGION"]


def main() -> None:
    """Run a function in the image."""
    with (
        FargateCluster(
            n_workers=1,
            image=IMAGE,
            repository_credentials=LOGIN,
            # Everyone who may read task definitions sees these: no secrets here.
            environment={"MODEL_REGION": "europe", "OMP_NUM_THREADS": "1"},
            # Of the workers alone: keyword arguments of distributed's Nanny.
            worker_options={"resources": {"licence": 1}},
            tags={"project": "forecast"},
        ) as cluster,
        cluster.get_client() as client,
    ):
        where = client.submit(region_of_model, resources={"licence": 1}).result()
        print(f"The model is for {where}.")


if __name__ == "__main__":
    main()
