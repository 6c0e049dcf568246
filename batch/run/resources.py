"""What the system grants a run: threads and descriptors, seen to before anything is sent.

A thread that cannot be had later would leave a job waiting for ever with its task paid for; a
descriptor that cannot be had looks like a provider that cannot be reached.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from batch.errors import StateError
from batch.frozen import frozen
from batch.manifest.limits import Limits
from batch.run.turns import POLLS_AT_ONCE

if sys.platform != "win32":
    import resource

T = TypeVar("T")
ENDING_S = 0.05  # until the system has forgotten a thread that has ended
PATIENCE_S = 0.5  # with a system that is slow to
SPARE = 8  # descriptors for what is open for a moment only, and for connections just closed
QUERIES_AT_ONCE = 2 * POLLS_AT_ONCE  # look-ups and what a callback announces never wait for polls
FEW = 500  # submissions, which have a connection for each task in flight
USUALLY_OPEN = 32  # where the system does not list what is open
MOST_DESCRIPTORS = 65_536
UNLIMITED_DESCRIPTORS = 10_240  # what macOS takes in place of "unlimited"
NO_THREAD = (
    "the system grants no more threads (ulimit -u or -v, or the limits of a container); nothing was sent."
    " Raise that limit and run again"
)


@frozen
class Granted:
    """*limits* of the run as the descriptors allow them, and how many may go to queries."""

    limits: Limits
    queries: int = 0  # as many as wanted


def raise_descriptor_limit() -> None:
    """Raise this process's limit of descriptors as far as it may."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = UNLIMITED_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    wanted = min(wanted, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def fit(limits: Limits, *, is_embedded: bool, room: int | None = None) -> Granted:
    """Fit *limits* to the descriptors that are left.

    Args:
        limits: as the person wants them.
        is_embedded: the provider is the sandbox in this process, with an end of each connection.
        room: how many descriptors are left; by default, asked of the system.

    Raises:
        StateError: there are too few for a single job.
    """
    room = _room() if room is None else room
    if room is None:
        return Granted(limits)
    ends = 2 if is_embedded else 1
    a_download = ends + 1  # its connection and its file
    downloads = min(limits.max_downloads, max(1, room // 3 // a_download))
    room -= downloads * a_download
    connections = room // ends
    submissions = min(limits.max_in_flight, _submissions_at_once(limits))
    queries = min(limits.max_in_flight, QUERIES_AT_ONCE)
    if connections >= submissions + queries:
        return Granted(limits._replace(max_downloads=downloads), connections - submissions)
    # Each task in flight may have a connection for its submission and one for its queries.
    in_flight = min(limits.max_in_flight, connections // 2)
    if in_flight < 1:
        raise StateError(
            "the system grants too few descriptors for a run (ulimit -n); nothing was sent. Raise that"
            " limit and run again"
        )
    fitted = limits._replace(max_in_flight=in_flight, max_downloads=downloads)
    return Granted(fitted, connections - in_flight)


def _submissions_at_once(limits: Limits) -> int:
    """Return how many submissions may wait for their answers, however many tasks are in flight."""
    sent = math.ceil(limits.submit_rate.per_second * limits.request_timeout_s)
    return max(sent, FEW)


def _room() -> int | None:
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        in_use = len(os.listdir("/dev/fd"))  # noqa: PTH208 - names only
    except OSError:
        in_use = USUALLY_OPEN
    return soft - in_use - SPARE


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Return what *main* returns, as `asyncio.run` does, whether or not its end is granted a thread.

    A loop ends its threads from one more. Where that is refused, they end with the process.
    """
    runner = asyncio.Runner()
    try:
        return runner.run(main)
    finally:
        with suppress(RuntimeError):
            runner.close()


async def start_name_lookups() -> None:
    """Start the thread that resolves names.

    Raises:
        StateError: the system grants none.
    """
    try:
        await asyncio.get_running_loop().run_in_executor(None, _nothing)
    except RuntimeError as error:
        raise StateError(NO_THREAD) from error


def start_pool(most: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads run already: *most*, or as many as the system grants.

    Raises:
        StateError: it grants none.
    """
    workers, give_up_at = most, time.monotonic() + PATIENCE_S
    while workers:
        pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        if _start(pool, workers):
            return pool
        pool.shutdown(cancel_futures=True)
        time.sleep(ENDING_S)
        if workers > 1 or time.monotonic() > give_up_at:
            workers //= 2
    raise StateError(NO_THREAD)


def _start(pool: ThreadPoolExecutor, workers: int) -> bool:
    """Start all threads of *pool*: it starts one when work comes and none is idle."""
    started = threading.Event()
    try:
        for _ in range(workers):
            pool.submit(started.wait)
    except RuntimeError:
        return False
    finally:
        started.set()
    return True


def _nothing() -> None:
    """Do nothing, in a thread."""
