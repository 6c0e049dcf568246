"""Job ids: each names a file on every system, and no two share one; a missing one is made.

A made id depends on the request alone, never on the place of the job: rows may be inserted, sorted
and moved to other files.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from array import array
from collections.abc import Collection, Iterator
from typing import NamedTuple

from batch.job import PLAIN, fingerprint, folded
from batch.manifest.findings import Findings, shown
from batch.manifest.nodes import Place

_SIMPLE_ID = re.compile(r"[a-z0-9_-]{5,200}", re.ASCII)  # too long for a reserved name
_FORBIDDEN = r'[<>:"|?*\\]'
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"}
)
FILE_ENDS = (".mp4", ".json", ".mp4.xmp")  # of a video and what may be written beside it
_MAX_COMPONENT_BYTES = 200
_MAX_ID_BYTES = 1_000
_SLUG_CHARACTERS = 40
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
    if found := re.search(_FORBIDDEN, name):
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


class _Hashes:
    """The hashes of many texts, at some 16 bytes each where a set of the texts takes 150."""

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1_024))
        self._count = 0

    def __contains__(self, code: int) -> bool:
        return self._table[self._place(code)] == code

    def add(self, code: int) -> bool:
        """Add a hash; return False if it is there already."""
        place = self._place(code)
        if self._table[place]:
            return False
        self._table[place] = code
        self._count += 1
        if self._count * 3 > len(self._table) * 2:
            codes, self._table = self._table, array("Q", bytes(16 * len(self._table)))
            for kept in filter(None, codes):
                self._table[self._place(kept)] = kept
        return True

    def _place(self, code: int) -> int:
        """Return where a hash stands, or is to stand."""
        table, mask = self._table, len(self._table) - 1
        place = code & mask
        while table[place] not in (0, code):
            place = (place + 1) & mask
        return place


def _code(text: str) -> int:
    return hash(text) & 0xFFFF_FFFF_FFFF_FFFF or 1  # 0 stands for none


class _Holder(NamedTuple):
    """The job that has an id, as written."""

    id: str
    file: str
    line: int
    column: int


class JobIds:
    """The ids so far, to find those that would share a file.

    They are known by their folded form. There may be a million, so that beyond the first ones only a
    hash of each is kept. Where one comes twice, which nearly always ends in a fault, the manifest is
    read again, and this time whose it is is kept.

    Args:
        findings: receives the faults.
        again: the hashes that an earlier reading of the manifest has met twice.
    """

    def __init__(self, findings: Findings, again: Collection[int] = ()) -> None:
        self.twice: set[int] = set()  # hashes met twice whose holders are not known
        self._findings = findings
        self._again = again
        self._holders: dict[str, _Holder] = {}  # by folded form; jobs without an id by fingerprint
        self._hashes = _Hashes()  # of the others
        self._nested: list[tuple[str, str, Place]] = []  # those below a folder named like a video

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
        first = self._record(key, id_, place)
        if first is None:
            if "/" in key and any(f"{end}/" in key for end in FILE_ENDS):
                self._nested.append((key, id_, place))
            return True
        where = _where(first, place)
        message = f"the id {shown(id_)} is taken by the job in {where}"
        if first.id != id_:
            message = f"the id {shown(id_)} differs only by case from {shown(first.id)} in {where}"
        self._findings.fault(place, message, "each job needs an id of its own")
        return False

    def _record(self, key: str, id_: str, place: Place) -> _Holder | None:
        """Record who has an id, or asks for what a fingerprint says; return another that is known to."""
        first = self._holders.get(key)
        if first is not None:
            return first
        is_one_of_many = len(self._holders) >= PLAIN
        if is_one_of_many and (code := _code(key)) not in self._again:
            if not self._hashes.add(code):
                self.twice.add(code)
        else:
            self._holders[key] = _Holder(id_, place.file, place.line, place.column)
        return None

    def _holder(self, key: str) -> _Holder | None:
        """Return the job that has an id, in its folded form, if it is known."""
        code = _code(key)
        if code in self._hashes:
            self.twice.add(code)
        return self._holders.get(key)

    def make(self, prompt: str, request: str, variant: int | None, place: Place) -> str | None:
        """Add a job without an id; return one made of its request, or None after a fault."""
        request_hash = fingerprint(request, None).partition(":")[2]
        id_ = variant_id(f"{slug(prompt)}-{request_hash[:_HASH_CHARACTERS]}", variant)
        made_of = fingerprint(request, variant)  # not to be taken for an id: none holds a colon
        first = self._record(made_of, id_, place)
        if first is not None:
            self._refuse_second(first, place)
            return None
        return id_ if self.add(id_, place) else None

    def _refuse_second(self, first: _Holder, place: Place) -> None:
        message = f"the job in {first.file}:{first.line} asks for the same, and neither has an id"
        advice = "write count: 2 in one job to get two videos of it, or give each job an id"
        if (first.file, first.line, first.column) == (place.file, place.line, place.column):
            message = "two jobs of this entry ask for the same, and it has no id"
            advice = "use every axis of the matrix in the prompt, and name a file of rows once;"
            advice += " count: 2 makes two videos of it"
        self._findings.fault(place, message, advice)

    def check_folders(self) -> None:
        """Report ids whose video, or a file beside it, would have to be a folder for another id."""
        for key, id_, place in self._nested:
            self._findings.job = id_
            parts = key.split("/")
            for length in range(1, len(parts)):
                parent = "/".join(parts[:length])
                ends = [end for end in FILE_ENDS if parent.endswith(end)]
                for first in filter(None, (self._holder(parent.removesuffix(e)) for e in ends)):
                    message = (
                        f"the id {shown(id_)} needs a folder where {shown(first.id)} has its file"
                    )
                    self._findings.fault(place, message, "rename one of the two")


def _where(holder: _Holder, place: Place) -> str:
    is_near = holder.file == place.file
    return f"line {holder.line}" if is_near else f"{holder.file}:{holder.line}"
