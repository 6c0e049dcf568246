"""Read the bytes of a text file.

It must be a regular file of bounded size in UTF-8 without control characters: a pipe would block,
a device would never end, and a control character would change a prompt.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from batch.manifest.findings import Unreadable, printable, shown
from batch.manifest.nodes import Place, Spot

MAX_BYTES = 256 * 1024 * 1024
MAX_ROWS_BYTES = 16 * MAX_BYTES  # of a file that is read line by line
_PIECE_BYTES = 1 << 20


def file_label(path: Path) -> str:
    """Return the printable name of a file, for messages."""
    return printable(str(path).encode(errors="replace").decode())


def read_file(path: Path, file: str, at: Place) -> bytes:
    """Return the bytes of a regular file of bounded size in UTF-8, without a byte order mark.

    Args:
        path: the file.
        file: its name in messages.
        at: the place that refers to it.

    Raises:
        Unreadable: it does not exist, is a device or a pipe, is too large, or is not text.
    """
    with _opened(path, file, at) as stream:
        # In pieces: a read of so much at once asks for the memory, however small the file is.
        pieces, size = [], 0
        while size <= MAX_BYTES and (piece := stream.read(_PIECE_BYTES)):
            pieces.append(piece)
            size += len(piece)
    if size > MAX_BYTES:
        raise _too_large(at, file, MAX_BYTES)
    data = b"".join(pieces).removeprefix(codecs.BOM_UTF8)
    _check_text(data, file)
    return data


def read_lines(path: Path, file: str, at: Place) -> Iterator[bytes]:
    """Yield the lines of such a file, which is read piece by piece: it may hold a million.

    Raises:
        Unreadable: as `read_file`; of what is not text, once its lines are reached.
    """
    with _opened(path, file, at) as stream:
        size, number = 0, 1
        while piece := stream.read(_PIECE_BYTES) + stream.readline(MAX_BYTES):
            size += len(piece)
            if size > MAX_ROWS_BYTES or len(piece) > MAX_BYTES:
                raise _too_large(at, file, MAX_ROWS_BYTES)
            if number == 1:
                piece = piece.removeprefix(codecs.BOM_UTF8)
            _check_text(piece, file, number)
            yield from io.BytesIO(piece)
            number += piece.count(b"\n")


@contextmanager
def _opened(path: Path, file: str, at: Place) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise _unreadable(at, file, "it is not a regular file")
            yield stream
    except (OSError, ValueError) as exc:
        raise _unreadable(at, file, _reason(exc), _looked_in(at, file, path, exc)) from exc


def _too_large(at: Place, file: str, most: int) -> Unreadable:
    message = f"it is larger than {most // 1024 // 1024} MiB"
    return _unreadable(at, file, message, "split it into several manifests")


def _unreadable(at: Place, file: str, reason: str, advice: str | None = None) -> Unreadable:
    """Return the fault of a whole file: at no line of its own, or at the place that refers to it."""
    if at.file == file:
        return Unreadable(Spot(file, line=0), reason, advice)
    return Unreadable(at, f"cannot read {shown(file)}: {reason}", advice)


def _looked_in(at: Place, file: str, path: Path, exc: OSError | ValueError) -> str | None:
    """Return where a manifest that is not there was looked for: cron starts in another folder."""
    if isinstance(exc, FileNotFoundError) and at.file == file and not path.is_absolute():
        return f"the working directory is {Path.cwd()}"
    return None


def _reason(exc: OSError | ValueError) -> str:
    match exc:
        case FileNotFoundError():
            return "there is no such file"
        case IsADirectoryError():
            return "it is a folder, not a file"
        case PermissionError():
            return "this user has no permission to read it"
        case OSError():
            return (exc.strerror or str(exc)).lower()
    return str(exc)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe without a writer would block forever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


_ALLOWED_CONTROLS = b"\t\n\r"
_CONTROLS = bytes(c for c in (*range(32), 127) if c not in _ALLOWED_CONTROLS)
# C1 controls, and the two line separators that YAML 1.1 reads as line ends: they would change a
# prompt, and every line number below them.
_WIDE_CONTROLS = rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbf[\xbe\xbf]"


def _check_text(data: bytes, file: str, line: int = 1) -> None:
    """Check the lines of *file* from *line* on."""
    if line == 1 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unreadable(Spot(file), "the file is UTF-16", "save it as UTF-8")
    if not data.isascii():
        _check_utf8(data, file, line)
    if len(data.translate(None, _CONTROLS)) != len(data):
        found = re.search(b"[" + re.escape(_CONTROLS) + b"]", data)
        assert found is not None
        _refuse_control(data, found, file, line)
    if not data.isascii() and (found := re.search(_WIDE_CONTROLS, data)):
        _refuse_control(data, found, file, line)


def _refuse_control(data: bytes, found: re.Match[bytes], file: str, line: int) -> None:
    code = ord(found.group().decode())
    message = f"the file contains a control character (U+{code:04X})"
    raise Unreadable(_spot(data, found.start(), file, line), message, "remove it")


def _check_utf8(data: bytes, file: str, line: int) -> None:
    """Decode piece by piece, since the whole as a str may take four times the memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data) + 1, _PIECE_BYTES):
        pending, end = len(decoder.getstate()[0]), start + _PIECE_BYTES
        try:
            decoder.decode(data[start:end], final=end > len(data))
        except UnicodeDecodeError as exc:
            spot = _spot(data, start - pending + exc.start, file, line)
            raise Unreadable(spot, "the file is not UTF-8", "save it as UTF-8") from exc


def _spot(data: bytes, offset: int, file: str, line: int) -> Spot:
    before = data[data.rfind(b"\n", 0, offset) + 1 : offset]
    column = len(before.decode(errors="replace")) + 1
    return Spot(file, data.count(b"\n", 0, offset) + line, column)


_PAIR = rb"(?i)((?<!\\)(?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})"


def join_surrogates(data: bytes) -> bytes:
    r"""Return JSON with its \uD83E\uDD8A pairs written as one escape each, which YAML understands.

    Anything but JSON is returned as it is: elsewhere such a text may be meant as it stands.
    """
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return data
    return re.sub(_PAIR, _joined, data)


def _joined(found: re.Match[bytes]) -> bytes:
    high, low = int(found[2], 16), int(found[3], 16)
    return b"%s\\U%08X" % (found[1], 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
