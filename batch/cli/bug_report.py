"""Messages of failure: a sentence on stderr and, for a bug, a report without secrets."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

import click

from batch import __version__
from batch.redact import Mask, redact

_hidden: set[str] = set()


def print_error(message: str) -> None:
    """Print *message* to stderr."""
    click.echo(f"kling-batch: {message}", err=True)


def hide(secret: str) -> None:
    """Redact *secret* from the reports of this process, as the keys in the environment are."""
    if secret:
        _hidden.add(secret)


def write_bug_report(text: str) -> str:
    """Write a report that can be pasted into an issue, secrets redacted, and return its path.

    Where no file can be written (the disk may be full), the report goes to stderr.
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
        if any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSW", "_ENGINE")):
            yield value
        elif name.upper().endswith("_PROXY"):
            credentials = value.rpartition("@")[0].rpartition("://")[2]
            yield credentials.partition(":")[2]
