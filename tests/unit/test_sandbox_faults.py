from __future__ import annotations

from typing import Any

import pytest

from batch.sandbox import FaultPlan, FaultPlanError, FaultRule
from batch.sandbox.dice import FaultInjector, Subject
from batch.sandbox.shapes import Dress


def strikes(rule: str, subjects: list[Subject]) -> list[int]:
    """Return which of the requests were hit, counted from 1."""
    injector = FaultInjector(FaultPlan.from_strings([rule]))
    where = rule.partition(":")[0]
    return [number for number, about in enumerate(subjects, start=1) if injector.pick(where, about)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("submit:drop-after:0.2", FaultRule(where="submit", kind="drop-after", rate=0.2)),
        ("query:500:0.3", FaultRule(where="query", kind="500", rate=0.3)),
        ("download:cut:first=1", FaultRule(where="download", kind="cut", first=1)),
        (
            "submit:429:every=5,retry-after=2",
            FaultRule(where="submit", kind="429", every=5, retry_after=2.0),
        ),
        ("query:shape:5", FaultRule(where="query", kind="shape", n=5)),
        (
            "download:stall:at=0.1:seconds=3",
            FaultRule(where="download", kind="stall", at=0.1, seconds=3.0),
        ),
        (
            "download:redirect:to=http://127.0.0.1:8080/a.mp4:0.5",
            FaultRule(
                where="download", kind="redirect", to="http://127.0.0.1:8080/a.mp4", rate=0.5
            ),
        ),
    ],
)
def test_rule_is_read_from_text_and_mapping(text: str, rule: FaultRule) -> None:
    """As a command line has it; the mapping says the same."""
    mapping = {name: getattr(rule, name) for name in rule.__slots__}

    assert FaultRule.from_text(text) == rule
    assert FaultRule.from_mapping(mapping) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "submit",
        "nowhere:500",
        "submit:cut",
        "query:drop-after",
        "submit:500:rate=2",
        "submit:500:first=one",
        "submit:500:colour=red",
        "query:shape:9",
    ],
)
def test_invalid_rule_is_refused(text: str) -> None:
    """A fault that silently never comes would make a test pass for nothing."""
    with pytest.raises(FaultPlanError):
        FaultRule.from_text(text)


def test_plan_is_read_from_texts_and_mappings() -> None:
    """As YAML or JSON has it."""
    rules = ["query:500:0.5", {"where": "download", "kind": "cut", "per_task": 1}]

    plan = FaultPlan.from_mapping({"seed": 7, "rules": rules})

    assert plan.seed == 7
    assert [rule.kind for rule in plan.rules] == ["500", "cut"]
    assert FaultPlan.from_mapping(rules).rules == plan.rules
    bad_plans: list[Any] = [{"rule": []}, {"rules": "query:500"}, [3]]
    for bad in bad_plans:
        with pytest.raises(FaultPlanError):
            FaultPlan.from_mapping(bad)


@pytest.mark.parametrize(
    ("rule", "hit"),
    [
        ("query:500", [1, 2, 3, 4, 5, 6]),
        ("query:500:first=2", [1, 2]),
        ("query:500:every=3", [3, 6]),
        ("query:500:per_task=1", [1, 2]),
        ("query:500:after=1", [2, 4, 6]),
        ("query:500:until=1", [1, 3, 5]),
        ("query:500:match=*deer*", [2, 4, 6]),
        ("query:500:match=*deer*,first=1", [2]),
        ("query:500:0", []),
    ],
)
def test_conditions_select_requests(rule: str, hit: list[int]) -> None:
    """Two tasks, asked for in turn, three times each."""
    subjects = [Subject("a", 1, "A fox"), Subject("b", 2, "A deer")] * 3

    assert strikes(rule, subjects) == hit


def test_dice_are_repeatable_and_fair() -> None:
    """The same seed hits the same requests."""
    subjects = [Subject("a")] * 1000

    once, again = (strikes("query:500:0.3", subjects) for _ in range(2))

    assert once == again
    assert 230 < len(once) < 370


def test_first_firing_rule_counts_shapes_join_any() -> None:
    """Dressing an answer and spoiling it are two things."""
    texts = ["query:500:first=1", "query:404", "query:shape:3", "query:numeric-ids"]
    injector = FaultInjector(FaultPlan.from_strings(texts))

    hits = [injector.pick("query", Subject("a")) for _ in range(2)]

    assert [hit.kind for hit in hits if hit] == ["500", "404"]
    assert injector.dress("query", Subject("a")) == Dress(3, has_numeric_ids=True)
    assert injector.fired == {"query:500": 1, "query:404": 1}


def test_shape_zero_takes_each_in_turn() -> None:
    """One rule shows a client everything."""
    injector = FaultInjector(FaultPlan.from_strings(["query:shape:0"]))

    shapes = [injector.dress("query", Subject("a")).shape for _ in range(10)]

    assert set(shapes) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("kind", "creates"),
    [
        ("500", False),
        ("500-after", True),
        ("drop-before", False),
        ("drop-after", True),
        ("hang", False),
        ("hang-after", True),
        ("empty-2xx", True),
        ("empty-2xx-before", False),
        ("truncated", True),
        ("429", False),
    ],
)
def test_submission_fault_knows_whether_task_exists(kind: str, creates: bool) -> None:
    """A client cannot see it; a test must know it."""
    assert FaultRule(where="submit", kind=kind).creates is creates
