"""A bug report can be pasted anywhere: it tells what happened, and no secret."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from batch.cli.bug_report import write_bug_report
from batch.cli.main import main
from batch.errors import ExitCode
from batch.key import Secret


def test_report_holds_no_key_and_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_short_value_of_a_secret_variable_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTIMEOUT", "1")
    report = Path(write_bug_report('File "a.py", line 11'))
    assert "line 11" in report.read_text(encoding="utf-8")
    report.unlink()


def test_report_holds_no_credentials_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://joe:proxy/password@proxy.example:3128")
    secrets = ("proxy/password", "joepassword", "opaque.token", "eyJhbGci.eyJzdWIi.c2ln", "0a1b2c")
    text = (
        "proxy/password http://joe:joepassword@proxy Bearer opaque.token {} X-Amz-Signature=0a1b2c"
    )
    report = Path(write_bug_report(text.format(secrets[3])))
    shown = report.read_text(encoding="utf-8")
    report.unlink()
    assert [secret for secret in secrets if secret in shown] == []


def test_key_of_an_env_file_stays_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole way: the command reads the file, crashes, and writes its report."""
    (tmp_path / ".env").write_text("COMETAPI_KEY=filekey/read/0123456789\n")
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\njobs:\n- {id: a, prompt: b}\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fall(secret: Secret) -> str:
        raise RuntimeError(f"boom {secret.reveal()}")

    monkeypatch.setattr("batch.cli.running.require_key", fall)
    where = ["--env-file", str(tmp_path / ".env"), "--output-dir", str(tmp_path / "out")]
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
