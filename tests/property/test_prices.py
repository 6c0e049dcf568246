"""What jobs cost, whatever their prompts say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from batch.job import Job, canonical_request
from batch.prices import estimate, estimator

TEXTS = st.text(st.sampled_from('",:\\{}prompt mode std pro 10\n\u2028'), max_size=20)
PARTS = st.sampled_from(["prompt", '"prompt":"', '","mode":"pro"', "\\", '"', "a heron"])
PROMPTS = TEXTS | st.lists(PARTS, max_size=4).map("".join)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Return a request whose prompts, and whose own fields, try to look like options."""
    body: dict[str, Any] = {
        "model_name": draw(st.sampled_from(["kling-v2-6", "kling-v3", "kling-v9"])),
        "mode": draw(st.sampled_from(["std", "pro"])),
        "duration": draw(st.sampled_from(["5", "10"])),
        "sound": draw(st.sampled_from(["on", "off"])),
        "prompt": draw(PROMPTS),
    }
    more = st.dictionaries(PROMPTS, PROMPTS | st.integers(0, 3), max_size=2)
    return {**draw(more), **body, "negative_prompt": draw(PROMPTS), "x": draw(more)}


@given(st.lists(bodies(), max_size=4))
def test_price_is_that_of_the_whole_request(found: list[dict[str, Any]]) -> None:
    price = estimator({})
    for body in found:
        expected = estimate(body)
        job = Job("fox", canonical_request(body), "v2:0")
        assert price(job) == (expected.usd, expected.known)
