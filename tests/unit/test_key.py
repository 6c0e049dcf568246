"""The API key: env files as people's tools write them, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from batch.errors import UsageError
from batch.key import find_engine, find_key, require_key

KEY = "sk-example-000000000"


def key_in(file: Path, **environ: str) -> str:
    return require_key(find_key(environ, file, is_needed=True))


@pytest.mark.parametrize(
    "data",
    [
        f"COMETAPI_KEY={KEY}".encode(),
        f'COMETAPI_KEY="{KEY}"   # production\n'.encode(),
        f"COMETAPI_KEY={KEY}\t# production\n".encode(),
        f"export\tCOMETAPI_KEY={KEY}\n".encode(),
        f"  export  COMETAPI_KEY = '{KEY}' \n".encode(),
        f'$env:COMETAPI_KEY = "{KEY}"\r\n'.encode(),
        f"set COMETAPI_KEY={KEY}\r\n".encode(),
        f"COMETAPI_KEY={KEY}\r\n".encode("utf-16"),
        b"\xfe\xff" + f"COMETAPI_KEY={KEY}\n".encode("utf-16-be"),
        f"COMETAPI_KEY={KEY}\n".encode("utf-8-sig"),
        b"# cl\xe9\n" + f"COMETAPI_KEY={KEY}\n".encode(),
        f"COMETAPI_KEY=sk-old-000\nCOMETAPI_KEY={KEY}\n".encode(),
        f"#COMETAPI_KEY=sk-old-000\nPEM='-----BEGIN\nMII==\n'\nCOMETAPI_KEY={KEY}\n".encode(),
        f"COMETAPI_KEY={KEY}\n# COMETAPI_KEY=sk-old-000\n".encode(),
        b"COMETAPI_KEY=${STUDIO_KEY}\n",
        b'COMETAPI_KEY="$STUDIO_KEY"\n',
        b"COMETAPI_KEY=sk-${PART}-000000000 # ours\n",
        f"OTHER={KEY}\nCOMETAPI_KEY=${{OTHER}}\n".encode(),
        f"COMETAPI_KEY=${{OTHER:-{KEY}}}\n".encode(),
    ],
)
def test_env_file_is_understood(data: bytes, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(data)
    assert key_in(tmp_path / ".env", STUDIO_KEY=KEY, PART="example") == KEY


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("COMETAPI_KEY=${MISSING}", r":1: .*refers to the variable MISSING, which is not set"),
        ("COMETAPI_KEY=${COMETAPI_KEY}", r":1: .*variable COMETAPI_KEY, which is not set"),
        ("COMETAPI_KEY='$STUDIO_KEY'", r":1: .*or a \$"),
        (f"# mine\nCOMETAPI_KEY='{KEY}", r":2: .*its quotes do not end"),
        (f'COMETAPI_KEY="{KEY}"x', r":1: .*there is something behind them"),
        (f"COMETAPI_KEY={KEY} more", r":1: .*it holds blanks"),
        ("COMETAPI_KEY=sk-…", r":1: .*special characters"),
        ("COMETAPI_KEY=<your-key>", r":1: .*a bracket"),
        ("COMETAPI_KEY=$(pass comet)", r":1: .*is not a valid key"),
        ("COMETAPI_KEY=", r":1: COMETAPI_KEY is not a valid key: it is empty"),
        ("COMETAPI_KEY=  # todo", r":1: .*it is empty"),
        (f"COMETAPI_KEY: {KEY}", r":1: there is no = behind COMETAPI_KEY"),
        (f"COMET_API_KEY={KEY}", r"holds no line COMETAPI_KEY=…; it holds COMET_API_KEY"),
        (KEY, "holds no line COMETAPI_KEY=…$"),
        ("", "holds no line COMETAPI_KEY=…$"),
        (f"COMETAPI_KEY={KEY}\0", "is not a text in UTF-8 or UTF-16"),
    ],
)
def test_fault_of_env_file_has_its_place(text: str, reason: str, tmp_path: Path) -> None:
    """The value is not printed."""
    file = tmp_path / ".env"
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=reason) as caught:
        key_in(file, STUDIO_KEY=KEY)
    assert str(file) in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.line in {None, 1, 2}


def test_torn_utf_16_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(f"COMETAPI_KEY={KEY}".encode("utf-16")[:-1])
    with pytest.raises(UsageError, match="is not a text in UTF-8 or UTF-16"):
        key_in(tmp_path / ".env")


@pytest.mark.parametrize("is_needed", [True, False])
def test_missing_env_file_is_told(tmp_path: Path, is_needed: bool) -> None:
    for environ in ({}, {"COMETAPI_KEY": KEY}):
        with pytest.raises(UsageError, match=r"missing\.env cannot be read: No such file"):
            find_key(environ, tmp_path / "missing.env", is_needed=is_needed)


@pytest.mark.parametrize(
    "value", [KEY, f'"{KEY}"', f"'{KEY}' # note", f"{KEY}  # note", f"{KEY}\r"]
)
def test_environment_may_hold_what_docker_kept(value: str, tmp_path: Path) -> None:
    """`docker --env-file` takes a line as it stands; a faulty file is not needed then."""
    (tmp_path / ".env").write_text("COMETAPI_KEY=\n", "utf-8")
    assert key_in(tmp_path / ".env", COMETAPI_KEY=value) == KEY


@pytest.mark.parametrize("value", ["${KEY}", '"sk-0', "sk 0", "sk-…", "<key>"])
def test_invalid_key_is_refused_unseen(value: str) -> None:
    with pytest.raises(UsageError, match="COMETAPI_KEY is not a valid key: it holds") as caught:
        require_key(find_key({"COMETAPI_KEY": value}, None, is_needed=True))
    assert value not in str(caught.value)


URL = "postgresql://kling:ge#heim@db.example/kling"


@pytest.mark.parametrize(
    ("text", "environ", "found"),
    [
        (f"KLING_BATCH_ENGINE={URL}", {}, URL),
        (f"KLING_BATCH_ENGINE='{URL}' # ours", {}, URL),
        (f"KLING_BATCH_ENGINE=old\nCOMETAPI_KEY={KEY}\nexport KLING_BATCH_ENGINE={URL}\n", {}, URL),
        ("PW=ge#heim\nKLING_BATCH_ENGINE=postgresql://kling:${PW}@db.example/kling\n", {}, URL),
        ("KLING_BATCH_ENGINE=old", {"KLING_BATCH_ENGINE": URL}, URL),
        ("", {"KLING_BATCH_ENGINE": f'"{URL}"'}, URL),
        (f"COMETAPI_KEY={KEY}", {}, ""),
        ("", {"KLING_BATCH_ENGINE": " "}, ""),
    ],
)
def test_engine_is_found_like_the_key(
    text: str, environ: dict[str, str], found: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(text, "utf-8")
    engine = find_engine(environ, tmp_path / ".env")
    assert engine.reveal() == found
    assert bool(engine) == bool(found)
    assert URL not in repr(engine)


def test_fault_of_the_engine_has_its_place(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nKLING_BATCH_ENGINE='postgresql://geheim", "utf-8")
    with pytest.raises(UsageError, match=r"\.env:2: KLING_BATCH_ENGINE cannot be read") as caught:
        find_engine({}, tmp_path / ".env")
    assert "geheim" not in str(caught.value)
