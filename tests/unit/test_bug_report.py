"""A bug report can be pasted anywhere: it tells what happened, and no secret."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from batch.cli.bug_report import write_bug_report
from batch.cli.main import main
from batch.errors import ExitCode
from batch.job import STATE_FOLDER
from batch.manifest import cache as memory
from batch.manifest.reader import load
from batch.settings import Settings


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


@pytest.mark.parametrize("key", ["filekey/read/0123456789", "filekey/remembered/0123456789"])
def test_a_key_from_an_env_file_stands_in_no_report(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: the command reads the file, falls over, and writes its report.

    On a night that reads its manifest, and on one that remembers it; each with a key of its own.
    """
    (tmp_path / ".env").write_text(f"COMETAPI_KEY={key}\n")
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\njobs:\n- {id: a, prompt: b}\n")
    output_dir = tmp_path / "out"
    if "remembered" in key:
        (output_dir / STATE_FOLDER).mkdir(parents=True)
        memory.remember(output_dir / STATE_FOLDER, load(manifest))
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


def test_a_report_that_cannot_be_written_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    assert write_bug_report("boom") == "the lines above"
    assert "boom" in capsys.readouterr().err
