"""What a run has to report, collected on its way; `batch.cli.reporting` reports it at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

NOT_A_RUN = frozenset({"--dry-run", "--help", "-h"})


@dataclass(slots=True)
class Notice:
    """What a command has to report. `main` makes one, `run` fills it in.

    So a run is reported however it ends, also one whose manifest cannot be read or whose options are
    wrong: then the environment says to whom.

    *path* is the manifest's, known before it can be read; *notify* is what it says, a `Notify`
    (`--help` need not load that type); *start* the observer that tells a monitor of the start.
    *metrics_file* is where numbers go, *metrics* the observer that counts them.
    *result* is what `--json` prints, *text* what a person reads.
    """

    is_wanted: bool = False
    path: Path | None = None
    notify: Any = None
    output_dir: Path | None = None
    run_id: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    start: Any = None
    metrics_file: Path | None = None
    metrics: Any = None
    quiet: bool = False
    in_log: bool = False
    rid: str = ""


def new_notice(args: Sequence[str]) -> Notice:
    """Return an empty notice; only a run is ever reported."""
    return Notice(is_wanted=args[:1] == ["run"] and NOT_A_RUN.isdisjoint(args))


def notice() -> Notice:
    """Return the notice of the command that is being carried out."""
    found: Notice = click.get_current_context().ensure_object(Notice)
    return found
