"""Templates have holes and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudprovider import templates
from cloudprovider.errors import ConfigError

FITTING = {
    "account": "123456789012",
    "architecture": "ARM64",
    "boot": "e30=",
    "cloud": "gce",
    "cluster": "it",
    "cluster_name": "it",
    "compatibility": "FARGATE",
    "cpu": "256",
    "devices": "--gpus all",
    "disks": "/dev/disk/by-id/google-local-nvme-ssd-*",
    "ecs_cluster": "dask",
    "end": "AAAA",
    "ending": "/bin/sh /etc/dask-cloud-end https://management.azure.com 00000000-0000-0000-0000-000000000000",
    "environment": "",
    "execution_role": "arn:aws:iam::123456789012:role/dask-execution",
    "expires": "1800000000",
    "family": "dask-it-worker",
    "home": "/opt/dask-cloud",
    "image": "ghcr.io/dask/dask:2026.8.0-py3.11",
    "lease": "600",
    "log_group": "/dask",
    "log_stream": "dask-it",
    "lock": "AAAA",
    "logging": "--log-driver gcplogs",
    "machine_role": "arn:aws:iam::*:role/dask-machine",
    "manager": "AAAA",
    "manager_image": "ghcr.io/dask/dask-cloud-manager:0.1.0-dask2026.8.0-py3.14",
    "manager_logging": "--log-driver awslogs --log-opt awslogs-stream=it/`cat /var/lib/cloud/data/instance-id`/manager",
    "masked": "--now, ecs.service, amazon-ecs-volume-plugin.service",
    "memory": "512",
    "mkfs": "mkfs.ext4 -qFE nodiscard",
    "packed": "AAAA",
    "partition": "aws",
    "program": "-m cloudruntime",
    "python": "3.14",
    "region": "us-gov-west-1",
    "resource_group": "dask-westeurope",
    "runtime": "",
    "secret": "/dask/it/machine",
    "subscription": "00000000-0000-0000-0000-000000000000",
    "task_role": "arn:aws:iam::123456789012:role/path/dask-task",
}


@pytest.mark.parametrize("name", templates.names())
def test_nothing_but_known_holes(name):
    """No template has a `$` that opens no known hole, nor a `%{`."""
    assert [] == list(templates.unfit(templates.read(name)))


@pytest.mark.parametrize("name", [name for name in templates.names() if name.endswith(".json")])
def test_filled_templates_are_json(name):
    """Every JSON template is JSON once its holes are filled, and has no hole then."""
    text = templates.render(name, **FITTING)

    assert json.loads(text)
    assert "$" not in text


def test_every_hole_is_used_and_has_a_fitting_value():
    """The table of holes is what the templates have, no more and no less."""
    used = set().union(*(templates.holes(templates.read(name)) for name in templates.names()))

    assert set(FITTING) == set(templates.HOLES)
    assert used <= set(templates.HOLES)


@pytest.mark.parametrize(
    "text", ["$image", "${Image}", "${other}", "%{ if x }", "$", "$$", "${image", "${a.b}"]
)
def test_anything_else_is_refused(text):
    """Python and Terraform read the same file: what only one of them would replace is found."""
    assert list(templates.unfit(f"a {text} b"))


def test_unknown_template_names_those_there_are():
    """A wrong name is an error that lists the right ones."""
    with pytest.raises(ConfigError, match=r"task-definition\.json"):
        templates.render("task-definition.yaml")


def test_missing_value_is_named():
    """A hole without a value is an error that names it."""
    with pytest.raises(ConfigError, match="needs image"):
        templates.render("task-definition.json", **{k: v for k, v in FITTING.items() if k != "image"})


@given(st.text(max_size=40), st.sampled_from(["image", "log_group", "secret", "family"]))
def test_no_value_ends_a_string(value, hole):
    """Whatever fits into a hole stays what it is: no value can end the JSON string it is in."""
    try:
        text = templates.render("task-definition.json", **{**FITTING, hole: value})
    except ConfigError:
        return
    assert json.dumps(value) in json.dumps(json.loads(text))
