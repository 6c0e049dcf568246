"""Secrets out of every text that is shown or kept: one redaction for all outputs.

A provider, a proxy or an operating system may quote keys, signed links, control codes and pages of
HTML; logs, results and bug reports are made of what they say.

- `Mask` removes known secrets, the API key first of all, however they are spelled.
- `redact` removes whatever looks like a secret: signatures, passwords in URLs, tokens, `sk-…` keys.
- `clean` also makes one bounded line of printable characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_MESSAGE = 300  # characters of a foreign message that are ever shown
SHORTEST_SECRET = 8  # characters; a shorter value may stand anywhere by chance
MASKED_KEY = "(the key)"
_MAX_READ = 16_384  # characters of a foreign message that are looked at

# Joiners belong to emoji and to Persian; every other format character can only disguise a text.
_JOINERS = "\u200c\u200d"
# All are compiled at the first use: a run without trouble needs none of them. The bounded scheme keeps
# a long word from being tried again from each of its letters.
_URL_SECRETS = (
    r"(?i)\b([a-z][a-z0-9+.-]{1,15}://)(?:[^\s/?#\"'<>]*@)?([^\s?#\"'<>]*)([?#][^\s\"'<>]*)?"
)
# The query of a link that lost its head, or that is quoted inside another; and a JSON web token.
# The last branch of each takes what looked like one and is none, so that no part of it is looked
# at again from each of its characters: a hostile text would take minutes.
_QUERY = r"(?i)(?:[?&]|%3f|%26)(?:([\w.~%\-\[\]]+(?:=|%3d)\S*)|[\w.~%\-\[\]]++)"
_SIGNATURE = (
    r"(?i)\b(x-amz-[a-z-]{1,32}|signature|kssecret|cachekey|access_?token|api_?key)=[^\s&\"'<>…]+"
)
_TOKEN = r"(?i)\beyj[\w-]++(\.[\w-]++\.[\w.-]*+)?"  # noqa: S105 - no password
_BEARER = r"(?i)\bbearer\s+[^\s…]+"
_KEY = r"(?i)(?<![a-z0-9])sk-[\w-]{6,}"
# In ASCII, none of them finds anything where this finds nothing.
_SUSPECT = r"[?&%=]|://|[sS][kK]-|[eE][yY][jJ]|[bB][eE][aA][rR][eE][rR]"


def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """Return a foreign text fit to be shown: one line of at most *limit* characters, redacted.

    Control codes, bidi overrides and line ends become spaces.
    """
    is_plain = len(text) <= limit and text.isascii() and text.isprintable()
    if is_plain and not re.search(_SUSPECT, text):
        return " ".join(text.split())  # nearly every message; the same as below, without the work
    return _scrub(text, limit)


def _scrub(text: str, limit: int) -> str:
    head = text[: max(_MAX_READ, limit)]
    plain = "".join(c if c.isprintable() or c in _JOINERS else " " for c in head)
    line = redact(" ".join(plain.split()))
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"[:limit]


def redact(text: str) -> str:
    """Return *text* without the queries and passwords of URLs, signatures, tokens and keys."""
    text = re.sub(_URL_SECRETS, lambda m: m[1] + m[2] + ("?…" if m[3] else ""), text)
    text = re.sub(_QUERY, lambda m: "?…" if m[1] else m[0], text)
    text = re.sub(_SIGNATURE, lambda m: f"{m[1]}=…", text)
    text = re.sub(_TOKEN, lambda m: "…" if m[1] else m[0], re.sub(_BEARER, "Bearer …", text))
    return re.sub(_KEY, "sk-…", text)


class Mask:
    """Replaces *secrets* by *shown*; one that is too short is left alone.

    JSON, JSON written into a text and links may spell each character in another way, with
    backslashes, as a number or with a per cent sign; those spellings are found too.
    """

    def __init__(self, *secrets: str, shown: str = MASKED_KEY) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        # The longest first: another may be a part of it.
        self._secrets = sorted(long_enough, key=len, reverse=True)
        self._spelled = re.compile(
            b"|".join(b"".join(map(_spellings, secret)) for secret in self._secrets)
        )
        self._shown = shown

    def body(self, raw: bytes) -> bytes:
        """Return an answer's body without the secrets."""
        if self._secrets and (b"\\" in raw or b"%" in raw):
            return self._spelled.sub(self._shown.encode(), raw)
        for secret in self._secrets:
            raw = raw.replace(_raw(secret), self._shown.encode())
        return raw

    def text(self, text: str) -> str:
        """Return *text* without the secrets."""
        return self.body(_raw(text)).decode("utf-8", "surrogatepass")

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return an answer's headers without the secrets."""
        if not any(secret in value for value in headers.values() for secret in self._secrets):
            return headers
        return {name: self.text(value) for name, value in headers.items()}


def _spellings(char: str) -> bytes:
    """Match one character; a bounded number of backslashes stands for JSON inside JSON."""
    if not char.isascii():
        return _raw(re.escape(char))
    code = f"{ord(char):02x}"
    return rf"(?:\\{{0,7}}{re.escape(char)}|(?i:\\{{1,7}}u00{code}|%{code}))".encode()


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a variable's value may hold any byte
