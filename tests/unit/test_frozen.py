"""Records of `batch.frozen` are what frozen dataclasses are, but for assignment."""

from __future__ import annotations

from dataclasses import field, replace

from batch.attempt import Doubt, Lost, Unconfirmed
from batch.frozen import frozen
from batch.job import Failure, FailureKind
from batch.provider.answers import Task, TaskStatus

SAID = Failure(FailureKind.PROVIDER, "said so")


@frozen
class Point:
    x: float
    y: float = 0.0
    label: str | None = field(default=None, compare=False)


def test_equal_fields_make_records_equal():
    assert Point(1) == Point(1, 0.0)
    assert hash(Point(1)) == hash(Point(1, 0.0))
    assert Point(1) != Point(2)


def test_fields_left_out_of_comparison_change_nothing():
    assert Point(1, label="a") == Point(1, label="b")
    assert len({Point(1, label="a"), Point(1, label="b")}) == 1


def test_states_of_two_kinds_are_never_equal():
    lost, unconfirmed = Lost(1.0, Doubt(SAID)), Unconfirmed(1.0, Doubt(SAID))
    assert lost != unconfirmed
    assert lost != (1.0, Doubt(SAID))


def test_repr_names_every_field():
    assert repr(Point(1, label="a")) == "Point(x=1, y=0.0, label='a')"


def test_repr_hides_what_it_is_told_to():
    assert "secret" not in repr(Task("8", TaskStatus.SUCCEEDED, url="https://x.example/secret"))


def test_records_are_replaced_and_matched_like_dataclasses():
    match replace(Point(1), y=2.0):
        case Point(x, y=y):
            assert (x, y) == (1, 2.0)
