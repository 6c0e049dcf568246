"""Read the rows of the file that `from:` names, each as a mapping: .csv, .jsonl or .txt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from batch.manifest.csv_rows import Sheet
from batch.manifest.findings import Findings, Unreadable, shown
from batch.manifest.json_rows import json_rows
from batch.manifest.nodes import Entries, Mapping, Place, Spot, quoted
from batch.manifest.text_files import read_file, read_lines

TABLES = ("csv", "jsonl")
ROW_FILES = (*TABLES, "txt")


def has_header(path: Path) -> bool:
    """Return whether one line above the rows holds their keys."""
    return path.suffix.lower() == ".csv"


def read_rows(
    path: Path, file: str, at: Place, keys: Collection[str], findings: Findings
) -> Iterator[Mapping]:
    """Yield the rows of a .csv or .jsonl file, or the lines of a .txt file as prompts.

    Args:
        path: the file.
        file: its name in messages.
        at: the place that refers to it.
        keys: the keys of a job, by which a repeated header is known.
        findings: receives the faults.

    Raises:
        Unreadable: the file cannot be read, or is of another kind.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ROW_FILES:
        message = f"from takes a .csv, a .jsonl or a .txt file, not {shown(path.name)}"
        raise Unreadable(at, message, "save a table as .csv, with commas")
    rows: dict[str, Callable[[], Iterator[Mapping]]] = {
        "csv": lambda: Sheet(read_file(path, file, at), file, keys, findings).rows(),
        "jsonl": lambda: json_rows(read_lines(path, file, at), file, findings),
        "txt": lambda: _prompts(read_lines(path, file, at), file),
    }
    is_empty = True
    for row in rows[kind]():
        is_empty = False
        yield row
    if is_empty:
        findings.fault(at, f"{shown(file)} has no rows")


def _prompts(lines: Iterable[bytes], file: str) -> Iterator[Mapping]:
    """Yield each line that is not blank as a job of this prompt."""
    key = quoted("prompt", Spot(file))
    texts = (text for line in lines for text in line.decode().splitlines())  # at \r, too
    for number, line in enumerate(texts, 1):
        if prompt := line.strip():
            at = Spot(file, number)
            entries: Entries = {"prompt": (key, quoted(prompt, at))}
            yield Mapping(entries, 2, at.file, at.line, at.column)
