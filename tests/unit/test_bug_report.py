"""A bug report can be pasted anywhere: it says what happened, and holds no secret."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from batch.cli.bug_report import write_bug_report
from batch.cli.main import main
from batch.errors import ExitCode
from batch.settings import Settings


def test_report_redacts_keys_and_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_report_redacts_key_from_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: the command reads the file, meets a bug, and writes its report."""
    (tmp_path / ".env").write_text("COMETAPI_KEY=filekey/read/0123456789\n")
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\njobs:\n- {id: a, prompt: b}\n")
    output_dir = tmp_path / "out"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fall(settings: Settings) -> str:
        raise RuntimeError(f"boom {settings.api_key.reveal()}")

    monkeypatch.setattr("batch.cli.commands.run.require_key", fall)
    where = ["--env-file", str(tmp_path / ".env"), "--output-dir", str(output_dir)]
    assert main(["run", str(manifest), *where]) == ExitCode.BUG
    (report,) = tmp_path.glob("kling-batch-bug-*.txt")
    text = report.read_text(encoding="utf-8") + capsys.readouterr().err
    assert "boom (secret)" in text
    assert "filekey" not in text


def test_unwritable_report_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert write_bug_report("boom") == "the lines above"
    assert "boom" in capsys.readouterr().err
