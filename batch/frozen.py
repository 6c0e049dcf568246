"""Immutable records that cost little to import.

`dataclass(frozen=True)` compiles six methods for each class, at every start: for the classes that
each run needs, a twentieth of a night on which nothing is to be done. Here only `__init__` is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots, equality, a hash and a repr.

    Type checkers refuse to assign to its fields; nothing does at run time.
    """
    made = dataclass(eq=False, repr=False, slots=True)(cls)
    names = [entry.name for entry in fields(made) if entry.compare]  # type: ignore[arg-type]
    compared = attrgetter(*names)

    def is_equal(self: T, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented  # type: ignore[no-any-return]
        return bool(compared(self) == compared(other))

    made.__eq__ = is_equal  # type: ignore[assignment]
    made.__hash__ = lambda self: hash(compared(self))  # type: ignore[method-assign]
    made.__repr__ = _told  # type: ignore[method-assign]
    return made


def _told(self: object) -> str:
    told = [entry.name for entry in fields(self) if entry.repr]  # type: ignore[arg-type]
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
    return f"{type(self).__qualname__}({values})"
