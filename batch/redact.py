"""Foreign text made fit to be shown.

What a provider, a proxy or an operating system says goes into logs, results and reports. It may
hold keys, signed links, control codes and pages of HTML; what leaves here holds none.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

MAX_MESSAGE = 300  # characters of a foreign message that are ever shown
_MAX_READ = 16_384  # characters of a foreign message that are looked at

# Joiners belong to emoji and to Persian; every other format character can only disguise a text.
_JOINERS = "\u200c\u200d"
_URL_SECRETS = re.compile(
    r"(?i)\b(https?://)(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>]*)([?#][^\s\"'<>]*)?"
)
# The query of a link that lost its head, or that is quoted inside another; and a JSON web token.
# The last branch of each takes what looked like one and is none, so that no part of it is looked
# at again from each of its characters: a hostile text would take minutes.
_QUERY = re.compile(r"(?i)(?:[?&]|%3f|%26)(?:([\w.~%\-\[\]]+(?:=|%3d)\S*)|[\w.~%\-\[\]]++)")
_TOKEN = re.compile(r"(?i)\beyj[\w-]++(\.[\w-]++\.[\w.-]*+)?")
_BEARER = re.compile(r"(?i)\bbearer\s+[^\s…]+")
_KEY = re.compile(r"(?i)(?<![a-z0-9])sk-[\w-]{6,}")
# In ASCII, none of them finds anything where this finds nothing.
_SUSPECT = re.compile(r"[?&%]|://|[sS][kK]-|[eE][yY][jJ]|[bB][eE][aA][rR][eE][rR]")


def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make a foreign text fit to be shown: one line, bounded, no secrets, no control codes.

    Control codes, bidi overrides and line ends become spaces; the queries of links, user names in
    links, `sk-…` keys and bearer tokens are masked; what is longer than *limit* characters is cut.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and not _SUSPECT.search(text):
        return " ".join(text.split())  # nearly every message; the same as below, without the work
    return _scrub(text, limit)


def _scrub(text: str, limit: int) -> str:
    head = text[: max(_MAX_READ, limit)]
    plain = "".join(c if c.isprintable() or c in _JOINERS else " " for c in head)
    line = " ".join(plain.split())
    line = _URL_SECRETS.sub(lambda m: m[1] + m[2] + ("?…" if m[3] else ""), line)
    line = _QUERY.sub(lambda m: "?…" if m[1] else m[0], line)
    line = _TOKEN.sub(lambda m: "…" if m[1] else m[0], _BEARER.sub("Bearer …", line))
    line = _KEY.sub("sk-…", line)
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"[:limit]


def redact_url(url: str) -> str:
    """Return *url* without user, query and fragment: what may be logged of a signed link."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable URL)"
    host = parts.netloc.rpartition("@")[2]
    return clean(urlunsplit((parts.scheme, host, parts.path, "", "")), limit=1_000)
