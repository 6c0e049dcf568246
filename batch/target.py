"""The bucket that a library is uploaded to, as a manifest names it and as a state remembers it."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import NamedTuple, Self

from batch.errors import UsageError

SCHEMES = ("s3", "gs", "az")
TARGET_PATTERN = r"^(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[^?#]*)?$"
VERIFY_EVERY_S = 7 * 86_400.0
FACT = "target"  # the fact that says where the latest run uploaded to


class Target(NamedTuple):
    """A bucket, or a place in one: *url* is scheme://bucket/prefix, without a slash at its end.

    *removes*: a local video is removed once it is there. What is there is listed every
    *verify_every_s*, and compared with what the state says.
    """

    url: str
    removes: bool = False
    verify_every_s: float = VERIFY_EVERY_S

    def to_fact(self) -> str:
        """Return what the state keeps of it."""
        return json.dumps({"url": self.url, "removes": self.removes})

    @classmethod
    def of_fact(cls, text: str | None) -> Self | None:
        """Return the target of a fact; None where there is none."""
        return cls(**json.loads(text)) if text else None


def parse_target(text: str) -> str:
    """Return the address of a bucket, without a slash at its end.

    Raises:
        ValueError: it is not a valid one. It is not shown where it may hold a secret.
    """
    scheme, found, rest = text.strip().partition("://")
    place = rest.partition("/")[0]
    if not found or scheme not in SCHEMES:
        what = repr(text[:40]) if not found else repr(f"{scheme[:20]}://")
        raise ValueError(f"{what} is not a valid bucket; for example s3://bucket/prefix, gs or az")
    if "@" in place or "?" in rest or "#" in rest:
        raise ValueError("it must not hold credentials or a query; they come from the environment")
    url = f"{scheme}://{rest.rstrip('/')}"
    parts = rest.rstrip("/").split("/")
    is_plain = re.match(TARGET_PATTERN, url, re.ASCII) and url.isprintable()
    if not is_plain or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(f"{url[:60]!r} is not a valid bucket; for example s3://bucket/prefix")
    return url


def check_installed() -> None:
    """Look for what talks to buckets, without loading it.

    Raises:
        UsageError: it is not installed; nothing was sent.
    """
    if find_spec("obstore") is None:
        raise UsageError(
            "output.target needs the package obstore: pip install 'kling-batch[store]'. Nothing was sent"
        )
