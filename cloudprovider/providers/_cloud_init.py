"""A user's own user data beside ours, as cloud-init merges them."""

from __future__ import annotations

import email
import hashlib
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import TYPE_CHECKING

from cloudprovider.errors import ConfigError

if TYPE_CHECKING:
    from email.message import Message

__all__ = ["merged", "ours"]

#: What user data may be, by its first line: https://docs.cloud-init.io/en/latest/explanation/format.html
TYPES = {
    "#cloud-config-archive": "cloud-config-archive",
    "#cloud-config": "cloud-config",
    "#cloud-boothook": "cloud-boothook",
    "#include-once": "x-include-once-url",
    "#include": "x-include-url",
    "## template: jinja": "jinja2",
    "#!": "x-shellscript",
}
#: Without this a later part replaces what an earlier one says: https://docs.cloud-init.io/en/latest/reference/merging.html
MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
#: Lists of ours that are added to the user's.
LISTS = ("bootcmd", "write_files", "runcmd")
CONFIG = "text/cloud-config"


def merged(own: str, text: str) -> str:
    """User data of several parts: the user's first, and what cloud-config says in `text` added to it.

    The user's scripts and commands are over before the machine starts Dask.

    Raises
    ------
    ConfigError
        When cloud-init would not know what `own` is, or could not add to it.
    """
    boundary = hashlib.sha256(f"{own}{text}".encode()).hexdigest()[:16]
    whole = MIMEMultipart(boundary=boundary)
    for part in _parts(own):
        if part.get_content_type() == CONFIG:
            _check(part)
        whole.attach(part)
    last = MIMEText(text, "cloud-config", "us-ascii")
    last["Merge-Type"] = MERGE
    whole.attach(last)
    return whole.as_string()


def ours(text: str) -> str:
    """Our part of user data."""
    if text.startswith("#cloud-config"):
        return text
    return _content(list(email.message_from_string(text).walk())[-1])


def _parts(own: str) -> list[Message]:
    if "mime-version:" in own[:4096].lower():  # as cloud-init tells
        return [part for part in email.message_from_string(own).walk() if not part.is_multipart()]
    kind = next((kind for line, kind in TYPES.items() if own.startswith(line)), None)
    if kind is None:
        raise ConfigError(
            f"user_data= begins with {own[:40]!r}, which cloud-init does not know: begin a script with "
            "#!/bin/sh and its configuration with #cloud-config, or pass MIME parts."
        )
    return [MIMEText(own, kind, "us-ascii" if own.isascii() else "utf-8")]


def _content(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode(part.get_content_charset("utf-8")) if isinstance(payload, bytes) else ""


def _check(part: Message) -> None:
    import yaml

    try:
        document = yaml.safe_load(_content(part))
    except yaml.YAMLError as error:
        raise ConfigError(f"user_data= is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError("user_data= holds cloud-config that is no mapping.")
    wrong = [key for key in LISTS if not isinstance(document.get(key, []), list)]
    if wrong:
        raise ConfigError(
            f"user_data= has {', '.join(wrong)} that is no list: cloud-init could not add ours."
        )
