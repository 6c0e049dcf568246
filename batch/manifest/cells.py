"""What a spreadsheet leaves where a value should stand: an error, or a mark for an empty cell."""

from __future__ import annotations

import re
import string

from batch.manifest.findings import Findings, shown
from batch.manifest.nodes import Entries, Mapping, Scalar, Sequence

_LONGEST = 32
# Excel, LibreOffice and Google Sheets translate their errors; nearly all have one of these shapes:
# #REF! #NAME? #DIV/0! #BEZUG! #¡VALOR! #ССЫЛКА!, always in capitals,
_ERROR = re.compile(r"#[¡¿]?[^\W\d]+(/0)?[!?]")
# #N/A #N/D #N/B #I/T, and what has no shape; ### is a column too narrow for its value.
_OTHER = re.compile(
    r"#[^\W\d]/[^\W\d]!?|#{3,}|Err:[0-9]{3}"
    r"|#(NV|YOK|SAKNAS|PUUTTUU|HIÁNYZIK|NENÍ_K_DISPOZICI|NEDOSTUPNÝ|GETTING_DATA|DATEN_ABRUFEN)"
    r"|(Loading|(Wird )?Geladen|Chargement|Cargando|Carregando|Caricamento( in corso)?|Laden"
    r"|Ładowanie|Načítání|Yükleniyor|Загрузка|加载中|正在加载|載入中|読み込み中|로드 중)\s?(\.{3}|…)",
    re.IGNORECASE,
)
# One of these begins or ends every such text; blanks may stand around it.
_FIRST = frozenset("#Ee" + string.whitespace)
_LAST = frozenset(".\u2026" + string.whitespace)
_EMPTY_WORDS = frozenset(
    {"nan", "none", "null", "nil", "tbd", "tba", "todo", "n/a", "na", "undefined", "prompt"}
    | {"loading", "待定", "无"}
)
_SIGNS = frozenset(string.punctuation + string.whitespace + "\u2013\u2014\u2026\u3002\uff1f")


def report_broken(entries: Entries, findings: Findings) -> None:
    """Report every value of a job that is nothing but an error of a spreadsheet."""
    for name, (_, node) in entries.items():
        if not isinstance(node, Scalar):
            broken = _broken_inside(node)
        elif len(node.text) <= _LONGEST and is_broken(node.text):
            broken = [node]
        else:
            continue
        for scalar in broken:
            label = entries.get("id")
            findings.job = label[1].text if label and isinstance(label[1], Scalar) else None
            message = f"{name} is {shown(scalar.text)}, an error of a spreadsheet"
            findings.fault(scalar, message, "mend the cell, and export the sheet again")
            findings.job = None


def _broken_inside(node: Sequence | Mapping) -> list[Scalar]:
    broken = []
    items = (
        node.items if isinstance(node, Sequence) else [item for _, item in node.entries.values()]
    )
    for item in items:
        if not isinstance(item, Scalar):
            broken += _broken_inside(item)
        elif is_broken(item.text):
            broken.append(item)
    return broken


def is_broken(text: str) -> bool:
    """Return whether *text* is nothing but an error of a spreadsheet."""
    if text[:1] not in _FIRST and text[-1:] not in _LAST:  # nearly always
        return False
    text = text.strip() if len(text) <= _LONGEST else ""
    return bool((text.isupper() and _ERROR.fullmatch(text)) or _OTHER.fullmatch(text))


def is_empty_mark(text: str) -> bool:
    """Return whether *text* is what people and programs write into a cell that has no value."""
    if len(text) > _LONGEST:
        return False
    return text.strip().casefold() in _EMPTY_WORDS or _SIGNS.issuperset(text)
