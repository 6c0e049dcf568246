"""The dice: which rule of the plan hits which request."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from batch.sandbox.faults import FaultPlan, FaultRule
from batch.sandbox.kinds import DRESSES
from batch.sandbox.shapes import Dress

_DRESSING = frozenset((*DRESSES, "link"))


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about: an id that counts its requests, the task's number and prompt."""

    key: str
    number: int = 0
    prompt: str = ""


@dataclass(slots=True)
class _Armed:
    """A rule and the requests it has seen so far."""

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
    """Decides, request by request. A replaced plan counts from zero."""

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
            group = self._dresses if rule.kind in _DRESSING else self._faults
            group.setdefault(rule.where, []).append(armed)

    def pick(self, where: str, about: Subject) -> FaultRule | None:
        """Return the rule that hits this request, or None."""
        armed_rules = self._faults.get(where)
        if armed_rules is None:
            return None
        for armed in armed_rules:
            if armed.fires(about):
                self.fired[f"{where}:{armed.rule.kind}"] += 1
                return armed.rule
        return None

    def dress(self, where: str, about: Subject) -> Dress:
        """Return how this answer is wrapped."""
        dress = Dress()
        for armed in self._dresses.get(where, ()):
            if not armed.fires(about):
                continue
            match armed.rule.kind:
                case "numeric-ids":
                    dress = replace(dress, has_numeric_ids=True)
                case "link":
                    dress = replace(dress, link=armed.rule.to or "")
                case _:
                    dress = replace(dress, shape=armed.rule.n or armed.seen % 5 + 1)
        return dress
