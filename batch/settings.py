"""Settings by precedence: flag, environment, manifest, default. Secrets are masked."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from batch.errors import UsageError
from batch.manifest.limits import Limits, Rate
from batch.manifest.model import Manifest

KEY_VARIABLE = "COMETAPI_KEY"
DEFAULT_BASE_URL = "https://api.cometapi.com"


class Secret:
    """A text that shows itself only when asked by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._value)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line or the environment (or a caller) says; None is silence."""

    output_dir: Path | None = None
    base_url: str | None = None
    sandbox: bool = False
    submit_rate: Rate | None = None
    max_in_flight: int | None = None
    deadline_s: float | None = None
    budget_usd: float | None = None
    select: tuple[str, ...] = ()
    force: bool = False
    retry_failed: bool = False
    resubmit_unconfirmed: bool = False
    callback_url: str | None = None
    callback_listen: str | None = None
    api_key: Secret | None = None
    env_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run goes by, everything decided."""

    output_dir: Path
    base_url: str
    sandbox: bool
    limits: Limits
    select: tuple[str, ...] = ()
    force: bool = False
    retry_failed: bool = False
    resubmit_unconfirmed: bool = False
    callback_url: str | None = None
    callback_listen: str | None = None
    api_key: Secret = field(default_factory=lambda: Secret(""))


def resolve(manifest: Manifest, given: Given, environ: Mapping[str, str]) -> Settings:
    """Decide every setting.

    The key may be missing here: a plan needs none; `require_key` asks for it before anything is sent.

    Raises:
        UsageError: a value cannot be used; the message says which and why.
    """
    limits = manifest.limits
    stronger = {
        "submit_rate": given.submit_rate,
        "max_in_flight": given.max_in_flight,
        "deadline_s": given.deadline_s,
        "budget_usd": given.budget_usd,
    }
    changes = {name: value for name, value in stronger.items() if value is not None}
    limits = limits.with_given(**changes)
    output_dir = given.output_dir
    if output_dir is None and manifest.output_dir is not None:
        output_dir = manifest.path.parent / manifest.output_dir
    if output_dir is None:
        output_dir = Path("outputs") / manifest.name
    # An empty --base-url is a variable that was not set: it must not mean the real API.
    base_url = manifest.base_url or DEFAULT_BASE_URL if given.base_url is None else given.base_url
    callback = manifest.callback
    callback_url = given.callback_url or (callback.url if callback else None)
    callback_listen = given.callback_listen or (callback.listen if callback else None)
    if (callback_url is None) != (callback_listen is None):
        raise UsageError(
            "callbacks take both an address for the provider (--callback-url) and one to listen on"
            " here (--callback-listen)"
        )
    if callback_url is not None and callback_listen is not None:
        _check_callback(callback_url, callback_listen)
    return Settings(
        output_dir=output_dir,
        base_url=check_base_url(base_url),
        sandbox=given.sandbox,
        limits=limits,
        select=given.select,
        force=given.force,
        retry_failed=given.retry_failed,
        resubmit_unconfirmed=given.resubmit_unconfirmed,
        callback_url=callback_url,
        callback_listen=callback_listen,
        api_key=given.api_key or find_key(environ, given.env_file),
    )


def find_key(environ: Mapping[str, str], env_file: Path | None) -> Secret:
    """Return the API key from the environment, or else from *env_file*; empty if there is none.

    Raises:
        UsageError: the file cannot be read.
    """
    key = environ.get(KEY_VARIABLE, "")
    if not key and env_file is not None:
        key = _read_env_file(env_file).get(KEY_VARIABLE, "")
    return Secret(key.strip())


def require_key(settings: Settings) -> str:
    """Return the key that a run sends.

    Raises:
        UsageError: there is none, or it cannot be a key.
    """
    key = settings.api_key.reveal()
    if not key:
        raise UsageError(
            f"no API key: set {KEY_VARIABLE} in the environment, or name a file that holds it with"
            " --env-file (to try things out without a key, use --sandbox)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{KEY_VARIABLE} holds characters that no key has; copy it again")
    return key


def check_base_url(base_url: str) -> str:
    """Return *base_url* without a slash at its end.

    Raises:
        UsageError: it is no http(s) address, or would send the key over an open line.
    """
    try:
        parts = urlsplit(base_url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"--base-url {base_url!r} is no address") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("--base-url takes an address without a user name, a query or a fragment")
    if parts.scheme not in {"http", "https"} or not host:
        raise UsageError(f"--base-url {base_url!r} must begin with https:// and name a host")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(
            f"--base-url {base_url!r} would send the API key unencrypted; use https://"
            " (http:// is for this machine only)"
        )
    return base_url.rstrip("/")


def account_of(key: str) -> str:
    """Return what the state keeps of a key: enough to see that it is another one, too little to use."""
    return hashlib.sha256(b"kling-batch account\0" + key.encode()).hexdigest()[:8]


def _check_callback(url: str, listen: str) -> None:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise UsageError(f"--callback-url {url!r} must be an http(s) address")
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"--callback-listen {listen!r} must be HOST:PORT, like 127.0.0.1:8090")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the env file {path} cannot be read: {error}") from None
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        values[name.strip()] = value
    return values
