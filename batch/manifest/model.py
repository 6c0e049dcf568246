"""A manifest that has been read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from batch.errors import Problem
from batch.job import Job
from batch.manifest.limits import DEFAULT_LIMITS, Limits
from batch.prices import Overrides


@dataclass(frozen=True, slots=True)
class Callback:
    """The receiver: the public *url* that the provider calls, and HOST:PORT to *listen* on."""

    url: str | None = None
    listen: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest. `output_dir` is as written, relative to the manifest."""

    path: Path
    name: str
    jobs: tuple[Job, ...]
    limits: Limits = DEFAULT_LIMITS
    callback: Callback | None = None
    output_dir: Path | None = None
    base_url: str | None = None
    proxy: str | None = None
    prices: Overrides = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
