"""Jobs from .csv, .jsonl and .txt files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from batch.errors import ManifestError, Problem
from batch.manifest.model import Manifest
from batch.manifest.reader import load

Read = Callable[..., Manifest]


def faults(read: Read, rows: str | bytes, **kwargs: str) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        read(rows, **kwargs)
    return caught.value.problems


def test_csv_columns_are_the_keys_of_a_job(read: Read, tmp_path: Path) -> None:
    """With a byte order mark, quotes, lines in a cell; an empty cell is not given."""
    manifest = read(
        "\ufeffid,prompt,duration,tags,count,sound,camera_control\r\n"
        'a,"A fox, running",10,nature; night,,,\r\n'
        "\r\n"
        'b,"two\nlines",,,2,TRUE,"{""type"": ""forward_up""}"\r\n',
        entry="model: kling-v3",
    )
    first, second, third = manifest.jobs

    assert [job.id for job in manifest.jobs] == ["a", "b-1", "b-2"]
    assert first.body()["prompt"] == "A fox, running"
    assert first.body()["duration"] == "10"
    assert first.body()["model_name"] == "kling-v3"
    assert first.tags == ("nature", "night")
    assert second.body()["prompt"] == "two\nlines"
    assert second.body()["sound"] == "on"
    assert second.body()["camera_control"] == {"type": "forward_up"}
    assert (first.file, first.line) == (str(tmp_path / "rows.csv"), 2)
    assert third.line == 4


@pytest.mark.parametrize(
    ("name", "data", "advice"),
    [
        ("clips.csv", b"id,prompt\na,a fox\n", "name it in a manifest: jobs: [{from: clips.csv}]"),
        ("clips.JSONL", b'{"prompt": "a"}\n{"prompt": "b"}\n', "[{from: clips.JSONL}]"),
        ("clips.xlsx", b"PK\x03\x04\xff", "save it as .csv, with commas, and name it in"),
    ],
)
def test_table_as_manifest_is_told_where_it_belongs(
    tmp_path: Path, name: str, data: bytes, advice: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        load(tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.message == "a table is not a manifest"
    assert advice in str(problem.advice)


def test_missing_table_as_manifest_is_told_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file"):
        load(tmp_path / "clips.csv")


def test_jsonl_line_is_a_job(read: Read) -> None:
    rows = [
        {"id": "a", "prompt": "no", "duration": 10, "sound": True, "tags": ["x", "y"]},
        {
            "id": "{n}",
            "prompt": "{n} foxes",
            "matrix": {"n": [1, 2]},
            "extra": {"seed": 7, "a": "7"},
        },
        {"id": "b", "prompt": "x", "negative_prompt": None, "cfg_scale": 0.5},
    ]
    manifest = read(
        "\n\n".join(map(json.dumps, rows)), name="rows.jsonl", entry="model_name: kling-v3"
    )

    assert [job.id for job in manifest.jobs] == ["a", "1", "2", "b"]
    assert manifest.jobs[0].body() == {
        "model_name": "kling-v3",
        "mode": "std",
        "duration": "10",
        "aspect_ratio": "16:9",
        "sound": "on",
        "prompt": "no",
    }
    assert manifest.jobs[1].body()["prompt"] == "1 foxes"
    assert manifest.jobs[1].body()["seed"] == 7
    assert manifest.jobs[1].body()["a"] == "7"
    assert manifest.jobs[3].body()["cfg_scale"] == 0.5
    assert [job.line for job in manifest.jobs] == [1, 3, 3, 5]


def test_line_of_a_text_file_is_a_prompt(read: Read) -> None:
    manifest = read(
        "\ufeffA fox, running\r\n\r\n# of foxes: 3\r\n  \r\n  Fuchs \u00e4 \r\n",
        name="Prompts.TXT",
        entry="duration: 10",
    )

    assert [job.body()["prompt"] for job in manifest.jobs] == [
        "A fox, running",
        "# of foxes: 3",
        "Fuchs \u00e4",
    ]
    assert [job.line for job in manifest.jobs] == [1, 3, 5]
    assert {job.body()["duration"] for job in manifest.jobs} == {"10"}


def test_row_inherits_from_its_entry_and_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("id,prompt,mode,tags\na,,,\nb,own,std,mine\n")
    path = tmp_path / "m.yaml"
    path.write_text(
        "version: 1\ndefaults: {mode: pro, duration: 10}\njobs:\n"
        "  - {from: r.csv, prompt: shared, tags: [table], duration: 5}\n"
    )
    first, second = load(path).jobs

    assert (first.body()["prompt"], first.body()["mode"], first.tags) == (
        "shared",
        "pro",
        ("table",),
    )
    assert (second.body()["prompt"], second.body()["mode"], second.tags) == (
        "own",
        "std",
        ("mine",),
    )
    assert first.body()["duration"] == "5"


def test_path_may_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "a", "prompt": "x"}')
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "m.yaml").write_text("version: 1\njobs: [{from: ../r.jsonl}]")

    assert load(folder / "m.yaml").jobs[0].id == "a"


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ("id,prompt\na,x\nb,x,y\n", 3, "the row has 3 cells, but there are 2 columns"),
        ("id,promt\na,x\n", 1, "unknown key 'promt' in a row"),
        ("id,prompt,prompt\na,x,y\n", 1, "duplicate column 'prompt'"),
        ("id,prompt,\na,x,y\n", 1, "column 3 has no name, but line 2 has 'y' in it"),
        ("id;prompt\na;x\n", 1, "the columns are not separated by commas"),
        ("id,prompt,from\na,x,b.csv\n", 1, "from cannot stand in a row"),
        ('id,prompt\na,"x\n', 2, "not valid CSV"),
        ("id,prompt\na,x\na,y\n", 3, "the id 'a' is taken by the job in line 2"),
        ('id,prompt\nz,y\na,"two\nlines"\n../b,x\n', 5, "the id '../b' has"),
        ("id,prompt,duration\na,x,7\n", 2, "duration is 7; kling-v2-6 makes 5 or 10 seconds"),
        ("id,prompt,extra\na,x,{\n", 2, "the cell extra is not valid JSON"),
        ("id,prompt,external_task_id\na,x,y\n", 1, "external_task_id is not for a row"),
        (b"id,prompt\na,\xff\n", 2, "the file is not UTF-8"),
        (b"id,prompt\na,x\0y\n", 2, "the file contains a control character (U+0000)"),
        ("id,prompt\na,x\n".encode("utf-16"), 1, "the file is UTF-16"),
        (",".join(f"c{n}" for n in range(101)), 1, "the file has more than 100 columns"),
    ],
)
def test_csv_fault_has_its_own_line(read: Read, rows: str | bytes, line: int, message: str) -> None:
    problem = next(p for p in faults(read, rows) if message in p.message)

    assert Path(problem.file).name == "rows.csv"
    assert problem.line == line


def test_header_fault_names_no_job(read: Read) -> None:
    """All rows share the header."""
    found = faults(read, "id,promt,image\na,x,i\nb,y,i\n", entry="id: shared")

    assert [(p.line, p.job) for p in found if Path(p.file).name == "rows.csv"] == [
        (1, None),
        (1, None),
    ]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("r.csv", "id,prompt\nfine,x\nb,x,y\n"),
        ("r.jsonl", '{"id": "fine", "prompt": "x"}\n{"id": "b", "prompt": "x", "id": "b"}\n'),
        ("r.jsonl", '{"id": "fine", "prompt": "x"}\n{\n'),
    ],
)
def test_unreadable_row_is_not_attributed_to_the_previous(read: Read, name: str, rows: str) -> None:
    (problem,) = faults(read, rows, name=name)

    assert problem.line == (3 if name == "r.csv" else 2)
    assert problem.job is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "the line is not valid JSON"),
        ("[1]", "a line must be an object in braces"),
        ('{"id": "a", "prompt": "x", "extra": {"a": NaN}}', "NaN is not a JSON value"),
        ('{"id": "a", "prompt": "\\ud800"}', "half of a character"),
        ('{"id": "a", "extra": {"\\ud800": 1}}', "half of a character"),
        ('{"id": "a", "prompt": "x", "prompt": "y"}', "duplicate key 'prompt'"),
        ('{"id": "a", "prompt": null}', "a job needs a prompt"),
        ('{"id": "a", "prompt": "\\u0007"}', "control character (U+0007)"),
        ("[" * 50_000, "nested more than 32 levels deep"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested more than 32 levels deep"),
        ('{"a":' * 32 + '"b"' + "}" * 32, "nested more than 32 levels deep"),
        ('{"id": "a", "prompt": "x", "cfg_scale": ' + "9" * 5000 + "}", "cfg_scale"),
    ],
)
def test_jsonl_fault_has_its_own_line(read: Read, line: str, message: str) -> None:
    rows = f'{{"id": "fine", "prompt": "x"}}\n{line}\n'
    problem = next(p for p in faults(read, rows, name="r.jsonl") if message in p.message)

    assert Path(problem.file).name == "r.jsonl"
    assert problem.line == 2


def test_unreadable_file_does_not_hide_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("version: 1\njobs:\n  - from: a.csv\n  - from: b.csv\n  - {id: a}\n")
    with pytest.raises(ManifestError) as caught:
        load(path)

    assert [(p.line, p.column) for p in caught.value.problems] == [(3, 11), (4, 11), (5, 10)]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("id: a", "id cannot stand beside from"),
        ("matrix: {a: [b]}", "matrix cannot stand beside from"),
        ("mode: fast", "mode is 'fast'"),
    ],
)
def test_invalid_entry_is_a_fault(read: Read, entry: str, message: str) -> None:
    (problem,) = faults(read, "id,prompt\na,x\n", entry=entry)

    assert message in problem.message
    assert (problem.line, Path(problem.file).name) == (4, "m.yaml")


def test_empty_file_is_a_fault(read: Read) -> None:
    assert "has no rows" in faults(read, "")[0].message
    assert "has no rows" in faults(read, "id,prompt\n")[0].message
    assert "has no rows" in faults(read, "," * 200)[0].message
    assert "has no rows" in faults(read, "\n \n", name="r.txt")[0].message


def test_path_of_rows_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "a.txt").write_text("A fox")
    (home / "b.txt").write_text("A deer")
    path = tmp_path / "m.yaml"
    path.write_text("version: 1\njobs: [{from: ~/a.txt}, {from: '${HOME}/b.txt'}]")

    assert [job.body()["prompt"] for job in load(path).jobs] == ["A fox", "A deer"]


def test_path_of_rows_without_meaning_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text('version: 1\njobs:\n  - from: $NOPE/a.csv\n  - from: "a.csv\\r"\n')
    with pytest.raises(ManifestError) as caught:
        load(path)

    assert [(p.line, p.column) for p in caught.value.problems] == [(3, 11), (4, 11)]
    assert "$NOPE, but this variable is not set" in caught.value.problems[0].message
    assert "control character (U+000D)" in caught.value.problems[1].message


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe without a writer would wait forever, a device would never end."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    path = tmp_path / "m.yaml"
    names = ("pipe.csv", "zero.csv", "folder.csv", "data.tsv", '"a\\0.csv"')
    path.write_text("version: 1\njobs:\n" + "".join(f"  - from: {name}\n" for name in names))
    with pytest.raises(ManifestError) as caught:
        load(path)

    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 5
    assert "is not a regular file" in messages[0]
    assert "is not a regular file" in messages[1]
    assert "it is a folder" in messages[2]
    assert "takes a .csv, a .jsonl or a .txt file" in messages[3]
    assert "control character (U+0000)" in messages[4]
