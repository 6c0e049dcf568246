"""What stands on the terminal after the screen has drawn."""

from __future__ import annotations

import io
import os
import re
import signal

from rich.console import Console
from rich.text import Text

from batch.cli.screen import Screen

PIECE = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\n)|(\r)|([^\x1b\n\r]+)")


class Terminal(io.StringIO):
    """Understands what the screen sends, and folds its lines when it becomes narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = ["$ kling-batch run", ""]
        self.row, self.writes, self.seen = 1, 0, ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += bool(text)  # rich writes nothing now and then
        self.seen += text
        column = 0
        for number, command, feed, back, plain in PIECE.findall(text):
            line = self.lines[self.row]
            if feed:
                self.row, column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif back:
                column = 0
            elif plain:
                self.lines[self.row] = line[:column] + plain + line[column + len(plain) :]
                column += len(plain)
            elif command == "A":
                self.row -= int(number)
            elif command == "K":
                self.lines[self.row] = line[:column]
            elif command == "J":
                self.lines[self.row :] = [line[:column]]
            else:
                assert command == "m", f"the screen sends ESC [ {number} {command}"
        assert column == 0, "the cursor rests at the beginning of a line"
        return len(text)

    def fold(self, columns: int) -> None:
        pieces = [re.findall(f".{{1,{columns}}}", line) or [""] for line in self.lines]
        self.row = sum(map(len, pieces[: self.row]))
        self.lines = [piece for line in pieces for piece in line]


class Shown:
    """A screen on a terminal of 60 columns and 10 rows."""

    def __init__(self) -> None:
        self.frame: list[str] = []
        self.terminal = Terminal()
        self.console = Console(file=self.terminal, force_terminal=True, width=60, height=10)
        self.screen = Screen(lambda columns: [Text(t[:columns]) for t in self.frame], self.console)

    def draw(self, *frame: str) -> list[str]:
        self.frame = list(frame)
        self.screen.draw()
        return self.terminal.lines[1:]


def test_frame_replaces_the_former_one() -> None:
    shown = Shown()
    shown.draw("1 of 3", "a long line", "trouble")
    assert shown.draw("2 of 3", "short", "") == ["2 of 3", "short", "", ""]


def test_frame_that_shrinks_keeps_its_place() -> None:
    """Nothing jumps when a trouble is over."""
    shown = Shown()
    shown.draw("1 of 3", "trouble")
    assert shown.draw("2 of 3") == ["2 of 3", "", ""]


def test_log_lines_pass_above() -> None:
    shown = Shown()
    shown.draw("1 of 3")
    shown.screen.write("12:30:01 warning: hello\n")
    assert shown.draw("1 of 3") == ["12:30:01 warning: hello", "1 of 3", ""]


def test_nothing_is_written_while_nothing_changes() -> None:
    """So nothing flickers; and a frame is one write."""
    shown = Shown()
    shown.draw("1 of 3", "a")
    shown.draw("1 of 3", "a")
    assert shown.terminal.writes == 1


def test_cleared_screen_leaves_log_lines_only() -> None:
    shown = Shown()
    shown.draw("1 of 3", "a")
    shown.screen.write("last words\n")
    shown.screen.clear()
    assert shown.terminal.lines == ["$ kling-batch run", "last words", ""]


def test_narrower_terminal_leaves_no_remains() -> None:
    """It has folded the lines of the former frame into two rows each."""
    shown = Shown()
    shown.draw("x" * 59, "y" * 59)
    shown.terminal.fold(30)
    shown.console.size = (30, 10)
    assert shown.draw("x" * 59, "y" * 59) == ["x" * 29, "y" * 29, ""]


def test_frame_never_scrolls() -> None:
    """A terminal of few rows shows the first lines."""
    shown = Shown()
    assert shown.draw(*map(str, range(30))) == [*map(str, range(9)), ""]


def test_cursor_is_never_hidden() -> None:
    """Nobody would show it again after a kill."""
    shown = Shown()
    with shown.screen:
        shown.draw("1 of 3")
    assert "\x1b[?" not in shown.terminal.seen


def test_process_that_was_stopped_draws_below() -> None:
    """What the shell has printed since Ctrl-Z stays; SIGCONT has its former handler at the end."""
    shown, before = Shown(), signal.getsignal(signal.SIGCONT)
    with shown.screen:
        shown.draw("1 of 3")
        shown.terminal.write("$ fg\n")
        os.kill(os.getpid(), signal.SIGCONT)
        assert shown.draw("2 of 3") == ["1 of 3", "$ fg", "2 of 3", ""]
    assert signal.getsignal(signal.SIGCONT) == before
