"""Faults on request: the rules, and the plan that lists them.

A rule names a stage, a kind, and when. As text, for a command line: `submit:drop-after:0.2`,
`query:500:0.3`, `download:cut:first=1`, `submit:429:every=5,retry-after=2`, `query:shape:5`.
As a mapping: `{"where": "download", "kind": "cut", "per_task": 1, "at": 0.5}`.

The first rule of a stage that fires is the one that counts; `shape`, `numeric-ids` and `link` only
dress an answer and go together with any other.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from batch.sandbox.kinds import ANSWERS, CREATING, KINDS
from batch.sandbox.shapes import LINK_PLACES

# A comma, or a colon before the next suffix; others belong to a value, say to an address.
_BETWEEN_SUFFIXES = re.compile(r",|:(?=[a-z_ ]+=|[\d.]+(?:[:,]|$))")
_BARE_SUFFIX = {"shape": "n", "link": "to"}  # meaning of a suffix without a name; else the rate


class FaultPlanError(ValueError):
    """Raised for a rule that is not valid; the message suggests the nearest name."""


def _suffix(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One thing that goes wrong, and when. All conditions must hold.

    *where* is the stage and *kind* the fault, see `KINDS`; the other fields are the suffixes, each
    described in its metadata. For submit, `-before` and `-after` say whether a task is created.
    """

    where: str
    kind: str
    rate: float = _suffix(1.0, "probability, 0 to 1; may stand without its name")
    first: int | None = _suffix(None, "only the first N requests of the stage that match")
    per_task: int | None = _suffix(None, "only the first N requests of each task")
    every: int | None = _suffix(None, "only each Nth request")
    after: int | None = _suffix(None, "only tasks with a number above N, counted from 1")
    until: int | None = _suffix(None, "only tasks with a number up to N")
    match: str | None = _suffix(None, "only tasks whose prompt matches this glob")
    seconds: float | None = _suffix(
        None, "how long: hang and stall (3600), slow (2), late and idle (5)"
    )
    at: float = _suffix(0.5, "where in the file or body, 0 to 1 (0.5)")
    n: int = _suffix(1, "which shape, 1 to 5; may stand without its name")
    size: int | None = _suffix(None, "how large the head is")
    bytes_per_s: int = _suffix(64_000, "how slow (64000)")
    retry_after: float | None = _suffix(None, "sends a Retry-After header of so many seconds")
    moment: str | None = _suffix(None, "s or ms: sends Retry-After as that moment since the epoch")
    message: str | None = _suffix(None, "the words of the error or failure")
    to: str | None = _suffix(
        None, f"where a redirect leads, a label, or the place of a link: {', '.join(LINK_PLACES)}"
    )

    def __post_init__(self) -> None:
        """Refuse a rule that would silently do nothing."""
        _check_name("stage", self.where, KINDS)
        _check_name(f"fault of {self.where}", self.kind, KINDS[self.where])
        if self.kind == "link":
            _check_name("place of a link", self.to or "", LINK_PLACES)
        if self.moment not in {None, "s", "ms"}:
            raise FaultPlanError(f"{self.moment!r} is not a valid moment; it is s or ms")
        if not 0 <= self.rate <= 1 or not 0 <= self.at <= 1 or not 0 <= self.n <= 5:
            raise FaultPlanError("rate and at are 0 to 1, n is 0 to 5")

    def lasts(self, default_s: float) -> float:
        """Return `seconds`, or the default of the kind."""
        return default_s if self.seconds is None else self.seconds

    @property
    def base_kind(self) -> str:
        """The kind without `-before` or `-after`."""
        return self.kind.removesuffix("-before").removesuffix("-after")

    @property
    def creates(self) -> bool:
        """Whether a submission hit by this rule still makes a task."""
        if self.kind.endswith("-after"):
            return True
        return self.base_kind in CREATING and not self.kind.endswith("-before")

    def head(self, now: float) -> dict[str, str]:
        """Return the headers that the rule adds to an answer."""
        headers = {}
        if self.retry_after is not None:
            scale = {None: 1, "s": 1, "ms": 1000}[self.moment]
            begin = 0.0 if self.moment is None else now
            headers["Retry-After"] = f"{(begin + self.retry_after) * scale:.15g}"
        if self.base_kind == "big-header":
            headers["X-Large"] = "x" * (self.size or 60_000)
        if self.base_kind == "many-headers":
            headers |= {f"X-Extra-{number}": "x" for number in range(self.size or 500)}
        return headers

    @classmethod
    def from_text(cls, text: str) -> FaultRule:
        """Read `stage:kind[:suffix[,suffix]]`; a suffix is `name=value` or a bare rate.

        Raises:
            FaultPlanError: the text is not a valid rule.
        """
        where, _, rest = text.strip().partition(":")
        kind, _, suffixes = rest.partition(":")
        values: dict[str, Any] = {"where": where, "kind": kind}
        for suffix in filter(None, _BETWEEN_SUFFIXES.split(suffixes)):
            name, is_named, value = suffix.partition("=")
            if not is_named:
                name, value = _BARE_SUFFIX.get(kind, "rate"), suffix
            values[name.strip()] = value.strip()
        return cls.from_mapping(values)

    def to_mapping(self) -> dict[str, Any]:
        """Return the fields that are set, as `from_mapping` reads them."""
        given = ((entry, getattr(self, entry.name)) for entry in fields(self))
        return {entry.name: value for entry, value in given if value != entry.default}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FaultRule:
        """Read a mapping whose keys are the fields; values may be text.

        Raises:
            FaultPlanError: a key is unknown or a value is of the wrong type.
        """
        types = {entry.name: str(entry.type) for entry in fields(cls)}
        read: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            _check_name("suffix", name, types)
            read[name] = _converted(name, types[name], value)
        if "where" not in read or "kind" not in read:
            raise FaultPlanError("a rule needs where and kind")
        return cls(**read)


def suffixes() -> dict[str, str]:
    """Return the suffixes of a rule, each with its meaning."""
    described: tuple[Field[Any], ...] = fields(FaultRule)
    return {entry.name: entry.metadata["help"] for entry in described if entry.metadata}


def _check_name(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name in names:
        return
    likely = difflib.get_close_matches(name, names, n=1)
    derived = tuple(f"{kind}-{when}" for kind in ANSWERS for when in ("before", "after"))
    listed = ", ".join(sorted(set(names) - set(derived)))
    hint = f"did you mean {likely[0]}?" if likely else f"there are {listed}"
    raise FaultPlanError(f"{name!r} is not a valid {what}; {hint}")


def _converted(name: str, type_name: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        if type_name.startswith("int"):
            return int(value)
        return float(value) if type_name.startswith("float") else str(value)
    except (TypeError, ValueError) as exc:
        raise FaultPlanError(f"{value!r} is not a valid {name}") from exc


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """All rules, and the seed of their dice (None: another one each time)."""

    rules: tuple[FaultRule, ...] = ()
    seed: int | None = 0

    @classmethod
    def from_strings(cls, texts: Iterable[str], *, seed: int | None = 0) -> FaultPlan:
        """Read rules as they stand on a command line.

        Raises:
            FaultPlanError: one of them is not a valid rule.
        """
        return cls(tuple(map(FaultRule.from_text, texts)), seed)

    @classmethod
    def from_mapping(cls, plan: Mapping[str, Any] | Iterable[Any]) -> FaultPlan:
        """Read `{"seed": 1, "rules": [...]}` or just the list; a rule is a text or a mapping.

        Raises:
            FaultPlanError: one of them is not a valid rule.
        """
        seed: Any = 0
        rules: Any = plan
        if isinstance(plan, Mapping):
            if unknown := set(plan) - {"seed", "rules"}:
                raise FaultPlanError(f"a plan has seed and rules, not {sorted(map(str, unknown))}")
            seed, rules = plan.get("seed", 0), plan.get("rules") or ()
        if isinstance(rules, str) or not isinstance(rules, Iterable):
            raise FaultPlanError("rules must be a list")
        return cls(tuple(map(_read_rule, rules)), None if seed is None else int(seed))


def _read_rule(rule: Any) -> FaultRule:
    if isinstance(rule, str):
        return FaultRule.from_text(rule)
    if isinstance(rule, Mapping):
        return FaultRule.from_mapping(rule)
    raise FaultPlanError(f"a rule is a text or a mapping, not {rule!r}")
