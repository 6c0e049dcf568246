"""Standard streams that may be closed, full or read by nobody: what is printed never ends a run.

A descriptor below 3 that is closed when the process starts would be given to the next file that is
opened, the state's for example, and everything printed would be written into it.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TextIO

STDIN, STDOUT, STDERR = 0, 1, 2


class TolerantFile(io.FileIO):
    """A file that drops what cannot be written; *trouble* is the first reason.

    *is_used*: something was to be written.
    """

    trouble: OSError | None = None
    is_used = False

    def write(self, data: object) -> int:
        """Write *data*, or drop it; return its length in both cases."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        rest = view
        self.is_used = True
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # the other end is not ready, and the descriptor does not wait
                    select.select([], [self], [])
                rest = rest[written or 0 :]
        except OSError as error:
            self.trouble = self.trouble or error
        return len(view)


def open_closed() -> None:
    """Open the standard descriptors that are closed, on the null device."""
    for number in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number == STDIN else os.O_WRONLY)
            if opened != number:  # pragma: no cover - the lowest free number is this one
                os.dup2(opened, number)
                os.close(opened)


def make_tolerant() -> tuple[TolerantFile, TolerantFile]:
    """Have stdout and stderr drop what cannot be written; return the files below them."""
    out, err = TolerantFile(STDOUT, "w", closefd=False), TolerantFile(STDERR, "w", closefd=False)
    sys.stdout = _text(out, sys.stdout, line_buffering=out.isatty())
    sys.stderr = _text(err, sys.stderr, line_buffering=True)
    return out, err


def _text(file: TolerantFile, before: TextIO | None, *, line_buffering: bool) -> TextIO:
    errors = "backslashreplace"  # a prompt may hold what the terminal cannot show
    if sys.platform == "win32" and isinstance(before, io.TextIOWrapper):  # pragma: no cover
        before.reconfigure(errors=errors)  # a console takes no bytes
        return before
    encoding = "utf-8" if before is None else before.encoding
    buffer = io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, encoding, errors, line_buffering=line_buffering)
