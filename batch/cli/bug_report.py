"""What the person is told when the bug is ours: one sentence, and a report that can be pasted."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from typing import IO

import click

from batch import __version__
from batch.redact import Mask, redact

_hidden: set[str] = set()


def print_error(message: str, stream: IO[str] | None = None) -> None:
    """Tell the person, on stderr."""
    click.echo(f"kling-batch: {message}", file=stream or sys.stderr)


def hide(secret: str) -> None:
    """Let no report of this process show *secret*, which did not come from the environment."""
    if secret:
        _hidden.add(secret)


def write_bug_report(text: str) -> str:
    """Write a report that can be pasted into an issue, without secrets; say where it is.

    Where no file can be written, a full disk may be why we are here, it goes to stderr.
    """
    text = redact(Mask(*_hidden, *_environment_secrets(), shown="(secret)").text(text))
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


def _environment_secrets() -> Iterator[str]:
    """Yield the values of variables that are named like a secret, and the passwords of proxies."""
    for name, value in os.environ.items():
        if any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSW")):
            yield value
        elif name.upper().endswith("_PROXY"):
            credentials = value.rpartition("@")[0].rpartition("://")[2]
            yield credentials.partition(":")[2]
