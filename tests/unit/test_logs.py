"""The log's lines, in a surrounding that Python does not like."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from batch.cli.logs import JsonFormatter, TextFormatter


@pytest.fixture(params=["AAA-99", "AAA+167", "Nowhere/Here", ""])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_line_is_written_in_any_time_zone() -> None:
    """More than a day off is a zone for the system, and none for Python."""
    record = logging.LogRecord("batch", logging.INFO, "", 0, "a: made", (), None)
    record.created = 1_800_000_000.0
    assert TextFormatter().format(record) == time.strftime(
        "%H:%M:%S a: made", time.localtime(record.created)
    )
    assert '"time": "2027-01-15T08:00:00.000Z"' in JsonFormatter().format(record)
