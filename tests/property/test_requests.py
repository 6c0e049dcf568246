"""Requests that are filled into a form are those that would be written one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batch.job import canonical_request
from batch.manifest.requests import RequestForm

MARKS = st.sampled_from(["\0prompt", "\0negative prompt", "\0", "\\u0000prompt", '"', "a heron"])
TEXTS = MARKS | st.text(max_size=12)


@given(
    options=st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(TEXTS, max_size=2), max_size=3),
    prompts=st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS), max_size=4),
)
def test_filled_request_is_the_canonical_one(
    options: dict[str, Any], prompts: list[tuple[str | None, str | None]]
) -> None:
    body = {"model_name": "kling-v2-6", "sound": "on", **options}
    form = RequestForm(body)
    for prompt, negative in prompts:
        given_prompts = {} if prompt is None else {"prompt": prompt}
        given_negative = {"negative_prompt": negative} if negative else {}
        expected = canonical_request({**body, **given_prompts, **given_negative})
        assert form.fill(prompt, negative) == expected
