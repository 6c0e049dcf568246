"""The API key: where it comes from, and what may be shown or kept of it."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from batch.errors import UsageError

KEY_VARIABLE = "COMETAPI_KEY"
ENGINE_VARIABLE = "KLING_BATCH_ENGINE"  # the address of a fleet's Postgres, with its password
_NEVER_IN_A_KEY = frozenset("\"'`$<>{}\\")
# Of an env file. Compiled at the first use, as most runs have none.
_ASSIGNMENT = r"(?ai)\s*(?:(?:export|set)\s+|\$env:)?([A-Za-z_]\w*)\s*=(.*)"
_QUOTED = r"""\s*(["'])(.*?)\1\s*(?:#.*)?"""
_REFERENCE = r"(?a)\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))"


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


NO_SECRET = Secret("")


def find_key(environ: Mapping[str, str], env_file: Path | None, *, is_needed: bool) -> Secret:
    """Return the API key from the environment, or else from *env_file*; empty if there is none.

    The file is read in any case: one that is not there is a typing error.

    Raises:
        UsageError: the file cannot be read; or the key is looked for in it, and is not there or is
            not a valid one.
    """
    text = None if env_file is None else _text_of(env_file)
    key = environ.get(KEY_VARIABLE, "").strip()
    if key:
        with contextlib.suppress(ValueError):  # that is for `require_key` to tell
            key = _value(key, {})  # `docker --env-file` keeps quotes and comments
        return Secret(key)
    if env_file is None or text is None or not is_needed:
        return NO_SECRET
    return Secret(_key_in(env_file, text, environ))


def find_engine(environ: Mapping[str, str], env_file: Path | None) -> Secret:
    """Return the address of a fleet's Postgres from the environment, or else from *env_file*.

    It is empty for a run on this machine alone.

    Raises:
        UsageError: the file, or its line, cannot be read.
    """
    engine = environ.get(ENGINE_VARIABLE, "").strip()
    if engine:
        with contextlib.suppress(ValueError):
            engine = _value(engine, {})
    elif env_file is not None:
        engine = _engine_in(env_file, _text_of(env_file), environ)
    return Secret(engine)


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
    if fault := key_fault(key):
        raise UsageError(f"{KEY_VARIABLE} is not a valid key: {fault}")
    return key


def read_key(text: str) -> Secret:
    """Return the key that a caller gives.

    Raises:
        ValueError: it is not a valid one; the environment's is not used instead, since it may be
            that of another account.
    """
    key = text.strip()
    if fault := key_fault(key):
        raise ValueError(f"not a valid key: {fault}")
    return Secret(key)


def key_fault(key: str) -> str | None:
    """Return why *key* cannot be sent, without a part of it; None if it can."""
    if not key:
        return "it is empty"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "it holds blanks or special characters; copy it again"
    if any(character in _NEVER_IN_A_KEY for character in key):
        return "it holds a quote, a bracket, a backslash or a $; copy it again"
    return None


def account_of(key: str) -> str:
    """Return what the state keeps of a key: it tells keys apart and cannot be used as one."""
    return hashlib.sha256(b"kling-batch account\0" + key.encode()).hexdigest()[:8]


# -- env files, as docker, bash, PowerShell and python-dotenv write and read them -------------------
#
# Not python-dotenv: it takes a variable that is not set for an empty text, reads no UTF-16, and does
# not tell which line is wrong.


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
        # PowerShell's `>` writes UTF-16. Comments in another encoding do no harm.
        text = (
            data.decode("utf-16")
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            else data.decode("utf-8-sig", "surrogateescape")
        )
    except OSError as error:
        reason = str(error.strerror or error)
        if isinstance(error, FileNotFoundError) and not path.is_absolute():
            reason = f"{reason} (the working directory is {Path.cwd()})"
        raise UsageError(f"the env file {path} cannot be read: {reason}") from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"the env file {path} is not a text in UTF-8 or UTF-16")
    return text


def _key_in(path: Path, text: str, environ: Mapping[str, str]) -> str:
    """Return the key in the last line that sets it, as every reader of such files has it."""
    key, fault, at, names = "", None, 0, []
    for number, name, value, reason in _assignments(text, environ):
        names.append(name)
        if name == KEY_VARIABLE:
            key, fault, at = value, reason or key_fault(value), number
    if not at:
        raise _not_found(path, text, names)
    if fault:
        raise UsageError(f"{KEY_VARIABLE} is not a valid key: {fault}", file=str(path), line=at)
    return key


def _engine_in(path: Path, text: str, environ: Mapping[str, str]) -> str:
    engine, fault, at = "", None, 0
    for number, name, value, reason in _assignments(text, environ):
        if name == ENGINE_VARIABLE:
            engine, fault, at = value, reason, number
    if fault:
        raise UsageError(f"{ENGINE_VARIABLE} cannot be read: {fault}", file=str(path), line=at)
    return engine


def _assignments(
    text: str, environ: Mapping[str, str]
) -> Iterator[tuple[int, str, str, str | None]]:
    """Iterate over line, name, value and fault of what an env file sets."""
    earlier: dict[str, str] = {}
    for number, line in enumerate(_lines(text), 1):
        found = re.fullmatch(_ASSIGNMENT, line)
        if found is None:
            continue
        value, fault = "", None
        try:
            value = _value(found[2], {**earlier, **{k: v for k, v in environ.items() if v}})
        except ValueError as error:
            fault = str(error)
        earlier[found[1]] = value
        yield number, found[1], value, fault


def _not_found(path: Path, text: str, names: Collection[str]) -> UsageError:
    for number, line in enumerate(_lines(text), 1):
        if re.match(rf"\s*(?:(?:export|set)\s+|\$env:)?{KEY_VARIABLE}\b", line):
            message = f"there is no = behind {KEY_VARIABLE}"
            return UsageError(message, file=str(path), line=number)
    import difflib  # noqa: PLC0415 - only a mistyped name needs it

    near = difflib.get_close_matches(KEY_VARIABLE, names, n=1, cutoff=0.7)
    hint = f"; it holds {near[0]}" if near else ""
    return UsageError(f"the env file {path} holds no line {KEY_VARIABLE}=…{hint}")


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)


def _value(raw: str, variables: Mapping[str, str]) -> str:
    """Return the value that *raw*, the text behind an equals sign, stands for.

    Raises:
        ValueError: it stands for none; the message holds nothing of it but the names of variables.
    """
    if quoted := re.fullmatch(_QUOTED, raw):
        value = quoted[2].strip()
        if quoted[1] == "'":
            return value
    elif raw.strip().startswith(('"', "'")):
        raise ValueError("its quotes do not end, or there is something behind them")
    else:
        value = re.split(r"\s+#", raw, maxsplit=1)[0].strip()

    def expanded(reference: re.Match[str]) -> str:
        name = reference[1] or reference[3]
        found = variables.get(name) or reference[2]
        if not found:
            raise ValueError(f"it refers to the variable {name}, which is not set")
        return found

    return re.sub(_REFERENCE, expanded, value)
