"""The API key: where it comes from, and what may be shown or kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from batch.errors import UsageError

KEY_VARIABLE = "COMETAPI_KEY"


class Secret:
    """A text that its `repr` does not show."""

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


def find_key(environ: Mapping[str, str], env_file: Path | None) -> Secret:
    """Return the API key from the environment, or else from *env_file*; empty if there is none.

    Raises:
        UsageError: the file cannot be read.
    """
    key = environ.get(KEY_VARIABLE, "")
    if not key and env_file is not None:
        key = _read_env_file(env_file).get(KEY_VARIABLE, "")
    return Secret(key.strip())


def require_key(secret: Secret) -> str:
    """Return the key that a run sends.

    Raises:
        UsageError: there is none, or it is not a valid one.
    """
    key = secret.reveal()
    if not key:
        raise UsageError(
            f"no API key: set {KEY_VARIABLE} in the environment, or name a file that holds it with"
            " --env-file (to try things out without a key, use --sandbox)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{KEY_VARIABLE} is not a valid key: it holds blanks or special characters; copy it again"
        )
    return key


def account_of(key: str) -> str:
    """Return what the state keeps of a key: it tells keys apart and cannot be used as one."""
    return hashlib.sha256(b"kling-batch account\0" + key.encode()).hexdigest()[:8]


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
