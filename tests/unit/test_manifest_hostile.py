"""Hostile files: each gives a ManifestError, and quickly."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batch.manifest.reader
import batch.manifest.text_files
import batch.manifest.yaml_events
from batch.errors import ManifestError, Problem
from batch.job import canonical_request
from batch.manifest.findings import Findings, Unreadable
from batch.manifest.model import Manifest
from batch.manifest.nodes import Spot
from batch.manifest.reader import load
from batch.manifest.schema import CALLBACK_KEYS, JOB_KEYS, ROOT_KEYS
from batch.manifest.text_files import read_file
from batch.manifest.yaml_events import YamlReader

HEAD = b"version: 1\njobs:\n  - id: a\n    prompt: x\n    extra:\n      x: "
BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)
)
MERGE_BOMB = b"a0: &a0 {a: b}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 10)
)


def problems(path: Path, data: bytes) -> list[Problem]:
    path.write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        load(path)
    return caught.value.problems


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEAD + b"[" * 100_000, "nested more than 32 levels deep"),
        (HEAD + b"{a: " * 100_000, "nested more than 32 levels deep"),
        (HEAD + b"[\n       " * 20_000, "nested more than 32 levels deep"),
        (HEAD + b"\n       " + b"- " * 100_000, "nested more than 32 levels deep"),
        (b"[" * 100_000, "a manifest is a mapping"),
        (b"? " * 100_000, "nested more than 32 levels deep"),
        (b"a: [" + b"[" * 100_000, "nested more than 32 levels deep"),
        (b"\n".join(b" " * n + b"a:" for n in range(2_000)), "nested more than 32 levels deep"),
        (HEAD + b"'" + b"x" * 1_000_000, "not valid YAML"),
        (HEAD + b"&a " * 10_000, "not valid YAML"),
        (BOMB, "(alias bomb)"),
        (b"x-a: &a [" + b"x, " * 9_000 + b"x]\nx-b: [" + b"*a, " * 100_000 + b"]", "(alias bomb)"),
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"---\n", "a manifest is a mapping"),
        (b"\xff\xfej\x00", "the file is UTF-16"),
        (b"version: 1\njobs: \xe9", "the file is not UTF-8"),
        (b"version: 1\njobs: \xed\xa0\x80", "the file is not UTF-8"),
        (b"version: 1\n\x00", "a control character (U+0000)"),
        (b"version: 1\n\x1b[31m", "a control character (U+001B)"),
        ("version: 1\n# a\u2028b".encode(), "a control character (U+2028)"),
        ("version: 1\n# a\u0085b".encode(), "a control character (U+0085)"),
        (b"a: '" + b"an open [ " * 40 + b"'\nb: c: d", "not valid YAML"),
        (b"%YAML 3.0\n---\na: b", "not valid YAML"),
        (b"%TAG ! !\n%TAG ! !\n---\na: b", "not valid YAML"),
    ],
)
def test_hostile_file_is_refused_quickly(tmp_path: Path, data: bytes, message: str) -> None:
    start = time.process_time()
    found = problems(tmp_path / "m.yaml", data)

    assert any(message in problem.message for problem in found)
    assert time.process_time() - start < 1.5
    assert all(str(problem).isprintable() for problem in found)


def test_invalid_utf8_is_reported_with_its_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "m.yaml", "version: 1\n# ü\xfc ".encode() + b"\xff")

    assert (problem.line, problem.column) == (2, 6)


def test_invalid_utf8_across_chunks_has_its_place(tmp_path: Path) -> None:
    """The check decodes a MiB at a time; a character may lie across two of them."""
    path = tmp_path / "m.yaml"
    fine = b"#" * ((1 << 20) - 1) + "é".encode() + b"\nversion: 1\njobs: [{id: a, prompt: x}]"
    path.write_bytes(fine)
    assert load(path).name == "m"

    (problem,) = problems(path, b"\n#" + b"#" * ((1 << 20) - 3) + b"\xc3(")
    assert (problem.line, problem.column) == (2, (1 << 20) - 1)


def test_file_above_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.manifest.text_files, "MAX_BYTES", 1 << 20)
    path = tmp_path / "m.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(Unreadable, match="larger than 1 MiB"):
        read_file(path, "m.yaml", Spot("m.yaml"))


def test_small_file_needs_little_memory(tmp_path: Path) -> None:
    """The bound is not set aside before it is known how large the file is."""
    path = tmp_path / "m.yaml"
    path.write_bytes(b"#" * 1000)
    tracemalloc.start()
    try:
        assert read_file(path, "m.yaml", Spot("m.yaml")) == b"#" * 1000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_repeated_merges_are_not_an_alias_bomb(tmp_path: Path) -> None:
    """Equal keys stay one key, however often they are merged."""
    path = tmp_path / "m.yaml"
    path.write_bytes(
        b"version: 1\njobs: [{id: a, prompt: x}]\n" + MERGE_BOMB.replace(b"a0:", b"x-0:")
    )
    with pytest.raises(ManifestError) as caught:
        load(path)

    assert {problem.message.split()[0] for problem in caught.value.problems} == {"unknown"}


def test_faults_beyond_ten_thousand_are_counted(tmp_path: Path) -> None:
    data = b"version: 1\njobs:\n" + b"- 5\n" * 10_500
    found = problems(tmp_path / "m.yaml", data)

    assert len(found) == 10_001
    assert any(problem.message == "500 further faults not listed" for problem in found)


def test_control_characters_in_names_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m\n.yaml"
    (problem, *_) = problems(path, b'version: 1\n"\\e]0;x\\a": 1\nprices: {"a\\nb": x}\njobs: []')

    assert str(problem).isprintable()


def test_slow_parser_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libyaml a manifest means the same, and positions agree."""
    data = Path(__file__).parents[2].joinpath("jobs/example.yaml").read_bytes()

    def nodes(parser: type | None) -> list[str]:
        monkeypatch.setattr(batch.manifest.yaml_events, "FAST_PARSER", parser)
        reader = YamlReader(data, "f", Findings())
        return [repr((key, value)) for key, value in reader.root("nothing is streamed")]

    assert nodes(yaml.CBaseLoader) == nodes(None)


def test_slow_parser_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch.manifest.yaml_events, "FAST_PARSER", None)
    monkeypatch.setattr(batch.manifest.reader, "FAST_PARSER", None)
    path = tmp_path / "m.yaml"
    path.write_text("version: 1\njobs: [{id: a, prompt: x}]")

    assert "ten times as long" in load(path).warnings[0].message


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "m.yaml"


def is_manifest_or_error(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    found: list[Problem] = []
    manifest: Manifest | None = None
    try:
        manifest = load(path)
    except ManifestError as exc:
        found = exc.problems
    assert (manifest is None) == bool(found)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in found)
    assert all(str(problem).isprintable() for problem in found)
    if manifest is not None:
        assert all(job.request == canonical_request(job.body()) for job in manifest.jobs)
        assert len({job.id.casefold() for job in manifest.jobs}) == len(manifest.jobs)


KEYS = st.sampled_from(
    [
        *ROOT_KEYS,
        *JOB_KEYS,
        *CALLBACK_KEYS,
        "submit_rate",
        "budget",
        "type",
        "config",
        "zoom",
        "<<",
        "kling-v3",
        "std",
        "x-a",
    ]
)
SCALARS = (
    st.text(max_size=8)
    | st.integers(-3, 20)
    | st.floats(-2, 2)
    | st.booleans()
    | st.none()
    | st.sampled_from(
        ["on", "16:9", "{a}", "simple", "kling-v3", "5", "60/min", "5s", "r.csv", "std", "a/b"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner),
    max_leaves=25,
)
JOBS = st.lists(st.dictionaries(KEYS, VALUES, max_size=8), max_size=4)


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace"))
)
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_any_bytes_give_a_manifest_or_an_error(scratch: Path, data: bytes) -> None:
    is_manifest_or_error(scratch, data)


@given(st.dictionaries(KEYS, VALUES, max_size=6), JOBS)
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
def test_any_tree_gives_a_manifest_or_an_error(
    scratch: Path, root: dict[str, object], jobs: object
) -> None:
    text = yaml.safe_dump({"version": 1, **root, "jobs": jobs}, allow_unicode=True)
    is_manifest_or_error(scratch, text.encode(errors="replace"))


@given(
    st.fixed_dictionaries(
        {"id": st.text(max_size=12), "prompt": st.text(max_size=40)},
        optional={
            "matrix": st.dictionaries(
                st.text("ab{", max_size=2), st.lists(SCALARS, max_size=3), max_size=2
            ),
            "count": st.integers(0, 3),
            "extra": VALUES,
            "tags": VALUES,
        },
    )
)
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_any_row_gives_a_job_or_an_error(scratch: Path, row: dict[str, object]) -> None:
    rows = scratch.with_name("rows.jsonl")
    rows.write_text(json.dumps(row))
    is_manifest_or_error(scratch, b"version: 1\njobs: [{from: rows.jsonl}]")


@given(
    st.text(
        st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"),
        min_size=1,
    )
)
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_any_prompt_is_sent_as_written(scratch: Path, prompt: str) -> None:
    if not prompt.strip() or len(prompt) > 500:
        prompt = f"x{prompt[:400]}"
    scratch.write_text(
        f"version: 1\njobs: [{{id: a, prompt: {json.dumps(prompt, ensure_ascii=False)}}}]",
        encoding="utf-8",
    )
    if "\ufffe" in prompt or "\uffff" in prompt:
        with pytest.raises(ManifestError):
            load(scratch)
    else:
        assert load(scratch).jobs[0].body()["prompt"] == prompt
