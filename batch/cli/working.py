"""Carry out `kling-batch worker`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from batch.addresses import DEFAULT_BASE_URL, check_base_url, check_proxy
from batch.attempt import Account
from batch.cli import logs
from batch.cli.bug_report import hide
from batch.cli.commands.engine import required_engine
from batch.cli.commands.flags import FLAGS
from batch.errors import ExitCode, UsageError
from batch.key import (
    KEY_VARIABLE,
    NO_SECRET,
    Secret,
    account_of,
    find_engine,
    find_key,
    require_key,
)
from batch.run.resources import raise_descriptor_limit
from batch.run.signals import on_stop
from batch.settings import receiver_of
from batch.waker import Waker

ENDS_WITHIN_S = 5.0  # after the second signal


def work(
    *,
    name: str,
    downloads: int | None,
    base_urls: Sequence[str],
    env_files: Sequence[Path],
    proxy: str,
    callback_url: str | None,
    callback_listen: str | None,
    verbose: bool,
    log_format: str,
) -> int:
    """Work until a signal; return the exit code: 1 asks to be started anew."""
    engine = _engine(env_files)
    keys = _keys(base_urls or [DEFAULT_BASE_URL], env_files)
    logs.configure(level=logging.DEBUG if verbose else logging.INFO, log_format=log_format)
    raise_descriptor_limit()
    from batch.engines.start import Setup, work  # noqa: PLC0415 - needs psycopg and DBOS

    setup = Setup(
        engine,
        keys,
        name,
        downloads,
        proxy=Secret(check_proxy(proxy) if proxy else ""),
        callback=receiver_of(callback_url, callback_listen, lambda option: FLAGS[option].flag),
    )
    accounts = "1 account" if len(keys) == 1 else f"{len(keys)} accounts"
    logs.logger.info("working for %s; Ctrl-C or SIGTERM ends it", accounts)

    async def until_signal() -> bool:
        ending = Waker()
        main = asyncio.current_task()

        def insist(_number: signal.Signals) -> None:
            # Threads of the engine wait for Postgres; what is cut short is as after a power cut.
            timer = threading.Timer(ENDS_WITHIN_S, os._exit, (ExitCode.OK,))
            timer.daemon = True
            timer.start()
            if main is not None:
                main.cancel()

        with on_stop(lambda _number: ending.set(), insist):
            return await work(setup, ending, logs.LogObserver().notify, logs.logger)

    try:
        ended_as_asked = asyncio.run(until_signal())
    except asyncio.CancelledError:
        ended_as_asked = True
    return ExitCode.OK if ended_as_asked else ExitCode.JOBS_FAILED


def _engine(env_files: Sequence[Path]) -> Secret:
    """Return the engine's address: the environment's, or that in the first file that has one."""
    for file in env_files:
        if find_engine({}, file):
            return required_engine(str(file))
    return required_engine(None)


def _keys(base_urls: Sequence[str], env_files: Sequence[Path]) -> dict[Account, Secret]:
    """Return the keys by account: each key may be sent to each of the addresses.

    Raises:
        UsageError: there is none, or one cannot be used.
    """
    found = [find_key(os.environ, None, is_needed=False)]
    found += [find_key({}, file, is_needed=True) for file in env_files if _may_hold_key(file)]
    keys = {key.reveal(): key for key in found if key}
    if not keys:
        require_key(NO_SECRET)
    for key in keys:
        hide(key)
    try:
        addresses = [check_base_url(url) for url in base_urls]
    except ValueError as error:
        raise UsageError(f"--base-url: {error}") from None
    return {
        Account(url, account_of(require_key(key))): key
        for url, key in product(addresses, keys.values())
    }


def _may_hold_key(file: Path) -> bool:
    """Return whether a file is for a key: one with the engine's address need not hold one."""
    return not find_engine({}, file) or KEY_VARIABLE in file.read_text("utf-8", "replace")
