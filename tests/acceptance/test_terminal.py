"""The command on a terminal: what is drawn there, and what is left of it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from patience import PATIENCE_S

try:
    import fcntl
except ImportError:  # pragma: no cover - no pseudo terminals either
    pytest.skip("needs a pseudo terminal", allow_module_level=True)

KEY = "sk-verysecretkey0123456789"


class OnTerminal:
    """A command whose standard streams are a terminal of 80 columns."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.seen = ""

    def read_until(self, pattern: str) -> str:
        """Read until *pattern* was seen, or the end; return all that was seen."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.seen):
            assert time.monotonic() < give_up_at, self.seen
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.terminal, 65_536).decode("utf-8", "replace")
                except OSError:  # its other end is closed
                    break
        return self.seen

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@contextmanager
def on_terminal(shell: Any, *args: Any, **env: str) -> Iterator[OnTerminal]:
    """Start the command on a terminal."""
    terminal, inner = pty.openpty()
    env = shell.env(KEY, {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | env)
    process = subprocess.Popen(
        [*shell.command, *map(str, args)],
        cwd=shell.folder,
        env=env,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    started = OnTerminal(process, terminal)
    started.resize(80)
    os.close(inner)
    try:
        yield started
    finally:
        process.kill()
        process.wait()
        with suppress(OSError):
            os.close(terminal)


def run_args(shell: Any, box: Any, jobs: Any = 2, **keys: Any) -> tuple[Any, ...]:
    return ("run", shell.manifest(jobs, **keys), "--base-url", box.base_url, "--new")


def test_screen_is_drawn_and_taken_away(shell: Any, sandbox: Any) -> None:
    """The summary stands where it was; the cursor was never hidden, the terminal is as before."""
    jobs = [{"id": "a", "prompt": "fox"}, {"id": "b", "prompt": "sandbox:moderation"}]
    box = sandbox(median_s=1.5)
    with on_terminal(shell, *run_args(shell, box, jobs)) as command:
        before = termios.tcgetattr(command.terminal)
        seen = command.read_until(r"1 failed.*1 failed, 1 made(?s:.)*outputs/night\r\n")
        after = termios.tcgetattr(command.terminal)
    assert re.search(r"night.*━.*1 of 2", seen)
    assert re.search(r"1 generating", seen)
    assert "✗" in seen
    assert "\x1b[?" not in seen
    assert seen.rindex("\x1b[J") < seen.index("1 failed, 1 made")
    assert before == after


def test_killed_run_leaves_the_terminal_sane(shell: Any) -> None:
    """Kill -9: no cursor is hidden, no mode is set, and nothing has to be reset."""
    with on_terminal(shell, "run", shell.manifest(base_url=None), "--sandbox") as command:
        before = termios.tcgetattr(command.terminal)
        seen = command.read_until(r"night \(sandbox\)(?s:.)*2 generating")
        command.process.kill()
        command.process.wait()
        assert termios.tcgetattr(command.terminal) == before
    assert "\x1b[?" not in seen


def test_ctrl_c_is_answered_on_the_screen(shell: Any, sandbox: Any) -> None:
    """The sentence says what happens now; then come summary and exit code."""
    with on_terminal(shell, *run_args(shell, sandbox(median_s=600))) as command:
        command.read_until("2 generating")
        command.process.send_signal(signal.SIGINT)
        seen = command.read_until(r"stopped early: SIGINT; run again(?s:.)*outputs/night\r\n")
        assert command.process.wait(timeout=PATIENCE_S) == 130
    assert "\x1b[?" not in seen


def test_resize_redraws_the_screen(shell: Any, sandbox: Any) -> None:
    """At 30 columns the bar is gone."""
    with on_terminal(shell, *run_args(shell, sandbox(median_s=600))) as command:
        command.read_until("2 generating")
        command.resize(30)
        command.read_until(r"night\x1b\[0m   0 of 2\x1b\[K")


def test_silence_stands_on_the_screen(shell: Any) -> None:
    """Nobody listens at that address."""
    with on_terminal(shell, "run", shell.manifest(1), "--new") as command:
        command.read_until(r"the provider has not answered for \d+ s")


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_terminal_without_cursor_gets_lines(shell: Any, sandbox: Any, term: str) -> None:
    """No escape sequence, also with `--progress always`."""
    args = (*run_args(shell, sandbox()), "--progress", "always")
    with on_terminal(shell, *args, TERM=term) as command:
        seen = command.read_until(r"2 made(?s:.)*outputs/night\r\n")
    assert "\x1b" not in seen
    assert "job-0: made" in seen


def test_verbose_log_passes_above_the_screen(shell: Any, sandbox: Any) -> None:
    args = (*run_args(shell, sandbox(median_s=1.0)), "--progress", "always", "--verbose")
    with on_terminal(shell, *args) as command:
        seen = command.read_until(r"2 made(?s:.)*outputs/night\r\n")
    assert re.search(r"\d\d:\d\d:\d\d job-0: submitted as task \d+", seen)
    assert re.search(r"night.*━|─.*of 2", seen)


def test_progress_into_pipe_is_lines(shell: Any, sandbox: Any) -> None:
    said = shell(*run_args(shell, sandbox())[:-1], "--progress", "always")
    assert said.code == 0
    assert "job-0: made" in said.err


def test_watch_looks_like_the_run(shell: Any, sandbox: Any) -> None:
    """The same screen, drawn from the state; Ctrl-C leaves it there and is no error."""
    jobs = [{"id": "a", "prompt": "fox"}, {"id": "b", "prompt": "sandbox:moderation"}]
    shell("run", shell.manifest(jobs), "--base-url", sandbox().base_url)
    with on_terminal(shell, "status", "--watch") as command:
        seen = command.read_until("refused it")
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(timeout=PATIENCE_S) == 0
    assert re.search(r"night.*\u2501.*2 of 2", seen)
    assert "0 generating   0 downloading   about $0.42" in seen
    assert "1 failed" in seen
    assert re.search(r"last run \S+ ended with exit code 1", seen)
    assert "\x1b[?" not in seen
