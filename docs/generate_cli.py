"""Write `docs/cli.md` from the commands themselves: `python docs/generate_cli.py`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudprovider.cli import COMMANDS, cloud
from cloudprovider.cli.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).with_name("cli.md")
#: Groups whose commands have the options of cluster classes.
SAME = ("doctor",)
HEAD = """\
# dask cloud

<!-- Written by docs/generate_cli.py from the commands themselves. Change those, and run it. -->

`dask cloud`, or `dask-cloud`, finds clusters by the tags of their machines: with the cloud's credentials and nothing else,
from any machine, on any day. It asks every cloud whose credentials are here, side by side, and imports `distributed`
only where it speaks to a scheduler.

```console
$ dask cloud list                     # what runs
$ dask cloud show nightly             # its machines, what each costs, its leases, why machines ended
$ dask cloud logs nightly --follow    # of all its machines, also of those that have ended
$ dask cloud open nightly             # its dashboard in your browser
$ dask cloud down nightly             # the end of it
```

## A cluster that stays

`dask cloud up` starts a cluster that stays when the command has ended, until its leases end it. The file is YAML; its keys
are the options of the cluster class, and one that is misspelt is refused with the nearest that is right.

```yaml
cluster: fargate        # or FargateCluster
name: nightly
n-workers: 10
worker-memory: 16 GiB
spot: fallback
```

```console
$ dask cloud up nightly.yaml
$ dask cloud up nightly.yaml --n-workers 20
```

The second line finds the cluster of that name, and scales it. Without a file each option follows the provider's name:
`dask cloud up ec2 --name trial --region eu-central-1 --instance-type m7i.xlarge --n-workers 4`. What a cluster loses is replaced
while a manager is attached to it, and with `--autonomous` also when none is.

## For scripts

Every command has `--json`: what it prints to stdout is then JSON and nothing else, and what it says to people goes to stderr.
Fields are added, but none is taken away or changes its meaning. How it ended is the exit code:

{codes}

A cloud that cannot be asked hides none of the others: `list` shows what the others have, names on stderr the one that
refused and why, and ends with 9.

| command | what `--json` prints |
|---|---|
| `list` | a list of `cluster`, `cloud`, `zone`, `scheduler`, `workers`, `created`, `expires` |
| `show` | the same of one cluster, with `owner`, `machines`, `ended` (each with `why`), `cost` (as `cluster.cost().as_json()`), `leases`, `lead`, `budget`, `clients`, `working`, `idle_s`, `timeline`, `decisions`; `not_asked` says why its scheduler could not be asked, whose facts are then null |
| `logs` | one object a line: `machine`, `role`, `line` |
| `up` | `cluster`, `cloud`, `region`, `class`, `scheduler`, `expires`, `leases`, `autonomous`, `started`, `before`, `workers`, `problem` |
| `scale` | `cluster`, `asked`, `before`, `workers` |
| `open` | `cluster`, `page`, `url`; it goes on until Ctrl-C |
| `down` | `cluster`, `cloud`, `ended` (ids), `asked` (whether the scheduler was) |
| `sweep` | what would go: a list of `cluster`, `cloud`, `machines`, `created`, `in_use`, `not_asked`; with `--yes` what went: `cluster`, `cloud`, `machines`, `resources`, `left` |
| `template` | a list of names; with a name `template` and `files` |
| `emulate` | `cloud`, `url`, `environment`; it goes on until Ctrl-C |
| `price`, `demo`, `doctor` | the quote, the report, the findings |

Times are seconds since the epoch, lengths of time seconds, money US dollars.

## Completion

Commands, options, and the names of clusters that run: these are asked of the clouds, for three seconds at the most.

| shell | one line in | is |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(_DASK_CLOUD_COMPLETE=bash_source dask-cloud)"` |
| zsh | `~/.zshrc` | `eval "$(_DASK_CLOUD_COMPLETE=zsh_source dask-cloud)"` |
| fish | `~/.config/fish/config.fish` | `_DASK_CLOUD_COMPLETE=fish_source dask-cloud \\| source` |

For `dask cloud` it is `_DASK_COMPLETE` and `dask`.

## Commands
"""


def codes() -> str:
    """The table of exit codes."""
    rows = [f"| {code.value} | {meaning} |" for code, meaning in CODES.items()]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def section(words: str, command: click.Command) -> Iterator[str]:
    """What a command does, and its options."""
    context = click.Context(command, info_name=f"dask cloud {words}")
    yield f"\n### {words}\n\n`{context.command_path} {' '.join(command.collect_usage_pieces(context))}`\n\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    rows = [row(option, context) for option in command.params if isinstance(option, click.Option)]
    if found := [line for line in rows if line]:
        yield "\n".join(["\n| option | |", "|---|---|", *found, ""])
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        if words in SAME:
            yield f"\n{', '.join(f'`{words} {name}`' for name in names)} take the [options of their class](options.md).\n"
            return
        for name in names:
            inner = command.get_command(context, name)
            if inner is not None:
                yield from section(f"{words} {name}", inner)


def row(option: click.Option, context: click.Context) -> str:
    """An option as a row of a table; empty for one that is nobody's business."""
    record = None if option.hidden else option.get_help_record(context)
    if record is None:
        return ""
    names, text = (part.replace("|", "\\|").replace("*", "\\*") for part in record)
    return f"| `{names}` | {text} |".replace("\n", " ")


def generated() -> str:
    """The whole page."""
    context = click.Context(cloud, info_name="dask cloud")
    parts = [HEAD.replace("{codes}", codes())]
    for name in sorted(COMMANDS):
        command = cloud.get_command(context, name)
        if command is not None:
            parts += section(name, command)
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(generated(), encoding="utf-8")
