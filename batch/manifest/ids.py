"""Job ids: each names a file on every system, and no two share one; a missing one is made.

A made id depends on the request alone, never on the place of the job: rows may be inserted, sorted
and moved to other files.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator

from batch.job import fingerprint, folded
from batch.manifest.findings import Findings, shown
from batch.manifest.nodes import Place

_SIMPLE_ID = re.compile(r"[a-z0-9_-]{5,200}", re.ASCII)  # too long for a reserved name
_FORBIDDEN = re.compile(r'[<>:"|?*\\]')
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"}
)
FILE_ENDS = (".mp4", ".json", ".mp4.xmp")  # of a video and what may be written beside it
_MAX_COMPONENT_BYTES = 200
_MAX_ID_BYTES = 1_000
_SLUG_CHARACTERS = 40
_MAX_FILES = 1 << 24  # in one number with a line
_HASH_CHARACTERS = 8
_LATIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe"})


def locale_fault(text: str) -> str | None:
    """Return why *text* names another file here than in a session with UTF-8, or none at all."""
    if text.isascii() or (encoding := sys.getfilesystemencoding()) == "utf-8":
        return None
    return f"letters that file names of this locale ({encoding}) do not hold as UTF-8; set LC_ALL=C.UTF-8"


def component_fault(name: str) -> str | None:
    """Return why *name* cannot be a file or a folder on every system; None if it can."""
    if not name:
        return "an empty part"
    if name in (".", ".."):
        return f"the part {name}, which is not a file in the folder"
    if fault := locale_fault(name):
        return fault
    if not name.isprintable():
        return "an invisible character"
    if found := _FORBIDDEN.search(name):
        return f"the character {found.group()}"
    if "/" in name:
        return "a slash"
    if name[0] == " " or name[-1] in " .":
        return "a space at its start, or a space or a dot at its end"
    if name.partition(".")[0].rstrip().casefold() in _RESERVED:
        return "a name that Windows reserves"
    if len(name.encode(errors="replace")) > _MAX_COMPONENT_BYTES:
        return f"a part of more than {_MAX_COMPONENT_BYTES} bytes"
    return None


def id_fault(id_: str) -> str | None:
    """Return why *id_* cannot be a job's id; None if it can."""
    if id_.startswith("/"):
        return "a slash at its start"
    if len(id_.encode(errors="replace")) > _MAX_ID_BYTES:
        return f"more than {_MAX_ID_BYTES} bytes"
    return next(filter(None, map(component_fault, id_.split("/"))), None)


def slug(text: str) -> str:
    """Return the first words of *text* as a part of an id: lower case, ASCII where possible."""
    text = text.lstrip()[: 5 * _SLUG_CHARACTERS].casefold()
    if text.isascii():
        found = re.sub(r"[^a-z0-9]+", "-", text)
    else:
        composed = unicodedata.normalize("NFC", text).translate(_LATIN)
        found = re.sub(r"-+", "-", "".join(_plain(composed)))
    found = found.strip("-")
    if len(found) > _SLUG_CHARACTERS:
        whole_words = found[: _SLUG_CHARACTERS + 1].rpartition("-")[0]
        found = whole_words or found[:_SLUG_CHARACTERS]
    return found or "video"


def _plain(text: str) -> Iterator[str]:
    """Yield each letter, as ASCII where it is one with an accent; a hyphen for what is no letter."""
    is_word = False  # in a script whose vowels may be marks
    for character in text:
        ascii_only = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        if ascii_only.isalnum():
            is_word = False
            yield ascii_only.lower()
        elif character.isalnum():
            is_word = True
            yield character
        elif not unicodedata.category(character).startswith("M"):
            is_word = False
            yield "-"
        elif is_word:
            yield character


def variant_id(id_: str, variant: int | None) -> str:
    """Return the id of one of several variants, or *id_* where there is only one."""
    return id_ if variant is None else f"{id_}-{variant}"


class JobIds:
    """The ids so far, to find those that would share a file.

    They are known by their folded form. Of the place of each only file and line are kept, in one
    number: there may be a million.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._seen: dict[str, int] = {}
        self._written: dict[str, str] = {}  # ids that are not in their folded form
        self._files: list[str] = []
        self._nested: list[tuple[str, Place]] = []  # those below a folder named like a video
        self._without: dict[str, Place] = {}  # jobs without an id, by fingerprint

    def add(self, id_: str, place: Place) -> bool:
        """Add an id; return False after a fault: it is invalid or taken."""
        key = id_
        if not _SIMPLE_ID.fullmatch(id_):
            message = id_fault(id_)
            if message is not None:
                advice = "an id names the file videos/<id>.mp4"
                self._findings.fault(place, f"the id {shown(id_)} has {message}", advice)
                return False
            key = folded(id_)
        if key not in self._seen:
            self._record(key, id_, place)
            return True
        line, number = divmod(self._seen[key], _MAX_FILES)
        file, first = self._files[number], self._written.get(key, key)
        where = f"line {line}" if file == place.file else f"{file}:{line}"
        message = f"the id {shown(id_)} is taken by the job in {where}"
        if first != id_:
            message = f"the id {shown(id_)} differs only by case from {shown(first)} in {where}"
        self._findings.fault(place, message, "each job needs an id of its own")
        return False

    def _record(self, key: str, id_: str, place: Place) -> None:
        if not self._files or self._files[-1] != place.file:
            self._files.append(place.file)
        self._seen[key] = place.line * _MAX_FILES + len(self._files) - 1
        if key != id_:
            self._written[key] = id_
        if "/" in key and any(f"{end}/" in key for end in FILE_ENDS):
            self._nested.append((key, place))

    def make(self, prompt: str, request: str, variant: int | None, place: Place) -> str | None:
        """Add a job without an id; return one made of its request, or None after a fault."""
        if not self._is_new(fingerprint(request, variant), place):
            return None
        request_hash = fingerprint(request, None).partition(":")[2]
        id_ = variant_id(f"{slug(prompt)}-{request_hash[:_HASH_CHARACTERS]}", variant)
        return id_ if self.add(id_, place) else None

    def _is_new(self, request_hash: str, place: Place) -> bool:
        first = self._without.get(request_hash)
        if first is None:
            self._without[request_hash] = place
            return True
        message = f"the job in {first.file}:{first.line} asks for the same, and neither has an id"
        advice = "write count: 2 in one job to get two videos of it, or give each job an id"
        if first is place:
            message = "two jobs of this entry ask for the same, and it has no id"
            advice = "use every axis of the matrix in the prompt; count: 2 makes two videos of it"
        self._findings.fault(place, message, advice)
        return False

    def check_folders(self) -> None:
        """Report ids whose video, or a file beside it, would have to be a folder for another id."""
        for key, place in self._nested:
            id_ = self._findings.job = self._written.get(key, key)
            parts = key.split("/")
            for length in range(1, len(parts)):
                parent = "/".join(parts[:length])
                ends = [end for end in FILE_ENDS if parent.endswith(end)]
                for other in (parent.removesuffix(end) for end in ends):
                    if other in self._seen:
                        first = self._written.get(other, other)
                        message = (
                            f"the id {shown(id_)} needs a folder where {shown(first)} has its file"
                        )
                        self._findings.fault(place, message, "rename one of the two")
