"""Messages of failure: a sentence on stderr and, for a bug, a report without secrets."""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import IO

import click

from batch import __version__

_LINK = re.compile(r"(https?://[^\s'\"?#]*+)([?#][^\s'\"]*)?")
_hidden: set[str] = set()


def print_error(message: str, stream: IO[str] | None = None) -> None:
    """Print *message* to stderr."""
    click.echo(f"kling-batch: {message}", file=stream or sys.stderr)


def hide(secret: str) -> None:
    """Redact *secret* from the reports of this process, as the keys in the environment are."""
    if secret:
        _hidden.add(secret)


def write_bug_report(text: str) -> str:
    """Write a report that can be pasted into an issue, secrets redacted, and return its path.

    Where no file can be written (the disk may be full), the report goes to stderr.
    """
    named = {value for name, value in os.environ.items() if _is_secret(name) and value}
    for secret in sorted(named | _hidden, key=len, reverse=True):
        text = text.replace(secret, "(secret)")
    text = _LINK.sub(lambda link: f"{link[1]}?…" if link[2] else link[0], text)
    text = re.sub(r"sk-[\w-]{6,}", "sk-…", text)
    about = f"kling-batch {__version__}, Python {platform.python_version()}, {platform.platform()}"
    report = f"{about}\n\n{text}\n"
    import tempfile  # noqa: PLC0415 - only a bug needs it

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="kling-batch-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(report)
    except OSError:
        click.echo(report, file=sys.stderr)
        return "the lines above"
    return file.name


def _is_secret(name: str) -> bool:
    return any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))
