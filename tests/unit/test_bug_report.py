"""A bug report can be pasted anywhere: it tells what happened, and no secret."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from batch.bug_report import write_bug_report


def test_no_key_and_no_signature_stands_in_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "a-key-of-somebody")
    where = Path(
        write_bug_report("boom a-key-of-somebody sk-abcdefgh https://cdn.example/v.mp4?sig=1")
    )
    text = where.read_text(encoding="utf-8")
    where.unlink()
    assert "boom" in text
    assert "https://cdn.example/v.mp4" in text
    for secret in ("a-key-of-somebody", "sk-abcdefgh", "sig=1"):
        assert secret not in text


def test_a_report_that_cannot_be_written_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert write_bug_report("boom") == "the lines above"
    assert "boom" in capsys.readouterr().err
