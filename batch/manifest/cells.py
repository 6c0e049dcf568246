"""What a spreadsheet leaves where a value should stand: an error, or a mark for an empty cell."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

from batch.manifest.findings import Findings, shown
from batch.manifest.nodes import Entries, Mapping, Node, Scalar

_LONGEST = 32
# Excel, LibreOffice and Google Sheets translate their errors; nearly all have one of these shapes:
# #REF! #NAME? #DIV/0! #BEZUG! #¡VALOR! #ССЫЛКА!, always in capitals,
_ERROR = r"#[¡¿]?[^\W\d]+(/0)?[!?]"
# #N/A #N/D #N/B #I/T, and what has no shape; ### is a column too narrow for its value.
_OTHER = (
    r"(?i)#[^\W\d]/[^\W\d]!?|#{3,}|Err:[0-9]{3}"
    r"|#(NV|YOK|SAKNAS|PUUTTUU|HIÁNYZIK|NENÍ_K_DISPOZICI|NEDOSTUPNÝ|GETTING_DATA|DATEN_ABRUFEN)"
    r"|(Loading|(Wird )?Geladen|Chargement|Cargando|Carregando|Caricamento( in corso)?|Laden"
    r"|Ładowanie|Načítání|Yükleniyor|Загрузка|加载中|正在加载|載入中|読み込み中|로드 중)\s?(\.{3}|…)"
)
# A sheet that was exported with its formulas: =CONCAT(A1;B1), =A1&" at dawn", =Sheet1!B2, ="a fox".
_FORMULA = (
    r"\s*=\s*[-+@]*\s*"
    r"(?:[^\W\d][\w.]*\(|\$?[A-Z]{1,3}\$?[0-9]{1,7}(?![\w.])|(?:'[^']+'|\$?[^\W\d]\w*)[!.]\$?[A-Z]{1,3}\$?[0-9]"
    r'|"(?:[^"]|"")*"\s*(?:&|$))'
)
# One of these begins or ends every such text; blanks may stand around it.
_FIRST = frozenset("#Ee=" + string.whitespace)
_LAST = frozenset(".\u2026" + string.whitespace)
_EMPTY_WORDS = frozenset(
    {"nan", "none", "null", "nil", "tbd", "tba", "todo", "n/a", "na", "undefined", "prompt"}
    | {"loading", "待定", "无"}
)
_SIGNS = frozenset(string.punctuation + string.whitespace + "\u2013\u2014\u2026\u3002\uff1f")


def report_broken(entries: Entries, findings: Findings) -> None:
    """Report every value of a job that is nothing but an error or a formula of a spreadsheet."""
    for name, (_, node) in entries.items():
        if type(node) is Scalar and node.text[:1] not in _FIRST and node.text[-1:] not in _LAST:
            continue  # nearly always: a call less for each value
        for scalar in _broken(node):
            label = entries.get("id")
            findings.job = label[1].text if label and isinstance(label[1], Scalar) else None
            what, advice = "an error", "mend the cell, and export the sheet again"
            if _is_formula(scalar.text):
                what, advice = "a formula", "export the values of the sheet, not its formulas"
            message = f"{name} is {shown(scalar.text)}, {what} of a spreadsheet"
            findings.fault(scalar, message, advice)
            findings.job = None


def _broken(node: Node) -> list[Scalar]:
    if isinstance(node, Scalar):
        return [node] if is_broken(node.text) else []
    if isinstance(node, Mapping):
        return _broken_among(value for _, value in node.entries.values())
    return _broken_among(node.items)


def _broken_among(nodes: Iterable[Node]) -> list[Scalar]:
    broken = []
    for node in nodes:
        if type(node) is not Scalar:
            broken += _broken(node)
        elif is_broken(node.text):
            broken.append(node)
    return broken


def is_broken(text: str) -> bool:
    """Return whether *text* is nothing but an error of a spreadsheet, or a formula in place of a value."""
    if text[:1] not in _FIRST and text[-1:] not in _LAST:  # nearly always
        return False
    if _is_formula(text):
        return True
    text = text.strip() if len(text) <= _LONGEST else ""
    return bool((text.isupper() and re.fullmatch(_ERROR, text)) or re.fullmatch(_OTHER, text))


def _is_formula(text: str) -> bool:
    return text.lstrip()[:1] == "=" and re.match(_FORMULA, text) is not None


def is_empty_mark(text: str) -> bool:
    """Return whether *text* is what people and programs write into a cell that has no value."""
    if len(text) > _LONGEST:
        return False
    return text.strip().casefold() in _EMPTY_WORDS or _SIGNS.issuperset(text)
