"""Tables as they come out of spreadsheets: broken cells, repeated headers, leftovers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from batch.errors import ManifestError, Problem
from batch.manifest.model import Manifest
from batch.manifest.reader import load

Read = Callable[..., Manifest]
BROKEN = [
    "#REF!", "#N/A", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#CALC!",
    "#ERROR!", "#FIELD!", "#GETTING_DATA", "Loading...", "loading\u2026", "Err:502", "########",
    "#BEZUG!", "#NV", "#WERT!", "#ZAHL!", "#\u00dcBERLAUF!", "#VALEUR!", "#NOM?", "#\u00a1REF!",
    "#\u00bfNOMBRE?", "#N/D", "#N/B", "#I/T", "#DEEL/0!", "#DIVISION/0!", "#BA\u015eV!", "#YOK",
    "#\u0421\u0421\u042b\u041b\u041a\u0410!", "#\u041d/\u0414", "#D\u011aLEN\u00cd_NULOU!",
    "#HI\u00c1NYZIK", "Wird geladen...", "Chargement...", " #REF! ",
]  # fmt: skip
TEXTS = [
    "#sunset", "#1 fan", "# of foxes", "#", "#Wow!", "#VIDEO", "A #REF! in a sheet", "Loading",
    "Loading a truck...", "#\u4f60\u597d!", "A fox.",
]  # fmt: skip


FORMULAS = [
    "=CONCAT(A1)", "=VERKETTEN(A1;B1)", '=A1&" at dawn"', "=$A$1", "=Sheet1!B2", "='My prompts'!A2",
    "=$Sheet1.A2", '="A fox"', '="a "&B2', " =+A1", '=WENN.FEHLER(A1;"")', '=@INDIRECT("A"&1)',
    '=IF(A1>0,"a very long prompt that goes on","and another one that goes on for longer than that")',
]  # fmt: skip
NO_FORMULAS = [
    "= a fox",
    "== Night ==",
    "=)",
    "=> a fox runs",
    "=A fox",
    '="A fox" he said',
    "=^.^=",
]


def faults(read: Read, rows: str | bytes, **kwargs: str) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        read(rows, **kwargs)
    return caught.value.problems


def fault_of(read: Read, cell: str) -> str:
    """Return what is said of the prompt in *cell*, the fault of the second job."""
    (problem,) = faults(read, f"id,prompt\na,A fox\nb,{cell}\n")
    assert (problem.line, problem.column, problem.job) == (3, 3, "b")
    return problem.message


@pytest.mark.parametrize("text", BROKEN)
def test_broken_cell_is_a_fault(read: Read, text: str) -> None:
    assert "an error of a spreadsheet" in fault_of(read, text)


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_is_a_fault(read: Read, text: str) -> None:
    """A sheet that is exported with its formulas shown has no prompts."""
    cell = text.replace('"', '""')
    assert "a formula of a spreadsheet" in fault_of(read, f'"{cell}"')


@pytest.mark.parametrize("text", NO_FORMULAS)
def test_text_like_a_formula_is_a_prompt(read: Read, text: str) -> None:
    cell = text.replace('"', '""')
    assert read(f'prompt\n"{cell}"\n').jobs[0].body()["prompt"] == text


@pytest.mark.parametrize("text", TEXTS)
def test_text_like_a_broken_cell_is_a_prompt(read: Read, text: str) -> None:
    assert read(f"prompt\n{text}\n").jobs[0].body()["prompt"] == text


def test_broken_cell_has_its_own_place(read: Read) -> None:
    rows = 'id,prompt,negative_prompt,tags\r\na,"two\r\n""lines"", one",#REF!,"a, b"\r\n\r\nb,x,,#N/A\r\n'
    found = faults(read, rows)

    assert [(p.line, p.column, p.job) for p in found] == [(3, 17, "a"), (5, 6, "b")]


@pytest.mark.parametrize("column", ["id", "prompt", "negative_prompt", "tags", "model", "duration"])
def test_broken_cell_in_any_column_is_a_fault(read: Read, column: str) -> None:
    row = {"id": "a", "prompt": "A fox", column: "#REF!"}
    found = faults(read, f"{','.join(row)}\n{','.join(row.values())}\n")

    assert f"{column} is '#REF!', an error of a spreadsheet" in [p.message for p in found]


@pytest.mark.parametrize(
    "job",
    [
        {"id": "a", "prompt": "#N/A"},
        {"id": "a", "prompt": "A fox", "negative_prompt": "Loading..."},
        {"id": "a", "prompt": "A fox", "tags": ["good", "#VALUE!"]},
        {"id": "a", "prompt": "A fox", "extra": {"style": ["#REF!"]}},
        {"id": "a-{b}", "prompt": "A fox {b}", "matrix": {"b": ["x", "#REF!"]}},
    ],
)
def test_broken_value_in_json_is_a_fault(read: Read, tmp_path: Path, job: object) -> None:
    (problem,) = faults(read, json.dumps(job), name="rows.jsonl")
    assert (problem.line, "an error of a spreadsheet" in problem.message) == (1, True)

    (tmp_path / "m.json").write_text(json.dumps({"version": 1, "jobs": [job]}))
    with pytest.raises(ManifestError, match="an error of a spreadsheet"):
        load(tmp_path / "m.json")


def test_broken_default_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "version: 1\ndefaults: {negative_prompt: '#REF!'}\njobs: [{prompt: A fox}]\n"
    )
    with pytest.raises(ManifestError, match=r"m\.yaml:2:29: negative_prompt is '#REF!'"):
        load(tmp_path / "m.yaml")


def test_broken_line_of_a_text_file_is_a_fault(read: Read) -> None:
    (problem,) = faults(read, "A fox\n#REF!\n", name="rows.txt")

    assert problem.line == 2


@pytest.mark.parametrize(
    "prompt", ["nan", "NaN", "None", "null", "TBD", "-", "N/A", "?", "--", "todo", "..."]
)
def test_mark_of_an_empty_cell_is_a_warning(read: Read, prompt: str) -> None:
    (warning,) = read(f"id,prompt\na,A fox\nb,{prompt}\n").warnings

    assert (warning.line, warning.job) == (3, "b")
    assert repr(prompt) in warning.message


@pytest.mark.parametrize("prompt", ["no", "off", "7", "\N{FOX FACE}", "\u96e8", "A nan bread"])
def test_short_prompt_is_no_mark(read: Read, prompt: str) -> None:
    assert read(f"id,prompt\na,{prompt}\n").warnings == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("id,prompt", "id,prompt"),
        ("id,prompt,,", "id,prompt"),
        ("id,prompt", "\ufeffid , prompt"),
        ("id,prompt", "ID,Prompt"),
        ("id,prompt", "prompt,id"),
        ("id,prompt", "id,mode"),
        ("id,prompt,tags", "id,,tags"),
        (",id,prompt", ",id,prompt"),
    ],
)
def test_repeated_header_is_a_fault(read: Read, first: str, second: str) -> None:
    blank = "," * first.startswith(",")
    (problem,) = faults(read, f"{first}\n{blank}fox,A fox\n{second}\n{blank}owl,An owl\n")

    assert (problem.line, problem.message) == (3, "the header stands here a second time")


def test_repeated_header_of_one_column_is_a_fault(read: Read) -> None:
    (problem,) = faults(read, "prompt\r\nA fox\r\n\r\nprompt\r\nAn owl\r\n")

    assert problem.line == 4


def test_word_that_is_a_key_is_a_prompt(read: Read) -> None:
    jobs = read('id,prompt\nmode,A fox\nsound,"mode, sound"\n').jobs

    assert [job.id for job in jobs] == ["mode", "sound"]


@pytest.mark.parametrize(
    "rows",
    [
        "id,prompt,,\r\nfox,A fox,,\r\n",
        "id,prompt\r\nfox,A fox,,\r\n",
        "id,prompt" + "," * 300 + "\r\nfox,A fox\r\n",
        ",id,prompt\r\n,fox,A fox\r\n",
        "id,prompt, ,\r\nfox,A fox, ,\u00a0\r\n",
        "id,prompt\r\nfox,A fox\r\n , \r\n,\r\n\r\n \r\n",
        " , \r\n\r\nid,prompt\r\nfox,A fox\r\n",
        " id ,prompt \r\nfox,A fox\r\n",
        "\u00a0id,\tprompt\u00a0\r\nfox,A fox\r\n",
        "id,prompt,mode,negative_prompt\r\nfox,A fox, ,  \r\n",
        '"id","prompt"\n"fox","A fox"',
        "id,prompt\rfox,A fox\r",
    ],
)
def test_leftovers_of_a_sheet_are_nothing(read: Read, rows: str) -> None:
    (job,) = read(rows).jobs

    assert job.id == "fox"
    assert job.body() == {
        "model_name": "kling-v2-6",
        "mode": "std",
        "duration": "5",
        "aspect_ratio": "16:9",
        "prompt": "A fox",
    }


def test_line_end_in_a_cell_is_one_line_feed(read: Read) -> None:
    (job,) = read('id,prompt,negative_prompt\r\nfox,"A fox,\r\nrunning","no\r\ntext"\r\n').jobs

    assert job.body()["prompt"] == "A fox,\nrunning"
    assert job.body()["negative_prompt"] == "no\ntext"


def test_value_without_a_column_name_is_a_fault(read: Read) -> None:
    rows = "id,prompt,,\na,A fox,,\nb,An owl,,note\nc,A deer,,note\n"
    (problem,) = faults(read, rows)

    assert (problem.line, problem.message) == (
        1,
        "column 4 has no name, but line 3 has 'note' in it",
    )
