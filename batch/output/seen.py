"""The latest run of a library that this machine has seen, kept outside of the library.

A whole folder that comes from a backup, state and rows alike, says nothing of what came after it. The
mark of its latest run does, in a small file in the user's state folder. It is written after the state
has the run on disk, and before the run sends anything: so a mark that the state does not know, or knows
as a run that has not ended although the mark says so, means an older state. A death between the two
leaves an older mark, which every newer state knows.

It is a hint, and nothing rests on it: not flushed, not needed. Where it cannot be written or read, and
under another home, nothing is noticed. Nor is a state that comes from the midst of the very run that
was seen last, and was killed: that run had begun there, too.

Copies of a library share its id, and so its mark. Where both are run, each finds a run of the other that
it does not know, and looks its new requests up, which costs one query for each, and once in a run the
settle time. A task that the other has made of an equal request is taken over, as everywhere.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path

from batch.frozen import frozen
from batch.output import disk
from batch.output.store import Store

MARKS = "libraries"  # in the user's state folder
MOST_BYTES = 200
_LIBRARY = re.compile(r"\w{1,64}", re.ASCII)
_MARK = re.compile(rb"(\S{1,100}) (begun|ended)\n")


@frozen
class Seen:
    """The mark of one library; without a *path*, there is none and will be none."""

    path: Path | None = None

    @classmethod
    def of(cls, library: str | None, state_folder: Path | None) -> Seen:
        """Return the mark of a library in the user's *state_folder*."""
        if library is None or state_folder is None or not _LIBRARY.fullmatch(library):
            return cls()
        return cls(state_folder / MARKS / library)

    def note(self, run_id: str, *, has_ended: bool) -> None:
        """Mark a run that the state has on disk."""
        if self.path is None:
            return
        mark = f"{run_id} {'ended' if has_ended else 'begun'}\n"
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk.write_whole(self.path, mark.encode())

    def is_ahead_of(self, state: Store) -> bool:
        """Return whether this machine has seen a run that *state* lacks, or has not seen the end of."""
        mark = _MARK.fullmatch(self._read())
        if mark is None:
            return False
        run_id, has_ended = mark[1].decode(errors="replace"), mark[2] == b"ended"
        last = state.runs(last=1)
        found = last if last and last[0][0] == run_id else state.runs()
        ends = {known: finished_at for known, _, finished_at, *_ in found}
        return run_id not in ends or (has_ended and ends[run_id] is None)

    def _read(self) -> bytes:
        """Return what the file says; nothing of what is no file of ours."""
        with suppress(OSError):
            if self.path is not None and stat.S_ISREG(self.path.lstat().st_mode):
                with self.path.open("rb") as file:
                    return file.read(MOST_BYTES)
        return b""
