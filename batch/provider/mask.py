"""The key, where somebody else has written it: a gateway that refuses one often quotes it.

What comes in is masked before anything reads, cuts or keeps it. JSON, JSON written into a text and
links may spell each character in another way, with backslashes, as a number or with a per cent sign;
those are found too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MASKED = "(the key)"
SHORTEST_KEY = 8  # characters; a shorter one may stand anywhere by chance, and is nobody's


class Mask:
    """Puts `MASKED` where *key*, which is ASCII as all headers are, stands."""

    def __init__(self, key: str) -> None:
        self._key = key if len(key) >= SHORTEST_KEY else ""
        self._spelled = re.compile(b"".join(_spellings(char) for char in key))

    def body(self, raw: bytes) -> bytes:
        """Return an answer's body without the key."""
        if not self._key:
            return raw
        if b"\\" in raw or b"%" in raw:
            return self._spelled.sub(MASKED.encode(), raw)
        return raw.replace(self._key.encode(), MASKED.encode())

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return an answer's headers without the key."""
        if not self._key or not any(self._key in value for value in headers.values()):
            return headers
        return {name: value.replace(self._key, MASKED) for name, value in headers.items()}


def _spellings(char: str) -> bytes:
    """Match one character of the key; a bounded number of backslashes stands for JSON inside JSON."""
    code = f"{ord(char):02x}"
    return rf"(?:\\{{0,7}}{re.escape(char)}|(?i:\\{{1,7}}u00{code}|%{code}))".encode()
