"""One line of what `doctor` reports: what was seen and, where something is wrong, what to do."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Any

from batch.frozen import frozen


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@frozen
class Check:
    """One line of the report."""

    name: str
    status: Status
    message: str
    to_do: str | None = None

    def __str__(self) -> str:
        message = self.message.replace("\n", f"\n{'':19}")
        line = f"{self.status:<4}  {self.name:<11}  {message}"
        return line if self.to_do is None else f"{line}\n{'':19}{self.to_do}"

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain JSON values."""
        return {**asdict(self), "status": str(self.status)}


def ok(name: str, message: str) -> Check:
    """Return a check that has found nothing wrong."""
    return Check(name, Status.OK, message)


def warn(name: str, message: str, to_do: str) -> Check:
    """Return a check that has found what may become trouble."""
    return Check(name, Status.WARN, message, to_do)


def fail(name: str, message: str, to_do: str | None = None) -> Check:
    """Return a check that has found what keeps a run from working."""
    return Check(name, Status.FAIL, message, to_do)
