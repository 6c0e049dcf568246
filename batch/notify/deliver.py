"""A message is delivered: command, webhook and ping at once, within one timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any
from urllib.parse import urlsplit

from batch.errors import ExitCode
from batch.events import Event, RunStarted
from batch.frozen import frozen
from batch.key import NO_SECRET, Secret
from batch.manifest.model import Pings
from batch.notify.channels import Channels, host_of
from batch.notify.errors import NotDeliveredError
from batch.notify.message import Message

WELL = frozenset({ExitCode.OK, ExitCode.LIMIT})
# They say nothing about the library: another run holds it, or a person stopped this one.
NO_VERDICT = frozenset({ExitCode.LOCKED, ExitCode.INTERRUPTED, ExitCode.TERMINATED})
LAST_MOMENT_S = 2.0


@frozen
class Delivery:
    """Who was told, in words that may be shown, and why that failed, if it did."""

    who: str
    failure: str | None = None
    is_ping: bool = False

    def __str__(self) -> str:
        return f"{self.who}: {self.failure or 'told'}"


async def deliver(channels: Channels, message: Message, *, is_wanted: bool) -> list[Delivery]:
    """Send the ping and, if that *is_wanted*, tell command and webhook. Raises nothing of its own."""
    notify = channels.notify
    sent: list[Coroutine[Any, Any, Delivery]] = []
    if is_wanted and notify.command:
        sent.append(
            _within(notify.timeout_s, f"command {notify.command[0]}", _call(channels, message))
        )
    if is_wanted and notify.webhook:
        sent.append(_webhook(notify.webhook, message, notify.timeout_s))
    if ping := end_of(notify.pings, message.exit_code, message.rid):
        sent.append(_ping(ping, message.as_text, notify.timeout_s))
    return list(await asyncio.gather(*sent))


class StartPing:
    """An observer that tells the monitor when the run has its folder and begins.

    The run does not wait for it, except for a moment at its end: a start that arrives behind that
    would tell of a run that never ends.
    """

    def __init__(self, channels: Channels, rid: str) -> None:
        self._url = start_of(channels.notify.pings, rid)
        self._timeout_s = channels.notify.timeout_s
        self._task: asyncio.Task[Delivery] | None = None

    def notify(self, event: Event) -> None:
        """Send the ping at the start."""
        if isinstance(event, RunStarted) and self._url:
            self._task = asyncio.get_running_loop().create_task(
                _ping(self._url, b"", self._timeout_s)
            )

    async def finish(self) -> None:
        """Wait a moment for the ping; end it then."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LAST_MOMENT_S)
            self._task.cancel()

    @property
    def failed(self) -> list[Delivery]:
        """The ping, if it failed."""
        task = self._task
        if task is None or not task.done() or task.cancelled() or task.result().failure is None:
            return []
        return [task.result()]


def start_of(pings: Pings, rid: str) -> Secret:
    """Return where a start is told."""
    return _below(pings.url, "/start", rid) if pings.url else pings.start


def end_of(pings: Pings, exit_code: int, rid: str) -> Secret:
    """Return where the end is told."""
    if pings.url:
        ending = "" if exit_code in WELL else f"/{int(exit_code)}"
        return _below(pings.url, "/log" if exit_code in NO_VERDICT else ending, rid)
    if exit_code in NO_VERDICT:
        return NO_SECRET
    return pings.success if exit_code in WELL else pings.failure


def _below(url: Secret, path: str, rid: str) -> Secret:
    parts = urlsplit(url.reveal())
    query = "&".join(filter(None, (parts.query, f"rid={rid}")))
    return Secret(parts._replace(path=parts.path.rstrip("/") + path, query=query).geturl())


async def _call(channels: Channels, message: Message) -> None:
    from batch.notify.command import call  # noqa: PLC0415 - only where there is one

    await call(channels.notify.command, channels.folder, message.as_json)


async def _webhook(url: Secret, message: Message, timeout_s: float) -> Delivery:
    headers = {"Content-Type": "application/json", "Idempotency-Key": message.key}
    sending = _post(url, message.as_json, headers, timeout_s, repeatable=False)
    return await _within(timeout_s, f"webhook at {host_of(url.reveal())}", sending)


async def _ping(url: Secret, body: bytes, timeout_s: float) -> Delivery:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    sending = _post(url, body, headers, timeout_s, repeatable=True)
    who = f"ping to {host_of(url.reveal())}"
    return await _within(timeout_s, who, sending, is_ping=True)


async def _post(
    url: Secret, data: bytes, headers: dict[str, str], timeout_s: float, *, repeatable: bool
) -> None:
    from batch.notify.web import post  # noqa: PLC0415 - the network's library takes long to load

    await post(url.reveal(), data, headers, timeout_s=timeout_s, repeatable=repeatable)


async def _within(
    timeout_s: float, who: str, work: Awaitable[None], *, is_ping: bool = False
) -> Delivery:
    try:
        async with asyncio.timeout(timeout_s):
            await work
    except NotDeliveredError as error:
        return Delivery(who, str(error), is_ping)
    except TimeoutError:
        return Delivery(who, f"not done within {timeout_s:g} s", is_ping)
    return Delivery(who, is_ping=is_ping)
