"""Values as JSON, by the types of their fields: what is handed over to workers.

Every value of one process is read by another, perhaps of another release: what a reader does not know
is refused, never ignored, since it may be a limit.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from datetime import time
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class UnknownValueError(ValueError):
    """A value was written by another release, and this one does not know all of it."""


def to_json(value: Any, *, is_sparse: bool = False) -> Any:
    """Return a value as plain JSON values.

    Args:
        value: made of dataclasses, named tuples, enums, paths, times, collections and plain values.
        is_sparse: leave out fields that are at their defaults.
    """
    again = functools.partial(to_json, is_sparse=is_sparse)
    kind: Any = type(value)
    if (fields := _fields(kind)) is not None:
        return {
            name: again(getattr(value, name))
            for name, default in fields.items()
            if not (is_sparse and getattr(value, name) == default)
        }
    match value:
        case Enum():
            return value.value
        case Path():
            return str(value)
        case time():
            return value.isoformat()
        case frozenset():
            return sorted(map(again, value))
        case tuple() | list():
            return [again(item) for item in value]
        case Mapping():
            return {key: again(item) for key, item in value.items()}
    assert value is None or isinstance(value, bool | int | float | str), type(value)
    return value


def from_json(kind: type[T], data: Any) -> T:
    """Return the value of *kind* that `to_json` has written.

    Raises:
        UnknownValueError: it is not one that this release knows.
    """
    try:
        read: T = _read(kind, data)
    except (TypeError, ValueError, KeyError) as error:
        raise UnknownValueError(f"{kind.__name__}: {error}") from error
    return read


def _read(kind: Any, data: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in {types.UnionType, typing.Union}:
        return None if data is None else _read(inner[0], data)
    if origin is tuple:
        kinds = inner[:1] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(_read(one, item) for one, item in zip(kinds, data, strict=True))
    if origin is frozenset:
        return frozenset(_read(inner[0], item) for item in data)
    if origin is dict:
        return {_read(inner[0], key): _read(inner[1], item) for key, item in data.items()}
    if _fields(kind) is not None:
        made: Any = kind
        hints = _hints(made)
        return made(**{name: _read(hints[name], item) for name, item in data.items()})
    if kind is time:
        return time.fromisoformat(data)
    if kind is float and isinstance(data, int):
        return float(data)
    if issubclass(kind, Enum | Path):
        return kind(data)
    if not isinstance(data, kind):
        raise TypeError(f"{data!r} is not of type {kind.__name__}")
    return data


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass or a named tuple with their defaults; None for others."""
    if dataclasses.is_dataclass(kind):
        return {field.name: _default(field) for field in dataclasses.fields(kind)}
    names = getattr(kind, "_fields", None)
    if names is None:
        return None
    return {name: kind._field_defaults.get(name, dataclasses.MISSING) for name in names}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
