"""Collect the faults and warnings of a manifest, each with its place.

`Findings` collects every fault in the values. A file that cannot be read at all (its bytes, its
syntax, a bound) ends the reading with `Unreadable`.
"""

from __future__ import annotations

from collections.abc import Iterable

from batch.errors import Problem
from batch.manifest.nodes import Place, Scalar

MAX_FAULTS = 10_000  # listed one by one; beyond, they are only counted


def shown(text: str, most: int = 60) -> str:
    """Quote *text* for a message: shortened, and without raw control codes."""
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")


def printable(text: str) -> str:
    """Escape characters that a terminal would obey or hide, and bound the length."""
    text = text if len(text) <= 500 else f"{text[:499]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def meant(text: str, known: Iterable[str]) -> str | None:
    """Return a hint at the most similar of *known*, or None."""
    name = nearest(text, known)
    return None if name is None else f"did you mean {name}?"


def nearest(text: str, known: Iterable[str]) -> str | None:
    """Return the most similar of *known*, or None."""
    if len(text) > 40:  # difflib is quadratic, and this is no typing error
        return None
    import difflib  # noqa: PLC0415 - only a mistyped key needs it

    names, lower = {name.lower(): name for name in known}, text.lower()
    if lower == lower.upper():
        # 16/9 is 16:9, but 16:10 is not 1:1: other numbers are no typing error.
        names = {name: names[name] for name in names if _digits(name) == _digits(lower)}
    close = difflib.get_close_matches(lower, names, n=3, cutoff=0.6)
    close.sort(key=lambda name: sorted(name) != sorted(lower))  # letters changed places: modle
    if not close:  # a long form: standard for std
        close = [name for name in names if len(name) > 2 and _is_short_for(name, lower)]
    return names[close[0]] if close else None


def is_typing_error(text: str, name: str) -> bool:
    """Return whether *text* is *name* but for a letter or two."""
    import difflib  # noqa: PLC0415 - only a mistyped key needs it

    return difflib.SequenceMatcher(None, text.lower(), name.lower()).ratio() >= 0.8


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _is_short_for(name: str, text: str) -> bool:
    letters = iter(text)
    return text[:1] == name[0] and all(letter in letters for letter in name)


class Unreadable(Exception):  # noqa: N818 - says what the file is
    """A file cannot be read any further; carries the `Problem`."""

    def __init__(self, at: Place, message: str, advice: str | None = None) -> None:
        self.problem = Problem(at.file, at.line, at.column, printable(message), advice=advice)
        super().__init__(str(self.problem))


class Findings:
    """Faults and warnings with their places, each once.

    `job` is the id of the job being read, if any. A warning that many jobs share is reported at
    the first of them, with the number of the others.
    """

    def __init__(self) -> None:
        self.job: str | None = None
        self._faults: dict[tuple[str, int, int, str], Problem] = {}
        self._warnings: dict[str, list[Problem]] = {}
        self._further: dict[str, int] = {}
        self._unlisted = 0

    @property
    def fault_count(self) -> int:
        """Return the number of faults so far."""
        return len(self._faults) + self._unlisted

    def fault(self, at: Place, message: str, advice: str | None = None) -> None:
        """Record a fault at *at*."""
        self.add(self._problem(at, message, advice))

    def add(self, problem: Problem) -> None:
        """Record a fault, unless the same one is recorded already."""
        key = (problem.file, problem.line, problem.column, problem.message)
        if key in self._faults:
            return
        if len(self._faults) < MAX_FAULTS:
            self._faults[key] = problem
        else:
            self._unlisted += 1

    def warn(self, at: Place, message: str, advice: str | None = None) -> None:
        """Record a warning at *at*: allowed, but unlikely to be meant."""
        problem = self._problem(at, message, advice)
        first = self._warnings.setdefault(message, [problem])[0]
        if first is not problem:
            self._further[message] = self._further.get(message, 0) + 1

    def _problem(self, at: Place, message: str, advice: str | None) -> Problem:
        advice = None if advice is None else printable(advice)
        return Problem(at.file, at.line, at.column, printable(message), self.job, advice)

    def faults(self, end: Problem | None = None) -> list[Problem]:
        """Return all faults, in the order in which they were found.

        Args:
            end: the fault that ended the reading early, if any; it comes last.
        """
        faults, unlisted = list(self._faults.values()), self._unlisted
        if end is not None:
            faults.append(end)
        if unlisted:
            message = f"{unlisted:,} further fault{'s' * (unlisted > 1)} not listed"
            faults.append(faults[-1]._replace(message=message, job=None, advice=None))
        return faults

    def warnings(self) -> tuple[Problem, ...]:
        """Return all warnings, sorted by place."""
        warnings = []
        for message, (problem, *_) in self._warnings.items():
            further = self._further.get(message)
            tail = "" if further is None else f" [and {further:,} more of the same]"
            warnings.append(problem._replace(message=message + tail))
        return tuple(sorted(warnings, key=lambda p: (p.file, p.line, p.column)))

    def unknown_key(self, key: Scalar, known: Iterable[str], where: str) -> str | None:
        """Record an unknown key; return the known one of which it is a typing error, or None.

        Read on as that one, it gives no second fault of what is missing.
        """
        names = list(known)
        is_listed = len(self._faults) < MAX_FAULTS  # else it is only counted
        name = nearest(key.text, names) if is_listed else None
        advice = None if name is None else f"did you mean {name}?"
        if advice is None and len(names) <= 10:
            advice = f"known keys: {', '.join(names)}"
        self.fault(key, f"unknown key {shown(key.text)} in {where}", advice)
        return name if name is not None and is_typing_error(key.text, name) else None
