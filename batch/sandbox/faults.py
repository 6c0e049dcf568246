"""What goes wrong on request: the fault plan, and the dice that decide when.

A rule names a place, a kind, and when. As text, for a command line: `submit:drop-after:0.2`,
`query:500:0.3`, `download:cut:first=1`, `submit:429:every=5,retry-after=2`, `query:shape:5`.
As a mapping: `{"where": "download", "kind": "cut", "per_task": 1, "at": 0.5}`.

The first rule of a place that fires is the one that counts; `shape` and `numeric-ids` only dress an
answer and go together with any other.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

CANNED_KINDS = frozenset(
    (
        *("1000", "1001", "1002", "1003", "1004", "401", "1100", "1101", "1102", "1103", "1200"),
        *("1201", "1203", "1300", "1301", "1302", "429", "1303", "1304", "5000", "5001", "5002"),
        *("500", "500-invalid", "502", "502-html", "503", "504", "524", "waf", "quota"),
        *("insufficient_user_quota", "404", "task_not_exist", "new-api-1303", "301", "404-html"),
        *("empty-2xx", "garbled-2xx", "html-2xx"),
    )
)
DRESS_KINDS = frozenset(("shape", "numeric-ids"))
_CONNECTION_KINDS = frozenset(("drop", "hang", "truncated", "slow"))
_READ_KINDS = CANNED_KINDS | DRESS_KINDS | _CONNECTION_KINDS
_SUBMIT_PLAIN = CANNED_KINDS | _CONNECTION_KINDS
# These say that something was created, so it was, unless the rule says `-before`.
_CREATES = frozenset(("empty-2xx", "garbled-2xx", "html-2xx", "truncated", "slow"))

KINDS: dict[str, frozenset[str]] = {
    "submit": DRESS_KINDS
    | _SUBMIT_PLAIN
    | {f"{kind}-{when}" for kind in _SUBMIT_PLAIN for when in ("before", "after")},
    "query": _READ_KINDS | {"unknown-status", "backwards", "no-url", "failed"},
    "lookup": _READ_KINDS | {"unknown-status", "backwards", "no-url", "failed"},
    "list": _READ_KINDS,
    "outcome": frozenset(("moderation", "generation", "empty-failure", "stuck")),
    "download": frozenset(
        (
            *("cut", "stall", "500", "503", "403", "404", "html-200", "empty-200", "no-range"),
            *("no-length", "etag-changes", "wrong-offset", "416", "slow", "zero-filled"),
            *("truncated-file", "wrong-ratio", "wrong-duration", "redirect", "redirect-evil"),
            *("drop", "hang"),
        )
    ),
    "callback": frozenset(("late", "twice", "out-of-order", "forged", "wrong-path", "never")),
}


# A comma, or a colon before the next option; others belong to a value, say to an address.
_BETWEEN_OPTIONS = re.compile(r",|:(?=[a-z_ ]+=|[\d.]+(?:[:,]|$))")


class FaultPlanError(ValueError):
    """A rule that cannot be understood; the message lists what could have been meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """One thing that goes wrong, and when. All conditions must hold.

    Attributes:
        where: submit, query, lookup, list, outcome, download or callback.
        kind: see `KINDS`. For submit, `-after` means that the task is created all the same.
        rate: probability, 0..1, rolled last.
        first: only the first n requests (of this place, that match).
        per_task: only the first n requests of each task (for submit: of each external id).
        every: only each n-th request.
        after: only tasks with a number above this (tasks count from 1).
        until: only tasks with a number up to this.
        match: only tasks whose prompt matches this glob.
        seconds: how long it hangs or stalls (default an hour), is slow (2) or late (5).
        at: where in the file or the body, 0..1.
        n: which of the five shapes (0: each in turn).
        bytes_per_s: how slow.
        retry_after: value of a Retry-After header, seconds.
        message: text of a failure.
        to: where a redirect leads.
    """

    where: str
    kind: str
    rate: float = 1.0
    first: int | None = None
    per_task: int | None = None
    every: int | None = None
    after: int | None = None
    until: int | None = None
    match: str | None = None
    seconds: float | None = None
    at: float = 0.5
    n: int = 1
    bytes_per_s: int = 64_000
    retry_after: float | None = None
    message: str | None = None
    to: str | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that would silently do nothing."""
        if self.where not in KINDS:
            raise FaultPlanError(f"no place {self.where!r}; there are {', '.join(KINDS)}")
        if self.kind not in KINDS[self.where]:
            known = ", ".join(sorted(k for k in KINDS[self.where] if not _is_derived(k)))
            raise FaultPlanError(f"{self.where} has no fault {self.kind!r}; it has {known}")
        if not 0 <= self.rate <= 1 or not 0 <= self.at <= 1 or not 0 <= self.n <= 5:
            raise FaultPlanError("rate and at are 0..1, n is 0..5")

    def lasts(self, default_s: float) -> float:
        """Return `seconds`, or what is usual for the kind."""
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
        return self.base_kind in _CREATES and not self.kind.endswith("-before")

    @classmethod
    def from_text(cls, text: str) -> FaultRule:
        """Read `where:kind[:option[,option]]`; an option is `name=value` or a bare rate.

        Raises:
            FaultPlanError: the text makes no rule.
        """
        where, _, rest = text.strip().partition(":")
        kind, _, options = rest.partition(":")
        values: dict[str, Any] = {"where": where, "kind": kind}
        for option in filter(None, _BETWEEN_OPTIONS.split(options)):
            name, is_named, value = option.partition("=")
            if not is_named:
                name, value = ("n" if kind == "shape" else "rate"), option
            values[name.strip()] = value.strip()
        return cls.from_mapping(values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FaultRule:
        """Read a mapping whose keys are the attributes; values may be text.

        Raises:
            FaultPlanError: a key is unknown or a value is of the wrong type.
        """
        types = {entry.name: str(entry.type) for entry in fields(cls)}
        read: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name not in types:
                raise FaultPlanError(f"no option {key!r}; there are {', '.join(types)}")
            read[name] = _converted(name, types[name], value)
        if "where" not in read or "kind" not in read:
            raise FaultPlanError("a rule needs where and kind")
        return cls(**read)


def _is_derived(kind: str) -> bool:
    return kind.endswith(("-before", "-after")) and not kind.startswith("drop")


def _converted(name: str, type_name: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        if type_name.startswith("int"):
            return int(value)
        return float(value) if type_name.startswith("float") else str(value)
    except (TypeError, ValueError) as exc:
        raise FaultPlanError(f"{name} cannot be {value!r}") from exc


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """All rules, and the seed of their dice (None: another one each time)."""

    rules: tuple[FaultRule, ...] = ()
    seed: int | None = 0

    @classmethod
    def from_strings(cls, texts: Iterable[str], *, seed: int | None = 0) -> FaultPlan:
        """Read rules as they stand on a command line.

        Raises:
            FaultPlanError: one of them makes no rule.
        """
        return cls(tuple(map(FaultRule.from_text, texts)), seed)

    @classmethod
    def from_mapping(cls, plan: Mapping[str, Any] | Iterable[Any]) -> FaultPlan:
        """Read `{"seed": 1, "rules": [...]}` or just the list; a rule is a text or a mapping.

        Raises:
            FaultPlanError: one of them makes no rule.
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


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about, as far as rules ask: whose it is, the task's number and prompt."""

    key: str
    number: int = 0
    prompt: str = ""


@dataclass(slots=True)
class _Armed:
    """A rule and what it has seen so far."""

    rule: FaultRule
    dice: random.Random
    seen: int = 0
    per_key: Counter[str] = field(default_factory=Counter)

    def fires(self, about: Subject) -> bool:
        rule = self.rule
        if rule.match is not None and not fnmatchcase(about.prompt, rule.match):
            return False
        if rule.after is not None and about.number <= rule.after:
            return False
        if rule.until is not None and about.number > rule.until:
            return False
        self.seen += 1
        if rule.per_task is not None:
            self.per_key[about.key] += 1
            if self.per_key[about.key] > rule.per_task:
                return False
        if rule.first is not None and self.seen > rule.first:
            return False
        if rule.every is not None and self.seen % rule.every:
            return False
        return rule.rate >= 1 or self.dice.random() < rule.rate


class FaultInjector:
    """Decides, request by request. The plan can be replaced at any time; counting starts anew."""

    def __init__(self, plan: FaultPlan) -> None:
        self.fired: Counter[str] = Counter()
        self.replace(plan)

    def replace(self, plan: FaultPlan) -> None:
        """Follow another plan from now on."""
        self.plan = plan
        self._faults: dict[str, list[_Armed]] = {}
        self._dresses: dict[str, list[_Armed]] = {}
        for number, rule in enumerate(plan.rules):
            seed = None if plan.seed is None else f"{plan.seed}:{number}"
            armed = _Armed(rule, random.Random(seed))  # noqa: S311 - dice, no secret
            group = self._dresses if rule.kind in DRESS_KINDS else self._faults
            group.setdefault(rule.where, []).append(armed)

    def pick(self, where: str, about: Subject) -> FaultRule | None:
        """Return the rule that hits this request, if one does."""
        armed_rules = self._faults.get(where)
        if armed_rules is None:
            return None
        for armed in armed_rules:
            if armed.fires(about):
                self.fired[f"{where}:{armed.rule.kind}"] += 1
                return armed.rule
        return None

    def dress(self, where: str, about: Subject) -> tuple[int, bool]:
        """Return the shape (1..5) that this answer comes in, and whether ids are numbers."""
        shape, is_numeric = 1, False
        for armed in self._dresses.get(where, ()):
            if not armed.fires(about):
                continue
            if armed.rule.kind == "numeric-ids":
                is_numeric = True
            else:
                shape = armed.rule.n or armed.seen % 5 + 1
        return shape, is_numeric
