"""Result links: where an answer may hold one, what is one, and how it is requested.

A link is signed and therefore a secret. It is kept as it was given: its signature covers every
character.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from batch.provider.fields import as_dict, find, flat

_MAX_URL = 8_192  # characters
_MAX_DEPTH = 5  # objects and lists inside a result
_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Where relays put a result besides Kling's own `task_result.videos[].url`; keys as `flat` writes them.
_RESULTS = (
    *("taskresult", "videos", "video", "outputs", "output", "works", "result", "results"),
    *("metadata", "content", "response", "resultjson", "resulturls"),
)
_LINKS = ("url", "videourl", "resulturl", "downloadurl", "resource")


def own_link(layers: list[dict[str, Any]], videos: list[dict[str, Any]]) -> str | None:
    """Return the link where Kling puts it, among the *videos* of a task, or where new-api does."""
    return find(videos, result_url, "url") or find(layers, result_url, "result_url")


def other_link(layers: list[dict[str, Any]]) -> str | None:
    """Return a link from any other place where the result of a task may stand.

    *layers* are the task's envelopes, outermost first.
    """
    return (
        next(_links(layers, _LINKS), None)
        or next(_links(layers, ("watermarkurl",)), None)
        or find(layers, only_url, "fail_reason")
        or next(_any_link(layers), None)
    )


def _links(values: Iterable[Any], keys: tuple[str, ...], depth: int = 0) -> Iterator[str]:
    for value in values:
        if isinstance(value, list) and depth < _MAX_DEPTH:
            yield from _links(value, keys, depth + 1)
        elif isinstance(value, str) and depth and keys is _LINKS and (url := only_url(value)):
            yield url
        elif (found := as_dict(value)) is not None and depth < _MAX_DEPTH:
            layer = flat(found)
            yield from filter(None, (result_url(layer.get(key)) for key in keys))
            yield from _links(filter(None, map(layer.get, _RESULTS)), keys, depth + 1)


# What the key of a link to the result says, whatever its name; what links to something else say;
# and how the paths of those end.
_RESULT = re.compile(
    r"url|uri|link|href|src|video|movie|clip|mp4|download|file|media|asset|artifact|output|result"
    r"|resource|content|creation|generation|data$"
)
_OTHER_THINGS = re.compile(
    r"cover|poster|thumb|image|img|picture|snapshot|frame|gif|audio|music|sound|voice|subtitle"
    r"|callback|hook|notif|parent|input|(?<!re)source|prompt|request|param|option|config|avatar|logo"
    r"|icon|docs|document|help|terms|polic|support|cancel|status|query|poll|self|message|msg|error"
    r"|reason|detail|preview|user|account|profile|page|site"
)
_OTHER_FILES = re.compile(
    r"\.(jpe?g|png|gif|webp|avif|bmp|svg|mp3|m4a|aac|wav|ogg|flac|json|xml|html?|txt|srt|vtt|m3u8|mpd)$",
    re.IGNORECASE,
)


def _any_link(value: Any, key: str = "", depth: int = 0) -> Iterator[str]:
    """Return links under keys in no list, but those that lead to another thing than a result."""
    if isinstance(value, str) and _RESULT.search(key) and (url := only_url(value)):
        if not _OTHER_FILES.search(urlsplit(url).path):
            yield url
    elif isinstance(value, list) and depth <= _MAX_DEPTH:
        for item in value:
            yield from _any_link(item, key, depth + 1)
    elif (found := as_dict(value)) is not None and depth <= _MAX_DEPTH:
        for name, item in flat(found).items():
            if _OTHER_THINGS.search(name) is None:
                yield from _any_link(item, f"{key} {name}", depth + 1)


def web_url(value: Any) -> str | None:
    """Return a link as it was given, or None if it is none."""
    if not isinstance(value, str) or len(value) > _MAX_URL:
        return None
    url = value.strip()
    return None if _CONTROL.search(url) or _split(url) is None else url


def result_url(value: Any) -> str | None:
    """Return a link, or the path of one at the base URL, where nothing but a link may stand."""
    is_path = isinstance(value, str) and re.fullmatch(r"/[^/\s][^\s]{0,2000}", value) is not None
    return value if is_path and not _CONTROL.search(value) else web_url(value)


def only_url(value: Any) -> str | None:
    """Return a link that stands where a text might, if there is nothing else."""
    url = web_url(value)
    return None if url is None or re.search(r"\s", url) else url


def is_fetchable(url: str) -> bool:
    """Return whether a link, or the target of a redirect, leads to an HTTP server."""
    return _split(url) is not None


def as_sent(url: str) -> str:
    """Quote what is not ASCII and what is blank, and nothing else: `%2F` and `/` are signed apart.

    Raises:
        ValueError: the host name cannot be written in ASCII.
    """
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    sent = urlunsplit(("", "", *parts[2:4], ""))
    quoted = re.sub(
        r"[^\x21-\x7e]+", lambda m: quote(m[0], safe="", errors="surrogateescape"), sent
    )
    return f"{parts.scheme}://{host}{quoted}"


def is_same_origin(url: str, base_url: str) -> bool:
    """Return whether scheme, host and port are the same, and *url* brings no user of its own."""
    one, other = _split(url), _split(base_url)
    if one is None or other is None or "@" in one.netloc:
        return False
    return _origin(one) == _origin(other)


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


@functools.lru_cache(maxsize=16)  # the base URL, and each link from its answer to its download
def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # also of `port`, if it is none
        return None
    return parts if is_web and not re.search(r"\s", parts.netloc) else None
