"""Invalid manifests: each fault has a file, line, column, job and remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batch.errors import ExitCode, ManifestError, Problem
from batch.manifest.reader import load

Faults = Callable[[str], list[Problem]]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """Load an invalid manifest; `version: 1` is its first line."""

    def faults(text: str) -> list[Problem]:
        path = tmp_path / "m.yaml"
        path.write_text(f"version: 1\n{text}", encoding="utf-8")
        with pytest.raises(ManifestError) as caught:
            load(path)
        assert caught.value.exit_code is ExitCode.USAGE
        assert str(caught.value).isprintable() or "\n" in str(caught.value)
        return caught.value.problems

    return faults


def of_job(faults: Faults, line: str) -> Problem:
    """Return the one fault of a job `a` with one more *line*, its fourth in the file."""
    (problem,) = faults(f"jobs:\n  - id: a\n    prompt: x\n    {line}\n")
    assert problem.job == "a"
    return problem


def test_all_faults_are_reported_sorted_by_place(faults: Faults) -> None:
    problems = faults(
        """name: a/b
limits: {submit_rate: fast, budgt: 3}
jobs:
  - id: a
    promt: x
    mode: pros
    cfg_scale: 7
    sound: loud
  - {id: ../b, prompt: x, duration: 7}
"""
    )

    assert [(p.line, p.column, p.job) for p in problems] == [
        (2, 7, None),
        (3, 23, None),
        (3, 29, None),
        (6, 5, "a"),
        (7, 11, "a"),
        (8, 16, "a"),
        (9, 12, "a"),
        (10, 10, "../b"),
        (10, 37, "../b"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "jobs: [{id: a, promt: x}]",
        "jobs: [{id: a, prompt: x, duration: 7, modle: kling-v3}]",
        "defaults: {pormpt: x}\njobs: [{id: a}]",
        "defualts: {model: kling-v3, prompt: x}\njobs: [{id: a, duration: 7}]",
        "jobs: [{id: a, duration: 7}]\ndefualts: {model: kling-v3, prompt: x}",
        "limts: {max_prompt_chars: 2000}\njobs: [{prompt: " + 900 * "x" + "}]",
        "job: [{id: a, prompt: x}]",
        "jbos: [{id: a, prompt: x}]\njobs: [{id: a, prompt: x}]",
        "jobs: [{id: a, prompt: x}]\njob: [{id: a, prompt: x}]",
    ],
)
def test_one_typing_error_is_one_fault(faults: Faults, text: str) -> None:
    """What the mistyped key would have set is missing nowhere else."""
    (problem,) = faults(text)
    assert "unknown key" in problem.message
    assert "did you mean" in (problem.advice or "")


@pytest.mark.parametrize(
    ("ratio", "hint"), [("16/9", "16:9"), ("16x9", "16:9"), ("16:10", None), ("21:9", None)]
)
def test_other_numbers_are_no_typing_error(faults: Faults, ratio: str, hint: str | None) -> None:
    """Whoever asks for 16:10 does not mean 1:1."""
    problem = of_job(faults, f"aspect_ratio: {ratio}")
    assert problem.advice == (hint and f"did you mean {hint}?")


def test_problem_is_one_line(faults: Faults, tmp_path: Path) -> None:
    (problem,) = faults("jobs:\n  - {id: a, prompt: x, mdel: kling-v3}\n")

    assert str(problem) == (
        f"{tmp_path}/m.yaml:3:24: job 'a': unknown key 'mdel' in a job (did you mean model?)"
    )


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("job: []", "unknown key 'job' in the manifest", "did you mean jobs?"),
        ("limits: {max_inflight: 3}", "unknown key 'max_inflight'", "did you mean max_in_flight?"),
        ("defaults: {aspect: 1}", "unknown key 'aspect' in defaults", "did you mean aspect_ratio?"),
        ("callback: {ulr: x}", "unknown key 'ulr' in callback", "did you mean url?"),
        ("prices: {m: {pro+sond: 1}}", "unknown key 'pro+sond'", "did you mean pro+sound?"),
        ("defaults: {id: x}", "id cannot stand in defaults", None),
        ("defaults: {matrix: {a: [b]}}", "matrix cannot stand in defaults", None),
        ("defaults: [a]", "defaults must be a mapping, but this is a list", None),
        ("limits: 5", "limits must be a mapping, but this is a text", None),
        ("version: 1", "duplicate key 'version', first in line 1", "keep one"),
        ("name: ..", "the name '..' cannot name a folder", None),
        ("name: [a]", "name must be a text on one line", None),
        ("output_dir: ''", "output_dir must be a text on one line", None),
        ("name: '#REF!'", "name is '#REF!', an error of a spreadsheet", None),
        ("output_dir: $NOPE/loops", "$NOPE, but this variable is not set", None),
        ("output_dir: ~nobody-here/a", "whose home is not known", None),
        ("output_dir: a/~/b", "holds a folder ~", None),
        ('output_dir: "loops\\r"', "output_dir must be a text on one line", None),
        ("base_url: api.cometapi.com", "base_url: 'api.cometapi.com' is not a valid address", None),
        ("base_url: http://api.example", "base_url would send the API key unencrypted", "https://"),
        ("base_url: https://u:p@x.example", "must not contain a name or a password", None),
        ("base_url: https://x.example/?k=1", "base_url has a query", None),
        ("callback: {listen: 8090}", "'8090' is not a valid HOST:PORT", None),
        ("callback: {listen: 'a:99999'}", "'a:99999' is not a valid HOST:PORT", None),
        ("callback: {url: ftp://x}", "'ftp://x' is not a valid address", None),
        ("prices: {m: {std: 1/m}}", "'1/m' is not a valid price", None),
        ("prices: {m: {std: {5s: 1}}}", "'5s' is not a duration in whole seconds", None),
        ("limits: {submit_rate: 0/s}", "must be greater than 0", None),
        ("limits: {poll_interval: 0}", "it must be longer than 0s", None),
        ("limits: {max_attempts: 0}", "must be a whole number from 1 to 100", None),
        ("limits: {budget: -1}", "'-1' is not a valid amount in USD", None),
        ("limits: {deadline: [1]}", "limits.deadline must be one value", None),
        ("defaults: {mode: standard}", "mode is 'standard'; it must be one of", "did you mean std"),
    ],
)
def test_invalid_root_value_is_a_fault(
    faults: Faults, text: str, message: str, advice: str | None
) -> None:
    (problem,) = faults(f"jobs: [{{id: a, prompt: x}}]\n{text}\n")

    assert problem.line == 3
    assert message in problem.message
    assert (advice or "") in (problem.advice or "")


@pytest.mark.parametrize("version", ["2", "1.1", "one", "[1]"])
def test_other_version_is_a_fault(tmp_path: Path, version: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"jobs: [{{id: a, prompt: x}}]\nversion: {version}\n")
    with pytest.raises(ManifestError, match="2:10: version must be 1"):
        load(path)


@pytest.mark.parametrize("jobs", ["", "jobs:", "jobs: []", "jobs: {a: b}", "jobs: a", "jobs: [a]"])
def test_manifest_without_jobs_is_a_fault(faults: Faults, jobs: str) -> None:
    (problem,) = faults(jobs)

    assert "job" in problem.message


@pytest.mark.parametrize(
    ("line", "column", "message", "advice"),
    [
        ("duration: 7", 15, "duration is 7; kling-v2-6 makes 5 or 10 seconds", ""),
        ("duration: 2", 15, "duration is '2'; it must be whole seconds", ""),
        ("duration: 5s", 15, "duration is '5s'", "write 5"),
        ("mode: 4k", 11, "kling-v2-6 takes the mode std or pro, not 4k", ""),
        ("mode: Pro", 11, "mode is 'Pro'", "did you mean pro?"),
        ("aspect_ratio: 21:9", 19, "it must be one of 16:9, 9:16, 1:1, 4:3, 3:4, 3:2, 2:3", ""),
        ("aspect_ratio: 969", 19, "YAML 1.1 reads 16:9 as that number", "'16:9'"),
        ("cfg_scale: 1.01", 16, "it must be a number from 0 to 1", ""),
        ("cfg_scale: .nan", 16, "it must be a number from 0 to 1", ""),
        ("sound: loud", 12, "it must be on or off", ""),
        ("model: kling v3", 12, "'kling v3' is not a valid model name", "kling-v2-6"),
        ("model: [a]", 12, "model must be a text, but this is a list", "quotes"),
        ("external_task_id: mine", 5, "external_task_id is not for a job", "the run sets it"),
        ("callback_url: https://x", 5, "callback_url is not for a job", "callback:"),
        ("image: a.png", 5, "image is not for a job", "only text to video"),
        ("extra: {prompt: y}", 13, "prompt cannot be given under extra", "as a key of the job"),
        ("extra: {callback_url: y}", 13, "callback_url cannot be given under extra", ""),
        ("extra: {a: .inf}", 16, "'.inf' is not a JSON number", "quote it"),
        ("extra: {a: 1e999}", 16, "'1e999' is not a JSON number", "quote it"),
        ("extra: 5", 12, "extra must be a mapping", ""),
        ("count: 0", 12, "it must be a whole number from 1", ""),
        ("count: 2000000", 9, "more than 1,000,000 jobs", "split"),
        ("tags: {a: b}", 11, "tags must be a list of texts", ""),
        ("tags: [[a]]", 11, "tags must be a list of texts", ""),
        ("tags: ['a;b']", 11, "'a;b' is not a valid tag", ""),
        ("negative_prompt: [a]", 22, "negative_prompt must be a text", "quotes"),
        (
            f"negative_prompt: {'x' * 201}",
            22,
            "has 201 characters, more than 200",
            "limits.max_neg",
        ),
        ('negative_prompt: "\\e"', 22, "contains a control character (U+001B)", "remove"),
        ("matrix: {}", 13, "matrix must be a mapping of axes to lists", "fox"),
        ("matrix: {a: b}", 17, "the axis 'a' needs a list of values", ""),
        ("matrix: {a: [b, b]}", 21, "the axis 'a' has 'b' twice", ""),
        ("matrix: {a b: [c]}", 14, "'a b' cannot name an axis", ""),
        ("matrix: {a: [b, c]}", 9, "the id does not use the axis a", "add {a} to the id"),
        ("camera_control: zoom", 21, "camera_control must be a mapping", "simple"),
        ("camera_control: {config: {zoom: 1}}", 21, "camera_control has no type", ""),
        ("camera_control: {type: simple}", 21, "a simple camera needs config", "zoom"),
        ("camera_control: {type: simpel}", 28, "it must be one of simple", "did you mean simple?"),
        ("camera_control: {type: down_back, config: {zoom: 1}}", 39, "takes no config", "remove"),
        ("camera_control: {type: simple, config: {zoom: 0}}", 44, "exactly one value", "set one"),
        ("camera_control: {type: simple, config: {zoom: 1, pan: 1}}", 44, "zoom, pan", "set one"),
        ("camera_control: {type: simple, config: {zoom: 11}}", 51, "from -10 to 10", ""),
        ("camera_control: {type: simple, config: {zoom: '5'}}", 51, "a number", "without quotes"),
        ("camera_control: {type: simple, config: {zom: 5}}", 45, "unknown key 'zom'", "zoom?"),
    ],
)
def test_undocumented_value_is_a_fault(
    faults: Faults, line: str, column: int, message: str, advice: str
) -> None:
    if "zom" in line:
        line = line.replace("zom: 5", "zom: 5, pan: 1")
    problem = of_job(faults, line)

    assert (problem.line, problem.column) == (5 if column > 9 or column == 5 else 3, column)
    assert message in problem.message
    assert advice in (problem.advice or "")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("x" * 501, "prompt has 501 characters, more than 500"),
        ("''", "the prompt is empty"),
        ("'  '", "the prompt is empty"),
        ("null", "a job needs a prompt"),
        ("", "a job needs a prompt"),
        ("{a}", "prompt must be a text, but this is a mapping"),
        ('"a\\0b"', "prompt contains a control character (U+0000)"),
        ('"a\\x85b"', "prompt contains a control character (U+0085)"),
    ],
)
def test_invalid_prompt_is_a_fault(faults: Faults, prompt: str, message: str) -> None:
    (problem,) = faults(f"jobs:\n  - id: a\n    prompt: {prompt}\n")

    assert message in problem.message
    assert problem.job == "a"


def test_prompt_length_counts_characters_not_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"version: 1\njobs: [{{id: a, prompt: {'🦊' * 500}}}]", encoding="utf-8")

    assert len(load(path).jobs) == 1


@pytest.mark.parametrize(
    ("prompt", "token"),
    [("A {fish}", "{fish}"), ("A {", "{"), ("A }", "}"), ("A {}", "{}"), ("{{{x}", "{x}")],
)
def test_placeholder_without_axis_is_a_fault(faults: Faults, prompt: str, token: str) -> None:
    (problem,) = faults(f"jobs: [{{id: '{{a}}', prompt: '{prompt}', matrix: {{a: [b]}}}}]")

    assert problem.message == f"'{token}' is not an axis of the matrix"
    assert "double a brace that is text" in (problem.advice or "")


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a\\\\b",
        "a\\0",
        "a\\nb",
        "a\\u202eb",
        " a",
        "a ",
        "a.",
        "a/b./c",
        "CON",
        "nul.txt",
        "a/com1",
        "LPT¹",
        "a<b",
        "a:b",
        "a*",
        "a?",
        "a|b",
        'a\\"b',
        "x" * 201,
        "雨" * 67,
        "/".join(["x" * 100] * 11),
    ],
)
def test_id_that_names_no_file_is_a_fault(faults: Faults, id_: str) -> None:
    problem = faults(f'jobs: [{{id: "{id_}", prompt: x}}]')[0]

    assert "the id" in problem.message
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a", "a", "the id 'a' is taken by the job in line 3"),
        ("Fox", "fox", "the id 'fox' differs only by case from 'Fox' in line 3"),
        ("straße", "STRASSE", "differs only by case"),
        ("é", "e\\u0301", "differs only by case"),
        ("a", "a.mp4/b", "the id 'a.mp4/b' needs a folder where 'a' has its file"),
        ("a.MP4/b/c", "A", "the id 'a.MP4/b/c' needs a folder where 'A' has its file"),
    ],
)
def test_ids_that_share_a_file_are_a_fault(
    faults: Faults, first: str, second: str, message: str
) -> None:
    text = f'jobs:\n  - {{id: "{first}", prompt: x}}\n  - {{id: "{second}", prompt: x}}\n'
    (problem,) = faults(text)

    assert message in problem.message


def test_variant_with_a_taken_id_is_a_fault(faults: Faults) -> None:
    (problem,) = faults("jobs: [{id: a-2, prompt: x}, {id: a, prompt: x, count: 3}]")

    assert problem.message == "the id 'a-2' is taken by the job in line 2"


def test_wrong_default_is_reported_once(faults: Faults) -> None:
    text = "".join(f"  - {{id: a{n}, prompt: x}}\n" for n in range(5))
    (problem,) = faults(f"defaults: {{sound: loud}}\njobs:\n{text}")

    assert (problem.line, problem.column, problem.job) == (2, 19, None)


def test_model_and_model_name_together_are_a_fault(faults: Faults) -> None:
    problem = of_job(faults, "model: kling-v3\n    model_name: kling-v3")

    assert problem.message == "model_name and model are the same"


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "advice"),
    [
        ("a: b: c", 2, 5, "in the line 'a: b: c'", "in quotes"),
        ("\tprompt: a", 2, 1, "not valid YAML", "spaces, not tabs"),
        ('a: "open', 3, 1, "from line 2", "not closed"),
        ("- a", 2, 1, "not valid YAML", ""),
        ("a: !!python/object:os.system x", 2, 4, "python/object:os.system' is not allowed", ""),
        ("a: !mine x", 2, 4, "the tag '!mine' is not allowed", "remove"),
        ("a: *b", 2, 4, "the alias '*b' has no complete anchor", ""),
        ("a: &a [*a]", 2, 8, "the alias '*a' has no complete anchor", ""),
        ("---\nb: c", 2, 1, "a second document begins here", "---"),
        ('a: "\\ud83e"', 2, 7, "not valid YAML", "backslash"),
    ],
)
def test_invalid_yaml_is_reported_with_its_line(
    faults: Faults, *, text: str, line: int, column: int, message: str, advice: str
) -> None:
    problem = faults(f"{text}\n")[0]

    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert advice in (problem.advice or "")


def test_syntax_error_is_reported_beside_other_faults(faults: Faults) -> None:
    first, last = faults('jobs:\n  - {id: a, promt: x, prompt: x}\ndefaults: {prompt: "open\n')

    assert "unknown key 'promt'" in first.message
    assert "not valid YAML" in last.message


def test_syntax_error_is_listed_after_too_many_faults(faults: Faults) -> None:
    problems = faults("jobs:\n" + "  - 5\n" * 10_100 + "  - {id: [\n")

    assert any("not valid YAML" in problem.message for problem in problems)
    assert any(p.message == "100 further faults not listed" for p in problems)


def test_fault_is_not_attributed_to_the_previous_job(faults: Faults) -> None:
    (problem,) = faults("jobs:\n  - {id: a, prompt: x}\n  - {id: b, prompt: x, prompt: y}\n")

    assert (problem.line, problem.job) == (4, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{a: b, a: c}", "duplicate key 'a', first in line 3"),
        ("{[a]: b}", "a key must be a text, but this is a list"),
        ("{<<: 5}", "<< takes a mapping, but this is a text"),
        ("{<<: {a: b}, <<: {c: d}}", "duplicate <<"),
    ],
)
def test_invalid_key_is_a_fault_at_any_depth(faults: Faults, text: str, message: str) -> None:
    problems = faults(f"jobs: [{{id: a, prompt: x}}]\nx-a: {text}\n")

    assert [problem.message for problem in problems] == [message]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nope.yaml", "there is no such file"),
        ("folder", "it is a folder, not a file"),
        ("loop.yaml", "too many levels of symbolic links"),
        ("device.yaml", "it is not a regular file"),
        ("a\0b.yaml", "embedded null byte"),
    ],
)
def test_unreadable_manifest_has_no_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    with pytest.raises(ManifestError) as caught:
        load(tmp_path / name)

    assert str(caught.value) == f"{tmp_path}/{name}: {reason}".replace("\0", "\\x00")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_manifest_without_permission_has_no_line(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.touch(mode=0)
    with pytest.raises(ManifestError, match="m.yaml: this user has no permission to read it"):
        load(path)
