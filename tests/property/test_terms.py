"""What is handed over to workers is read as it was written."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.engines.codec import UnknownValueError, from_json, to_json
from batch.engines.terms import Terms
from batch.job import Job
from batch.library.accounts import Figures
from batch.manifest.limits import Limits, Rate
from batch.manifest.model import Derived
from batch.plan import Action, Decision, Policy, Selection
from batch.settings import Receiver
from batch.target import Target

texts = st.text(max_size=8)
TYPES = (Limits, Policy, Derived, Receiver, Target, Figures, Decision, Terms, Rate, Selection, Job)
for kind in TYPES:  # numbers that JSON can hold, and texts that are not long
    assert dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@given(st.from_type(Limits), st.from_type(Policy), st.from_type(Figures))
def test_terms_survive_json(limits: Limits, policy: Policy, before: Figures) -> None:
    terms = Terms("night", "night.yaml", limits, policy, before=before, resting=(("a", "b"),))
    assert from_json(Terms, json.loads(terms.written())) == terms


@given(
    st.builds(Decision, st.sampled_from(Action), texts, texts, job=st.none() | st.from_type(Job))
)
def test_decision_survives_sparse_json(decision: Decision) -> None:
    written = json.dumps(to_json(decision, is_sparse=True))
    assert from_json(Decision, json.loads(written)) == decision


def test_job_is_handed_over_with_names() -> None:
    """Another release reads it, which may know more fields."""
    written = to_json(Job("a", "{}", "v2:0", tags=("x",)), is_sparse=True)
    assert written == {"id": "a", "request": "{}", "fingerprint": "v2:0", "tags": ["x"]}


def test_limit_of_newer_release_is_refused() -> None:
    with pytest.raises(UnknownValueError):
        from_json(Limits, {**to_json(Limits()), "budget_per_year_usd": 5.0})
