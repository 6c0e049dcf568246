"""Write the requests of jobs, most of which differ in their prompts alone."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from batch.job import canonical_request, canonical_text

_PROMPT, _NEGATIVE = "\0prompt", "\0negative prompt"


class RequestForm:
    """A request but for its prompts, which are filled into what is written once.

    Args:
        body: the request without its prompts.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body

    def fill(self, prompt: str | None, negative: str | None) -> str:
        """Return the canonical request; an empty negative prompt is none."""
        if prompt is not None and not negative and len(self._plain) == 2:
            first, last = self._plain
            return f"{first}{canonical_text(prompt)}{last}"
        if prompt is not None and negative and len(self._double) == 3:
            first, middle, last = self._double
            return f"{first}{canonical_text(negative)}{middle}{canonical_text(prompt)}{last}"
        body = dict(self.body)
        if prompt is not None:
            body["prompt"] = prompt
        if negative:
            body["negative_prompt"] = negative
        return canonical_request(body)

    @cached_property
    def _plain(self) -> list[str]:
        return self._around(prompt=_PROMPT)

    @cached_property
    def _double(self) -> list[str]:
        return self._around(negative_prompt=_NEGATIVE, prompt=_PROMPT)

    def _around(self, **prompts: str) -> list[str]:
        """Return what stands around the prompts, in more parts if the options hold such a text, too."""
        written = canonical_request({**self.body, **prompts})
        for prompt in prompts.values():
            written = written.replace(canonical_text(prompt), "\0")
        return written.split("\0")
