"""What a worker looks at before it takes the jobs of a run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from batch.engines.house import PostgresHouse
from batch.errors import UsageError
from batch.target import Target


async def test_worker_without_obstore_takes_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could carry out the jobs, but never end the run: whoever waits for that waits for ever."""
    monkeypatch.setattr("batch.target.find_spec", lambda _name: None)
    nothing: Any = None
    house = PostgresHouse(SimpleNamespace(downloads=None), *[nothing] * 4, mailroom=nothing)  # type: ignore[arg-type]
    terms: Any = SimpleNamespace(target=Target("s3://studio"))
    with pytest.raises(UsageError, match="output.target needs the package obstore"):
        async with house.open(nothing, terms, nothing):
            raise AssertionError
