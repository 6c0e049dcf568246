"""What is told of a run."""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any

from batch.frozen import frozen

MAX_TEXT_BYTES = 10_000


@frozen
class Message:
    """How a run ended: *result* is what `--json` prints, *text* what a person reads.

    *key* is the same however often one message is sent; *rid* tells the pings of one run from
    those of another.
    """

    key: str
    rid: str
    exit_code: int
    result: dict[str, Any]
    text: str
    news: list[dict[str, Any]] = field(default_factory=list)

    @property
    def as_json(self) -> bytes:
        """The body of the webhook and the stdin of the command."""
        body = {**self.result, "text": self.text, "news": self.news}
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")

    @property
    def as_text(self) -> bytes:
        """The body of a ping, no longer than monitors keep."""
        data = self.text.encode("utf-8", "replace")
        if len(data) <= MAX_TEXT_BYTES:
            return data
        return data[: MAX_TEXT_BYTES - 3].decode("utf-8", "ignore").encode() + "…".encode()
