"""Paths as a person writes them (`~`, `$HOME` and `${VARIABLE}` stand for something), and the user's own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

_CONTROL = r"[\x00-\x1f\x7f]"
_VARIABLE = r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))|\$\{"


def expand_path(text: str) -> Path:
    """Return the path that *text* means: `~`, `~user`, `$VARIABLE` and `${VARIABLE}` are expanded.

    Raises:
        ValueError: it is empty, names an unknown user or a variable that is not set, or holds a
            control character; the message is a sentence.
    """
    expanded = re.sub(_VARIABLE, lambda found: _value_of(found, text), text)
    if not expanded.strip():
        raise ValueError("a path is empty")
    if control := re.search(_CONTROL, expanded):
        raise ValueError(f"the path {text!r} holds a control character (U+{ord(control[0]):04X})")
    path = Path(expanded)
    if expanded.startswith("~"):
        path = _with_home(path, text)
    if "~" in path.parts:
        raise ValueError(
            f"the path {text!r} holds a folder ~; it means your home only at the start"
        )
    return path


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for this program's state of this user; a temporary one without a home."""
    given = environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    if Path(given).is_absolute():
        return Path(given) / "kling-batch"
    try:
        home = Path.home()
    except RuntimeError:
        import tempfile  # noqa: PLC0415 - hardly ever

        return Path(tempfile.gettempdir()) / "kling-batch"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "kling-batch"
    return home / ".local" / "state" / "kling-batch"


def _value_of(variable: re.Match[str], text: str) -> str:
    name = variable[1] or variable[2]
    if not name or not name.isidentifier():
        raise ValueError(f"the path {text!r} holds {variable[0]}, which names no variable")
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"the path {text!r} holds ${name}, but this variable is not set")
    return value


def _with_home(path: Path, text: str) -> Path:
    user = path.parts[0]
    # With an empty HOME, `~/loops` would become /loops.
    if user != "~" or os.environ.get("HOME") != "":
        try:
            return path.expanduser()
        except RuntimeError:
            pass
    advice = "" if user == "~" else f"; for a file of that name write ./{text}"
    raise ValueError(f"the path {text!r} begins with {user}, whose home is not known{advice}")
