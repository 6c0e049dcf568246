"""Lines that stay at the bottom of a terminal while others pass above them.

rich's own live display hides the cursor, which a killed process never shows again, erases before it
draws, which flickers, and counts wrong after a resize. So only the styles are rich's here: a frame
is written over the former one, in one piece, and only if it differs. The cursor rests, visible, on
the line below. A process that was stopped (Ctrl-Z) begins a new frame when it goes on: what the shell
has printed meanwhile stays.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.text import Text

FRAME_S = 0.25
Frame = Callable[[int], Sequence[Text]]
"""Returns the lines for so many columns."""

_TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[K", "\x1b[J"


def can_draw(console: Console) -> bool:
    """Return whether the console is a terminal whose cursor can be moved."""
    is_dumb = console.is_dumb_terminal or console.legacy_windows
    return console.is_terminal and console.file.isatty() and not is_dumb


class Screen:
    """Draws *frame* again and again, from a thread of its own. Use as a context manager.

    It is a stream, too: what is written to it passes above the frame. Nothing here waits for the
    terminal but that thread.
    """

    def __init__(self, frame: Frame, console: Console) -> None:
        self._frame = frame
        self._console = console
        self._above: deque[str] = deque()
        self._widths: list[int] = []  # of the lines that stand there
        self._shown = ""
        self._tallest = 0
        self._columns = 0
        self._has_slept = False
        self._at_cont: Any = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="screen", daemon=True)

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError, AttributeError):  # another thread; Windows
            self._at_cont = signal.signal(signal.SIGCONT, self._woken)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        if self._at_cont is not None:
            signal.signal(signal.SIGCONT, self._at_cont)
        self.clear()

    def write(self, text: str) -> None:
        """Have *text* pass above the frame."""
        self._above.append(text)

    def flush(self) -> None:
        """Do nothing: the next frame takes along what was written."""

    def draw(self) -> None:
        """Draw the frame as it is now."""
        columns, rows = self._console.size
        lines = list(self._frame(columns - 1))[: rows - 1]
        # A frame that has once been taller keeps its place: nothing jumps when a line goes.
        self._tallest = min(max(self._tallest, len(lines)), rows - 1)
        lines += [Text("")] * (self._tallest - len(lines))
        self._put(lines, columns)

    def clear(self) -> None:
        """Take the frame away, and leave what passed above it."""
        self._put([], self._console.size.width)

    def _woken(self, _number: int, _frame: FrameType | None) -> None:
        self._has_slept = True

    def _go_on(self) -> None:
        while not self._is_over.wait(FRAME_S):
            self.draw()

    def _put(self, lines: Sequence[Text], columns: int) -> None:
        above = "".join(self._above.popleft() for _ in range(len(self._above)))
        if self._has_slept:
            self._has_slept, self._shown, self._widths = False, "", []
        shown = "".join(f"{self._styled(line)}{_TO_END_OF_LINE}\n" for line in lines)
        if not above and shown == self._shown and columns == self._columns:
            return
        up = self._height(columns)
        begin = f"\x1b[{up}A\r" if up else "\r"
        passed = above.replace("\n", f"{_TO_END_OF_LINE}\n")
        self._console.file.write(f"{begin}{passed}{shown}{_TO_END_OF_SCREEN}")
        self._console.file.flush()
        self._widths = [line.cell_len for line in lines]
        self._shown, self._columns = shown, columns

    def _height(self, columns: int) -> int:
        """Return the rows that the former frame takes now: a narrower terminal has folded it."""
        return sum(max(1, -(-width // max(columns, 1))) for width in self._widths)

    def _styled(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        return captured.get()
