"""A job: one video that the manifest asks for, known by what would be sent for it."""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, overload

from batch.frozen import frozen
from batch.packed import Packed

# What the provider does where these are absent (CometAPI's page of text2video, Kling's reference).
# They belong to version 1 of the manifest and never change in it. What else has a default is always
# sent, except the mode of a model that has none.
MODE_IF_ABSENT = "std"
OPTIONAL_DEFAULTS: dict[str, Any] = {"sound": "off", "cfg_scale": 0.5}
_OPTIONAL_KEYS = tuple(f'"{name}":' for name in OPTIONAL_DEFAULTS)
VARIANTS_TRIED = 10_000  # of a fingerprint of version 1
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class FailureKind(StrEnum):
    """Whose a failure is; `error.kind` in results.jsonl."""

    INVALID_REQUEST = "invalid_request"
    MODERATION = "moderation"
    GENERATION = "generation"
    ACCOUNT = "account"
    RATE_LIMITED = "rate_limited"
    PROVIDER = "provider"
    NETWORK = "network"
    DOWNLOAD = "download"
    MEDIA = "media"
    DISK = "disk"
    TIMEOUT = "timeout"
    UNCONFIRMED = "unconfirmed"


@frozen
class Failure:
    """What went wrong, in a sentence that may be shown: no key, no signed URL, no control codes."""

    kind: FailureKind
    message: str
    code: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    is_unexplained: bool = False  # the provider's reason is in words that are not known

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Failure:
        """Return a failure from its values in JSON."""
        return cls(**{**values, "kind": FailureKind(values["kind"])})


def canonical_request(body: dict[str, Any]) -> str:
    """Write a request body as the one JSON that stands for it: sorted, no spaces."""
    return _CANONICAL.encode(body)


canonical_text: Callable[[str], str] = json.encoder.encode_basestring
"""Writes a text as it stands in a canonical request."""


def fingerprint(request: str, variant: int | None) -> str:
    """Hash what would be sent, and which variant it is (version 2).

    An option at its documented default hashes like an absent one, and the first variant like the
    only one: a default that is spelled out, or `count: 1`, changes no video.
    """
    number = variant if variant is not None and variant > 1 else ""
    return f"v2:{_digest(_without_defaults(request), number)}"


def upgraded_fingerprint(old: str, request: str) -> str:
    """Return version 2 of a fingerprint; *request* is what it was made of.

    Version 1 hashed the request as it was spelled, and the variant, which no state holds: the hash
    itself tells which one it was. Every later release must recognise it, or an upgrade would buy a
    library again.
    """
    if old.startswith("v1:"):
        for variant in (None, *range(1, VARIANTS_TRIED + 1)):
            if old == f"v1:{_digest(request, variant or '')}":
                return fingerprint(request, variant)
    return old


def _without_defaults(request: str) -> str:
    """Return the one spelling of a canonical request: options at their defaults are left out."""
    has_optional = False
    for key in _OPTIONAL_KEYS:
        has_optional = has_optional or key in request
    if '"mode":' in request and not has_optional:  # nearly always: not parsed
        return request
    body: dict[str, Any] = {"mode": MODE_IF_ABSENT, **json.loads(request)}
    for name, default in OPTIONAL_DEFAULTS.items():
        if name in body and body[name] == default:
            del body[name]
    return canonical_request(body)


def _digest(request: str, variant: int | str) -> str:
    return hashlib.sha256(f"{variant}\n{request}".encode()).hexdigest()[:32]


class Job(NamedTuple):
    """One video that the manifest asks for. A tuple: there may be a million.

    *request* is the canonical JSON of what will be sent, without `external_task_id` and
    `callback_url`. *file* and *line* say where in the manifest the job stands.
    """

    id: str
    request: str
    fingerprint: str
    tags: tuple[str, ...] = ()
    variant: int | None = None
    file: str = ""
    line: int = 0

    def body(self) -> dict[str, Any]:
        """Return what will be sent, as a new dict."""
        body: dict[str, Any] = json.loads(self.request)
        return body

    @property
    def video_path(self) -> str:
        """Where the video belongs, relative to the output folder."""
        return video_path(self.id)


PLAIN = 16_384  # jobs or attempts kept as they are; what comes on top of them is packed


class Jobs(Sequence[Job]):
    """The jobs of a manifest, in its order. A million need some 60 MB, where so many `Job` take 500.

    The first ones are kept as they are: in most manifests that is all of them, and they are asked for
    several times.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._plain: list[Job] = []
        self._packed = Packed()
        for job in jobs:
            self.append(job)

    def append(self, job: Job) -> None:
        """Add a job."""
        if len(self._plain) < PLAIN:
            self._plain.append(job)
            return
        self._packed.append(tuple(job))

    def __len__(self) -> int:
        return len(self._plain) + len(self._packed)

    def __iter__(self) -> Iterator[Job]:
        return itertools.chain(self._plain, map(Job._make, self._packed))

    @overload
    def __getitem__(self, place: int) -> Job: ...
    @overload
    def __getitem__(self, place: slice) -> list[Job]: ...
    def __getitem__(self, place: int | slice) -> Job | list[Job]:
        """Return one job, or a list of some."""
        found = range(len(self))[place]
        return list(map(self._at, found)) if isinstance(found, range) else self._at(found)

    def _at(self, place: int) -> Job:
        if place < len(self._plain):
            return self._plain[place]
        return Job._make(self._packed[place - len(self._plain)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def video_path(job_id: str) -> str:
    """Return where the video of a job belongs, relative to the output folder."""
    return f"videos/{job_id}.mp4"


def folded(job_id: str) -> str:
    """Return the form shared by ids that are one file on some file system, and one name to people."""
    form = job_id.lower()
    if not job_id.isascii():
        form = unicodedata.normalize("NFC", unicodedata.normalize("NFC", job_id).casefold())
    return job_id if form == job_id else form  # the same text: a million are no copies


@frozen
class Video:
    """What a video file says of itself.

    *credentials* are the marks of its origin that it holds: `c2pa`, `xmp`, `aigc`.
    """

    duration_s: float
    width: int
    height: int
    credentials: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Video:
        """Return a video from its values in JSON; marks that there are none of may be left out."""
        return cls(**{**values, "credentials": tuple(values.get("credentials", ()))})

    def to_json(self) -> dict[str, Any]:
        """Return its values for JSON, without marks where there are none."""
        plain = {"duration_s": self.duration_s, "width": self.width, "height": self.height}
        return {**plain, "credentials": list(self.credentials)} if self.credentials else plain
