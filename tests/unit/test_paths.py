"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.paths import expand_path


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ida")
    monkeypatch.setenv("DISK", "/mnt/disk")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("TORN", "/mnt/disk\r")
    monkeypatch.delenv("NOPE", raising=False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/loops", "/home/ida/loops"),
        ("~", "/home/ida"),
        ("$HOME/loops", "/home/ida/loops"),
        ("${DISK}loops/$DISK", "/mnt/diskloops/mnt/disk"),
        ("./~loops", "~loops"),
        ("a~/b~", "a~/b~"),
        ("5$/a$", "5$/a$"),
        ("../two words/Müller", "../two words/Müller"),
    ],
)
def test_path_is_expanded(text: str, path: str) -> None:
    assert expand_path(text) == Path(path)


def test_home_of_a_user_is_known() -> None:
    assert expand_path("~root/loops").is_absolute()
    assert expand_path("~root/loops").name == "loops"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$NOPE/loops", r"holds \$NOPE, but this variable is not set"),
        ("${EMPTY}/loops", r"holds \$EMPTY, but this variable is not set"),
        ("${NOPE", "names no variable"),
        ("${}", "names no variable"),
        ("${a b}", "names no variable"),
        ("~nobody-here/loops", "whose home is not known; for a file of that name write ./~nobody"),
        ("a/~/b", "holds a folder ~"),
        ("./~", "holds a folder ~"),
        ("loops\r", r"holds a control character \(U\+000D\)"),
        ("lo\nops", r"holds a control character \(U\+000A\)"),
        ("$TORN/loops", r"holds a control character \(U\+000D\)"),
        ("", "is empty"),
        ("  ", "is empty"),
    ],
)
def test_path_that_names_nothing_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        expand_path(text)


def test_empty_home_is_not_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")

    with pytest.raises(ValueError, match="begins with ~, whose home is not known"):
        expand_path("~/loops")
