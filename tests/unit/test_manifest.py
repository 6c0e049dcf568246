"""Valid manifests: inheritance, matrix, variants, texts as written."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batch.errors import ManifestError
from batch.job import canonical_request, fingerprint
from batch.manifest.limits import DEFAULT_LIMITS, Limits, Rate
from batch.manifest.model import Callback, Manifest
from batch.manifest.reader import load

Read = Callable[[str], Manifest]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a manifest and load it; `version: 1` is its first line."""

    def read(text: str) -> Manifest:
        path = tmp_path / "night.yaml"
        path.write_text(f"version: 1\n{text}", encoding="utf-8")
        return load(path)

    return read


def test_documented_manifest_loads(read: Read) -> None:
    """Jobs, requests, limits and warnings of the documented example."""
    manifest = read(
        """
name: nature-loops
defaults:
  model: kling-v2-6
  mode: std
  duration: 5
  aspect_ratio: 16:9
limits:
  submit_rate: 60/min
  task_timeout: 30m
  deadline: 5h
  budget: 25.00
jobs:
  - id: beach
    prompt: A happy scene of a vacation on the beach.
  - id: "{animal}-{light}"
    prompt: "A {animal} walks through tall grass, {light} light"
    negative_prompt: text, watermark
    matrix: {animal: [fox, deer], light: [morning, evening]}
    tags: [nature]
  - id: city
    prompt: A city at night
    model: kling-v3
    sound: on
    camera_control: {type: simple, config: {zoom: 5}}
    count: 3
"""
    )

    assert manifest.name == "nature-loops"
    assert [job.id for job in manifest.jobs] == [
        "beach",
        "fox-morning",
        "fox-evening",
        "deer-morning",
        "deer-evening",
        "city-1",
        "city-2",
        "city-3",
    ]
    assert manifest.jobs[0].body() == {
        "model_name": "kling-v2-6",
        "mode": "std",
        "duration": "5",
        "aspect_ratio": "16:9",
        "prompt": "A happy scene of a vacation on the beach.",
    }
    assert manifest.jobs[1].body()["prompt"] == "A fox walks through tall grass, morning light"
    assert manifest.jobs[1].tags == ("nature",)
    city = manifest.jobs[5]
    assert city.body()["sound"] == "on"
    assert city.body()["camera_control"] == {"type": "simple", "config": {"zoom": 5}}
    assert manifest.limits.deadline_s == 5 * 3600
    assert manifest.limits.budget_usd == 25
    assert [str(warning).split(": ", 2)[1] for warning in manifest.warnings] == ["job 'city-1'"]


def test_defaults_are_sent_explicitly() -> None:
    """Defaults are written out, so that a change of the provider's changes no video."""
    body = load(REPOSITORY / "jobs/demo.yaml").jobs[0].body()

    assert body.keys() == {
        "model_name",
        "mode",
        "duration",
        "aspect_ratio",
        "prompt",
        "negative_prompt",
    }


@pytest.mark.parametrize("name", ["demo", "example"])
def test_repository_manifests_load_without_warnings(name: str) -> None:
    manifest = load(REPOSITORY / f"jobs/{name}.yaml")

    assert manifest.name == name
    assert manifest.warnings == ()
    assert len(manifest.jobs) >= 6


def test_fingerprint_covers_canonical_request_and_variant(read: Read) -> None:
    manifest = read("jobs: [{id: a, prompt: Ünïcode, count: 2}, {id: b, prompt: Ünïcode}]")
    first, second, alone = manifest.jobs

    assert first.request == canonical_request(first.body())
    assert first.request == second.request == alone.request
    assert [job.variant for job in manifest.jobs] == [1, 2, None]
    assert first.fingerprint == alone.fingerprint == fingerprint(alone.request, None)
    assert second.fingerprint == fingerprint(alone.request, 2)


def test_job_has_file_and_line(read: Read, tmp_path: Path) -> None:
    manifest = read("jobs:\n  - prompt: one\n    id: a\n  - id: b\n    prompt: two\n")

    assert [(job.file, job.line) for job in manifest.jobs] == [
        (str(tmp_path / "night.yaml"), 4),
        (str(tmp_path / "night.yaml"), 5),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "on",
        "1e3",
        "0123",
        "0x1F",
        "16:9",
        "1_000",
        "2026-11-23",
        ".inf",
        "12:30:45",
        "=",
        "!",
    ],
)
def test_unquoted_prompt_is_sent_as_written(read: Read, text: str) -> None:
    """An unquoted number, date or boolean of YAML is a text."""
    quoted = f"'{text}'" if text in "!=" else text

    assert read(f"jobs: [{{id: a, prompt: {quoted}}}]").jobs[0].body()["prompt"] == text


@pytest.mark.parametrize(
    "prompt",
    [
        "  spaces around  ",
        "tabs\tand\nlines\n",
        "{braces} {{twice}} }{",
        "a\\b",
        "雨 🦊",
        "<<<v>>>",
    ],
)
def test_quoted_prompt_is_sent_as_written(read: Read, prompt: str) -> None:
    """Braces are text in a job without a matrix, and spaces stay."""
    job = read(f"jobs:\n  - id: a\n    prompt: {json.dumps(prompt, ensure_ascii=False)}\n").jobs[0]

    assert job.body()["prompt"] == prompt


def test_a_block_of_text_keeps_its_lines(read: Read) -> None:
    job = read("jobs:\n  - id: a\n    prompt: |\n      one\n        two\n").jobs[0]

    assert job.body()["prompt"] == "one\n  two\n"


@pytest.mark.parametrize(
    ("written", "sent"),
    [("on", "on"), ("true", "on"), ("Yes", "on"), ('"on"', "on"), ("off", "off"), ("no", "off")],
)
def test_sound_may_be_written_without_quotes(read: Read, written: str, sent: str) -> None:
    job = read(f"jobs: [{{id: a, prompt: x, model: kling-v3, sound: {written}}}]").jobs[0]

    assert job.body()["sound"] == sent


@pytest.mark.parametrize("written", ["5", "'5'", "5.0", "05"])
def test_a_duration_is_sent_as_a_string(read: Read, written: str) -> None:
    job = read(f"jobs: [{{id: a, prompt: x, duration: {written}}}]").jobs[0]

    assert job.body()["duration"] == "5"


def test_1_and_1_0_give_the_same_request(read: Read) -> None:
    """Another form of the same number must not buy the video again."""
    head = "jobs: [{id: a, prompt: x, model: kling-v3, cfg_scale: "

    assert read(f"{head}1}}]").jobs[0].request == read(f"{head}1.0}}]").jobs[0].request


def test_model_name_is_read_as_model(read: Read) -> None:
    manifest = read("defaults: {model_name: kling-v3}\njobs: [{id: a, prompt: x}]")

    assert manifest.jobs[0].body()["model_name"] == "kling-v3"
    assert "model" not in manifest.jobs[0].body()


def test_own_value_overrides_default_and_null_removes_it(read: Read) -> None:
    manifest = read(
        """
defaults: {mode: pro, negative_prompt: text, tags: [all], count: 2, extra: {seed: 1}}
jobs:
  - {id: a, prompt: x, mode: std, tags: [own], count: null, negative_prompt: ~, extra: }
  - {id: b, prompt: y}
"""
    )
    own, inherited, _ = manifest.jobs

    assert own.id == "a"
    assert own.tags == ("own",)
    assert own.body().keys() == {"model_name", "mode", "duration", "aspect_ratio", "prompt"}
    assert own.body()["mode"] == "std"
    assert inherited.id == "b-1"
    assert inherited.body()["mode"] == "pro"
    assert inherited.body()["seed"] == 1


def test_extra_is_sent_unchanged(read: Read) -> None:
    """Unquoted values follow YAML 1.2's core schema, quoted ones stay text."""
    job = read(
        """
jobs:
  - id: a
    prompt: x
    extra:
      watermark_info: {enabled: true}
      list: [1, 1.5, 1e3, 0x10, 0o17, "1", no, on, ~, 16:9, 0123, -.5]
"""
    ).jobs[0]

    assert job.body()["watermark_info"] == {"enabled": True}
    assert job.body()["list"] == [1, 1.5, 1000.0, 16, 15, "1", "no", "on", None, "16:9", 123, -0.5]


def test_defaults_below_the_jobs_are_inherited(read: Read) -> None:
    above = "limits: {max_prompt_chars: 2500}\ndefaults: {mode: pro}\n"
    jobs = f"jobs: [{{id: a, prompt: {'x' * 600}}}]\n"

    assert read(jobs + above).jobs[0].request == read(above + jobs).jobs[0].request


def test_anchors_aliases_and_merges_work(read: Read) -> None:
    manifest = read(
        """
x-slow: &slow {mode: pro, duration: 10}
x-tall: &tall {aspect_ratio: 9:16, mode: std}
jobs:
  - &first {id: a, prompt: &fox A fox, <<: [*slow, *tall]}
  - {<<: *first, id: b, duration: 5}
  - {id: c, prompt: *fox}
"""
    )
    bodies = [job.body() for job in manifest.jobs]

    assert [body["prompt"] for body in bodies] == ["A fox"] * 3
    assert [body["mode"] for body in bodies] == ["pro", "pro", "std"]
    assert [body["duration"] for body in bodies] == ["10", "5", "5"]
    assert bodies[1]["aspect_ratio"] == "9:16"


def test_matrix_fills_texts_and_keeps_doubled_braces(read: Read) -> None:
    manifest = read(
        """
defaults: {negative_prompt: "no {kind}"}
jobs:
  - id: "{kind}/{light}"
    prompt: "{{{kind}}} at }}{{"
    aspect_ratio: "{ratio}"
    tags: ["k-{kind}", all]
    matrix: {kind: [no, ~], ratio: [1:1], light: [dawn]}
    extra: {note: "{kind}"}
    count: 2
"""
    )

    assert [job.id for job in manifest.jobs] == ["no/dawn-1", "no/dawn-2", "~/dawn-1", "~/dawn-2"]
    body = manifest.jobs[0].body()
    assert body["prompt"] == "{no} at }{"
    assert body["negative_prompt"] == "no no"
    assert body["aspect_ratio"] == "1:1"
    assert body["note"] == "{kind}"
    assert manifest.jobs[0].tags == ("k-no", "all")
    assert [job.variant for job in manifest.jobs] == [1, 2, 1, 2]


def test_limits_are_laid_over_the_defaults(read: Read) -> None:
    limits = read("limits: {submit_rate: 2/s, deadline: 1h30m}\njobs: [{id: a, prompt: x}]").limits

    assert limits.submit_rate == Rate(2, 1)
    assert limits.deadline_s == 5400
    assert limits.max_in_flight == DEFAULT_LIMITS.max_in_flight == 5


def test_the_documented_limits_are_the_defaults() -> None:
    documented = Limits(
        submit_rate=Rate(60, 60),
        max_in_flight=5,
        max_downloads=4,
        poll_interval_s=5,
        request_timeout_s=30,
        stall_timeout_s=30,
        task_timeout_s=1800,
        max_attempts=3,
        settle_time_s=30,
        deadline_s=None,
        budget_usd=None,
        max_prompt_chars=500,
        max_negative_prompt_chars=200,
    )

    assert documented == DEFAULT_LIMITS


def test_root_keys_are_read(read: Read) -> None:
    manifest = read(
        """
output_dir: ../elsewhere
base_url: http://127.0.0.1:8080/
callback: {url: https://studio.example/kling, listen: 127.0.0.1:8090}
prices: {kling-v3: {std: 0.1/s, pro: {5: 0.3}}, kling-v9: 2}
jobs: [{id: a, prompt: x}]
"""
    )

    assert manifest.output_dir == Path("../elsewhere")
    assert manifest.base_url == "http://127.0.0.1:8080"
    assert manifest.callback == Callback("https://studio.example/kling", "127.0.0.1:8090")
    assert manifest.prices["kling-v3"]["std"].usd(7) == pytest.approx(0.7)
    assert manifest.prices["kling-v3"]["pro"].usd(5) == 0.3
    assert manifest.prices["kling-v9"]["*"].usd(5) == 2


@pytest.mark.parametrize(
    ("text", "path"),
    [("~/loops", "/home/ida/loops"), ("$HOME/a b", "/home/ida/a b"), ("./~loops", "~loops")],
)
def test_output_folder_is_expanded(
    read: Read, monkeypatch: pytest.MonkeyPatch, text: str, path: str
) -> None:
    monkeypatch.setenv("HOME", "/home/ida")

    assert read(f"output_dir: {text}\njobs: [{{prompt: x}}]").output_dir == Path(path)


def test_name_defaults_to_the_file_name(read: Read) -> None:
    assert read("jobs: [{id: a, prompt: x}]").name == "night"
    assert read("name: 2026-11-23\njobs: [{id: a, prompt: x}]").name == "2026-11-23"


def test_missing_version_is_only_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("jobs: [{id: a, prompt: x}]")

    assert [warning.message for warning in load(path).warnings] == ["the manifest has no version"]


def test_warning_of_many_jobs_is_reported_once(read: Read) -> None:
    text = "".join(f"  - {{id: a{n}, prompt: x, model: kling-v1-6}}\n" for n in range(30))
    (warning,) = read(f"jobs:\n{text}").warnings

    assert warning.job == "a0"
    assert warning.message.endswith("[and 29 more of the same]")


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("  - prompt: A street #5 at night", "#5 at night"),
        ("  - id: a\n    prompt:  Waves, #ocean", "#ocean"),
        ("  - id: a\n    prompt: x\n    negative_prompt: a\t#b", "#b"),
    ],
)
def test_prompt_cut_at_a_comment_is_warned_of(read: Read, line: str, rest: str) -> None:
    (warning,) = read(f"jobs:\n{line}\n").warnings

    assert f"ends before {rest!r}, which YAML takes for a comment" in warning.message
    assert (warning.line, warning.column) == (
        line.count("\n") + 3,
        line.rpartition("\n")[2].index("#") + 1,
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "A fox  # the best one",
        "A fox#5",
        "'A fox #5'",
        '"A fox #5"',
        "|\n      A fox #5",
        "A fox # 5",
    ],
)
def test_prompt_that_is_whole_is_not_warned_of(read: Read, prompt: str) -> None:
    assert read(f"jobs:\n  - id: a\n    prompt: {prompt}\n").warnings == ()


def test_multi_shot_request_needs_no_prompt(read: Read) -> None:
    """Kling ignores the prompt of a multi-shot request."""
    manifest = read("jobs: [{id: a, model: kling-v3, extra: {multi_shot: true}}]")

    assert "prompt" not in manifest.jobs[0].body()


@pytest.mark.parametrize("id_", ["a/b/c", "-a", "a b", "雨/🦊", "a.b", "console", "x" * 200, "5"])
def test_valid_id_is_kept(read: Read, id_: str) -> None:
    assert (
        read(f"jobs: [{{id: {json.dumps(id_, ensure_ascii=False)}, prompt: x}}]").jobs[0].id == id_
    )


def test_windows_line_ends_and_bom_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes("\ufeffversion: 1\r\njobs:\r\n  - id: a\r\n    prompt: x\r\n".encode())

    assert load(path).jobs[0].line == 3


def test_loading_restores_the_garbage_collector(read: Read) -> None:
    assert gc.isenabled()
    with pytest.raises(ManifestError):
        read("jobs: []")
    assert gc.isenabled()


def test_importing_the_reader_imports_no_heavy_library() -> None:
    """A run without work must start quickly."""
    code = "import sys, batch.manifest.reader; print({'pydantic', 'aiohttp', 'asyncio'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )

    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a fox \ud83e\udd8a", "a fox \N{FOX FACE}"),
        (r"a \\\ud83e\udd8a", "a \\\N{FOX FACE}"),
        (r"a \\ud83e\\udd8a", r"a \ud83e\udd8a"),
    ],
)
def test_json_manifest_may_hold_surrogate_pairs(tmp_path: Path, written: str, meant: str) -> None:
    """As json.dumps writes them."""
    path = tmp_path / "m.json"
    path.write_text(f'{{"version": 1, "jobs": [{{"id": "a", "prompt": "{written}"}}]}}')
    assert load(path).jobs[0].body()["prompt"] == meant
