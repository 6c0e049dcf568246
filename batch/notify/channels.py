"""Whom to tell. The environment wins over the manifest, and works without a readable one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from batch.addresses import is_address
from batch.frozen import frozen
from batch.key import Secret
from batch.manifest.model import Notify, Pings
from batch.manifest.notify_section import ENVIRONMENT

COMMAND_VARIABLE = "KLING_BATCH_NOTIFY_COMMAND"
WEBHOOK_VARIABLE = "KLING_BATCH_NOTIFY_WEBHOOK"
PING_VARIABLE = "KLING_BATCH_NOTIFY_PING"
VARIABLES = frozenset({COMMAND_VARIABLE, WEBHOOK_VARIABLE, PING_VARIABLE})


@frozen
class Channels:
    """Whom to tell: *notify* with addresses in place of variables.

    A command runs in *folder*. *faults* are sentences about what cannot be used.
    """

    notify: Notify
    folder: Path
    faults: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self.notify.command or self.notify.webhook or any(self.notify.pings))

    @property
    def addresses(self) -> Iterator[str]:
        """The addresses, which are secrets."""
        for address in (self.notify.webhook, *self.notify.pings):
            if address:
                yield address.reveal()


def channels_of(notify: Notify, folder: Path, environ: Mapping[str, str]) -> Channels:
    """Return whom to tell.

    Args:
        notify: what the manifest says.
        folder: where the manifest stands.
        environ: the variables.
    """
    faults: list[str] = []

    def resolved(address: Secret, name: str) -> Secret:
        url, fault = _resolve(address.reveal(), name, environ)
        if fault:
            faults.append(fault)
        return Secret(url)

    command, webhook, pings = notify.command, notify.webhook, notify.pings
    if given := environ.get(COMMAND_VARIABLE, "").strip():
        import shlex  # noqa: PLC0415 - most runs name no command

        try:
            command = tuple(shlex.split(given))
        except ValueError as error:
            faults.append(f"{COMMAND_VARIABLE} is not a valid command ({error})")
    if given := environ.get(WEBHOOK_VARIABLE, "").strip():
        webhook = resolved(Secret(given), WEBHOOK_VARIABLE)
    else:
        webhook = resolved(webhook, "notify.webhook")
    if given := environ.get(PING_VARIABLE, "").strip():
        pings = Pings(resolved(Secret(given), PING_VARIABLE))
    else:
        pings = Pings(
            url=resolved(pings.url, "notify.ping"),
            start=resolved(pings.start, "notify.ping.start"),
            success=resolved(pings.success, "notify.ping.success"),
            failure=resolved(pings.failure, "notify.ping.failure"),
        )
    told = notify._replace(command=command, webhook=webhook, pings=pings)
    return Channels(told, folder, tuple(faults))


def host_of(url: str) -> str:
    """Return what of an address may be shown."""
    return urlsplit(url).hostname or "an unknown host"


def _resolve(text: str, name: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the URL that *text* stands for, or a sentence that says why there is none."""
    if text.startswith(ENVIRONMENT):
        variable = text.removeprefix(ENVIRONMENT)
        text, name = environ.get(variable, "").strip(), f"{name}: the variable {variable}"
        if not text:
            return "", f"{name} is not set, so nothing is sent there"
    if text and not is_address(text):
        return "", f"{name} is not a valid address, so nothing is sent there"
    return text, None
