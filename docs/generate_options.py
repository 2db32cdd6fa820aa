"""Write `docs/options.md` from the Config dataclasses: `python docs/generate_options.py`."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudprovider.config import Config
from cloudprovider.providers._aws_config import AWSConfig
from cloudprovider.providers._ecs_config import ECSConfig, FargateConfig, TaskConfig
from cloudprovider.providers._vm_config import VMConfig
from cloudprovider.providers.azure import AzureVMConfig
from cloudprovider.providers.ec2 import EC2Config
from cloudprovider.providers.gce import GCPConfig
from cloudprovider.providers.local import LocalConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).with_name("options.md")
HEAD = """\
# Options

<!-- Written by docs/generate_options.py from the Config dataclasses. Change those, and run it. -->

Every option is a keyword argument of the cluster class, a key in Dask config and an environment variable:

```python
FargateCluster(n_workers=4, idle_timeout="1 hour")
```

```yaml
cloud:
  default:                  # every cloud
    idle-timeout: 1 hour
  fargate:                  # one cloud
    n-workers: 4
```

```console
$ export DASK_CLOUD__DEFAULT__IDLE_TIMEOUT="1 hour" DASK_CLOUD__FARGATE__N_WORKERS=4
```

The keyword comes first, then `cloud.<section>`, then `cloud.default`, each from the environment before the files, then the
default below. `None` means unset; `False` and `0` are values. A name that is no option is an error that names the nearest
that is. Lengths of time are seconds or `"20 minutes"`, memory is GiB or `"8 GiB"`.
"""
#: Heading, whose own options follow, and what is said before them.
SECTIONS: tuple[tuple[str, type[Config], str], ...] = (
    ("Every cloud", Config, "Section `default`, or that of the cloud."),
    ("Every cluster of virtual machines", VMConfig, "Section `default`, `ec2`, `gcp` or `azure`."),
    ("Every cluster on AWS", AWSConfig, "Section `default`, `fargate`, `ecs` or `ec2`."),
    ("FargateCluster and ECSCluster", TaskConfig, "Section `fargate` or `ecs`."),
    ("FargateCluster", FargateConfig, "Section `fargate`. [The guide](fargate.md) has them by theme."),
    ("ECSCluster", ECSConfig, "Section `ecs`. Needs `ecs_cluster`."),
    ("EC2Cluster", EC2Config, "Section `ec2`."),
    ("GCPCluster", GCPConfig, "Section `gcp`. [The guide](gcp.md) has them by theme."),
    ("AzureVMCluster", AzureVMConfig, "Section `azure`. [The guide](azure.md) has them by theme."),
    ("ProcessCluster", LocalConfig, "Section `local`. Machines are processes of this computer."),
)
TAIL = """
## Every cluster class

`asynchronous` (False) and `loop` (None) are `distributed`'s own: [asynchronous use](../examples/asynchronous.py).

## Settings that are not a cluster's

| key | default | |
|---|---|---|
| `cloud.address-url` | `https://checkip.amazonaws.com` | Answers with the address of whoever asks, as plain text. |
| `cloud.registry-url` | the image's own registry | Where it is looked up whether an image exists. |
"""


def described(config: type[Config]) -> dict[str, str]:
    """What a class's docstring says of each option in its section Parameters."""
    _, _, section = inspect.cleandoc(config.__doc__ or "").partition("Parameters\n----------\n")
    texts: dict[str, str] = {}
    for entry in re.finditer(r"^(\w[\w, ]*)\n((?:(?:    .*)?\n?)+)", section, re.MULTILINE):
        text = " ".join(entry[2].split())
        texts |= dict.fromkeys(entry[1].split(", "), text)
    return texts


def default(field: dataclasses.Field[Any]) -> str:
    """A field's default as code."""
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if value is None or value == {}:
        return "unset"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


def rows(config: type[Config]) -> Iterator[str]:
    """A row for each option that a class adds or whose default it changes; one for those described together."""
    bases = [base for base in config.__bases__ if dataclasses.is_dataclass(base)]
    inherited = {f.name: default(f) for base in bases for f in dataclasses.fields(base)}
    texts = {name: text for cls in reversed(config.__mro__) for name, text in described_by(cls).items()}
    own = [field for field in dataclasses.fields(config) if inherited.get(field.name) != default(field)]
    for text, some in itertools.groupby(own, lambda field: texts[field.name]):
        fields = list(some)
        names = "<br>".join(f"`{field.name}`" for field in fields)
        yield f"| {names} | {'<br>'.join(map(default, fields))} | {text} |"


def described_by(cls: type) -> dict[str, str]:
    """As `described`, for any class of an inheritance."""
    return described(cls) if issubclass(cls, Config) else {}


def generated() -> str:
    """The whole page."""
    parts = [HEAD]
    for heading, config, words in SECTIONS:
        table = "\n".join(["| option | default | |", "|---|---|---|", *rows(config)])
        parts.append(f"\n## {heading}\n\n{words}\n\n{table}\n")
    return "".join([*parts, TAIL])


if __name__ == "__main__":
    TARGET.write_text(generated(), encoding="utf-8")
