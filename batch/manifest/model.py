"""What a manifest says, once it has been read and checked: in full, and as much as a plan needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from batch.errors import Problem
from batch.job import Job, video_path
from batch.manifest.limits import DEFAULT_LIMITS, Limits
from batch.prices import Overrides


@dataclass(frozen=True, slots=True)
class Callback:
    """The receiver: the public *url* that the provider calls, and HOST:PORT to *listen* on."""

    url: str | None = None
    listen: str | None = None


class Heading(Protocol):
    """What an outline says as well as the manifest itself.

    *output_dir* is as written; whoever uses it takes it relative to the manifest. *warnings* are
    doubts: possible, but hardly meant.
    """

    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def jobs(self) -> Sequence[Job | Listed]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def callback(self) -> Callback | None: ...
    @property
    def output_dir(self) -> Path | None: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def warnings(self) -> tuple[Problem, ...]: ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that has been checked in full; see `Heading`.

    *sources* are the files that it was read from, each with the digest of what was in it; none
    where reading them again might say something else.
    """

    path: Path
    name: str
    jobs: tuple[Job, ...]
    limits: Limits = DEFAULT_LIMITS
    callback: Callback | None = None
    output_dir: Path | None = None
    base_url: str | None = None
    prices: Overrides = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    sources: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)


class Listed(NamedTuple):
    """A job without its request: enough to see whether it is up to date, too little to send."""

    id: str
    fingerprint: str
    tags: tuple[str, ...]

    @property
    def video_path(self) -> str:
        """Where the video belongs, relative to the output folder."""
        return video_path(self.id)


@dataclass(frozen=True, slots=True)
class Outline:
    """A manifest without requests and prices; see `Heading`."""

    path: Path
    name: str
    jobs: tuple[Listed, ...]
    limits: Limits
    callback: Callback | None
    output_dir: Path | None
    base_url: str | None
    warnings: tuple[Problem, ...]
