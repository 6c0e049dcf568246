"""Stop in two steps: the first signal asks, the second insists."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def on_stop(
    ask: Callable[[signal.Signals], None], insist: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Call *ask* at the first SIGINT or SIGTERM, *insist* at every further one.

    The handlers are the event loop's: they run between two steps of a coroutine, never within
    one. They are taken away again at the end. If one was called the process is on its way out, and
    from then on it ignores these signals, so that one more does not take its exit code away. Where
    the loop knows no signals (Windows, a thread that is not the main one) nothing is installed.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def handle(number: signal.Signals) -> None:
        nonlocal asked
        if asked:
            insist(number)
        else:
            asked = True
            ask(number)

    installed: list[signal.Signals] = []
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                loop.add_signal_handler(number, handle, number)
                installed.append(number)
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
            if asked:
                signal.signal(number, signal.SIG_IGN)
