"""Read the rows of a .csv file as they come out of spreadsheets.

Empty cells, columns and rows are nothing, and blanks around a column's name mean nothing. A value
that no column names, and a header in the middle of the file, are faults: they would be paid for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from functools import cached_property

from batch.manifest.cells import is_broken
from batch.manifest.findings import Findings, Unreadable, shown
from batch.manifest.json_rows import json_node
from batch.manifest.nodes import Entries, Mapping, Node, Scalar, Spot, quoted

MAX_COLUMNS = 100
_BLANKS = " \t\r\n\xa0\ufeff"  # a file joined to another brings its byte order mark along
_JSON_COLUMNS = frozenset({"camera_control", "extra", "matrix"})
_LINE_END = re.compile(r"\r\n|\r|\n")
_CELL = re.compile(r'"(?:[^"]|"")*"|[^,\r\n]*')


class Sheet:
    """The rows of a CSV file: commas, a line of column names, quotes around a cell with a comma.

    Args:
        data: the content, already checked to be UTF-8.
        file: its name in messages.
        keys: the keys of a job, by which a repeated header is known.
        findings: receives the faults.
    """

    def __init__(self, data: bytes, file: str, keys: Collection[str], findings: Findings) -> None:
        self._data = data
        self._file = file
        self._findings = findings
        self._keys = frozenset(keys)
        self._columns: list[Scalar] = []
        self._unnamed: set[int] = set()  # those already reported

    def rows(self) -> Iterator[Mapping]:
        """Yield each row that has a value, its cells under the names of their columns.

        Raises:
            Unreadable: the file is not a CSV file, or has too many columns.
        """
        text = io.TextIOWrapper(io.BytesIO(self._data), encoding="utf-8", newline="")
        reader = csv.reader(text, strict=True)
        try:
            first = 1
            for cells in reader:
                lines = first, reader.line_num
                first = reader.line_num + 1
                if not self._columns:
                    self._read_header(cells, lines[0])
                elif not self._is_header(cells, lines[0]) and (row := self._row(cells, lines)):
                    yield row
        except csv.Error as exc:
            at = Spot(self._file, max(reader.line_num, 1))
            raise Unreadable(at, f"not valid CSV: {exc}") from exc

    def _read_header(self, cells: list[str], line: int) -> None:
        at = Spot(self._file, line)
        names = [cell.strip(_BLANKS) for cell in cells]
        while names and not names[-1]:
            names.pop()
        if len(names) > MAX_COLUMNS:
            raise Unreadable(at, f"the file has more than {MAX_COLUMNS} columns")
        if len(names) == 1 and re.search("[;\t]", names[0]):
            raise Unreadable(at, "the columns are not separated by commas", "use commas")
        for number, name in enumerate(names):
            if name and name in names[:number]:
                self._findings.fault(at, f"duplicate column {shown(name)}")
        names += [""] * (len(cells) - len(names)) if names else []
        self._columns = [quoted(name, at) for name in names]
        self._keys |= {name.casefold() for name in names}

    def _is_header(self, cells: list[str], line: int) -> bool:
        """Report a row that repeats the header, also one with other columns of a job."""
        if not cells or cells[0].strip(_BLANKS).casefold() not in self._keys:
            return False
        names = [name for name in (cell.strip(_BLANKS).casefold() for cell in cells) if name]
        columns = [column.text.casefold() for column in self._columns if column.text]
        if names != columns and (len(names) < 2 or not self._keys.issuperset(names)):
            return False
        message = "the header stands here a second time"
        self._findings.fault(Spot(self._file, line), message, "remove this line")
        return True

    def _row(self, cells: list[str], lines: tuple[int, int]) -> Mapping | None:
        at = Spot(self._file, lines[0])
        entries: Entries = {}
        for number, (key, cell) in enumerate(zip(self._columns, cells, strict=False)):
            if not cell or cell.isspace():
                continue
            if not key.text:
                self._report_unnamed(number, cell, at)
                continue
            where = self._place(number, lines) if is_broken(cell) else at
            node: Node = quoted(cell, where)
            if key.text in _JSON_COLUMNS:
                complaint = f"the cell {key.text} is not valid JSON"
                node = json_node(cell, where, complaint, self._findings)
            entries[key.text] = (key, node)
        if len(cells) > len(self._columns) and any(map(str.strip, cells[len(self._columns) :])):
            message = f"the row has {len(cells)} cells, but there are {len(self._columns)} columns"
            self._findings.fault(at, message, "put a text with a comma in quotes")
        return Mapping(entries, len(entries), at.file, at.line, 1) if entries else None

    def _report_unnamed(self, number: int, cell: str, at: Spot) -> None:
        if number in self._unnamed:
            return
        self._unnamed.add(number)
        message = f"column {number + 1} has no name, but line {at.line} has {shown(cell)} in it"
        self._findings.fault(self._columns[number], message, "name the column, or empty it")

    def _place(self, number: int, lines: tuple[int, int]) -> Spot:
        """Return where in the row of these lines a cell stands; csv does not tell."""
        first, last = lines
        text = "\n".join(self._lines[first - 1 : last])
        start = 0
        for _ in range(number):
            cell = _CELL.match(text, start)
            assert cell is not None
            start = cell.end() + 1
        line = first + text.count("\n", 0, start)
        return Spot(self._file, line, start - text.rfind("\n", 0, start))

    @cached_property
    def _lines(self) -> list[str]:
        return _LINE_END.split(self._data.decode())
