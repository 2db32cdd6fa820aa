# The image of the manager that runs beside the scheduler of an autonomous cluster: the runtime image, dask-cloud, and
# the SDKs of all clouds. Build the runtime image first (runtime/Dockerfile), then in this folder:
#   docker build --build-arg RUNTIME=dask-cloud-runtime:2026.8.0-py3.12 --tag dask-cloud-manager:0.1.0-dask2026.8.0-py3.12 .
ARG RUNTIME=dask-cloud-runtime
FROM ${RUNTIME}

# A mirror of the package index, when there is one.
ARG PIP_INDEX_URL

USER root
COPY LICENSE README.md pyproject.toml /opt/dask-cloud/
COPY cloudprovider /opt/dask-cloud/cloudprovider
COPY templates /opt/dask-cloud/templates
# What the runtime image has stays: the scheduler beside it has the same.
RUN python -m pip install --no-cache-dir --upgrade-strategy only-if-needed "/opt/dask-cloud[aws,azure,gcp]" \
    && rm -rf /opt/dask-cloud

USER dask
ENTRYPOINT ["python", "-m", "cloudprovider.autonomous"]
