"""The page: one HTML file with its style, its script and its data, under a strict policy.

The policy names the hashes of the one style and the two scripts (the data is no code, but a script
element all the same), so that nothing else can run, whatever a prompt or an id holds. No value
becomes markup: the template escapes what stands in the frame, and the script writes text nodes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from batch.output.poster import has_pyav
from batch.report.data import Page, script_json
from batch.report.entries import WORDS, Entry

ROWS_WITHOUT_SCRIPT = 500
RUNS_SHOWN = 100  # as totals
NAMES_SHOWN = 50  # of each group; the gallery has all


def render(page: Page) -> str:
    """Return the page as HTML."""
    style, script = _style(), _script()
    data = page.data
    failures = [entry for entry in data["jobs"] if entry["status"] != "succeeded"]
    html: str = _template().render(
        data=data,
        trouble=page.trouble,
        money=page.money,
        chips=page.chips,
        night=page.night,
        tags=sorted({tag for entry in data["jobs"] for tag in entry.get("tags", ())}),
        models=_models(data),
        runs=page.runs[:RUNS_SHOWN],
        failures=[_row(entry) for entry in failures[:ROWS_WITHOUT_SCRIPT]],
        more_failures=len(failures[ROWS_WITHOUT_SCRIPT:]),
        names=NAMES_SHOWN,
        style=style,
        script=script,
        json=script_json(data),
        policy=policy(style, script),
    )
    return html


def prepare() -> None:
    """Load and compile what pages and pictures need, so that the next page is made at once."""
    _template()
    _style()
    _script()
    has_pyav()


@cache
def _template() -> Any:
    """Return the template of the page."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - a quiet night needs none

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "usd": usd,
        "utc": utc,
        "clock": clock,
        "day": in_days,
        "seconds": in_seconds,
    }
    return environment.from_string(_asset("page.html"))


def _models(data: dict[str, Any]) -> list[str]:
    """Return the models of what the cards show."""
    found = set()
    for tries, now in ((entry["tries"], entry.get("now", 0)) for entry in data["jobs"]):
        if tries:
            number = tries[now].get("options", tries[0]["options"])
            found.add(str(data["options"][number].get("model_name", "")))
    return sorted(filter(None, found))


def _row(entry: Entry) -> tuple[str, str, str, str]:
    """Return id, status, reason and task of a job, for a browser without JavaScript."""
    latest = entry["tries"][0] if entry["tries"] else {}
    reason = latest.get("error", {}).get("message", "")
    return entry["id"], WORDS[entry["status"]], reason, latest.get("task", "")


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy for a page with this style and this script."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src 'self' data:",
            "media-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def usd(amount: float) -> str:
    """Return an amount as $1,234.56."""
    return f"${amount:,.2f}"


def utc(moment: float) -> str:
    """Return a time in UTC as 28 November 2026, 02:15."""
    time = datetime.fromtimestamp(moment, UTC)
    return f"{time.day} {time:%B %Y, %H:%M}"


def clock(moment: float) -> str:
    """Return the time of day in UTC as 02:15."""
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M}"


def in_days(day: date) -> str:
    """Return a day as 28 November."""
    return f"{day.day} {day:%B}"


def in_seconds(seconds: float) -> str:
    """Return a duration as 42 s or 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _style() -> str:
    """Return the style without what only people read."""
    style = re.sub(r"/\*.*?\*/", "", _asset("page.css"), flags=re.DOTALL)
    style = re.sub(r"\s*([{};,>])\s*|(?<=:)\s+", r"\1", style)
    return re.sub(r"\b0(?=\.\d)", "", style.replace(";}", "}"))


@cache
def _script() -> str:
    """Return the script without comments, indentation, and blanks that only people need."""
    lines = map(str.strip, _asset("page.js").splitlines())
    code = (re.sub(r"(^|\s+)// [^\"`]*$", "", line) for line in lines)
    return "\n".join(map(_squeezed, filter(None, code)))


def _squeezed(line: str) -> str:
    """Return a line of the script without blanks around operators, as far as none is in a text."""
    if "`" in line:  # texts within texts: only around those that none of them holds
        return re.sub(r" (=>|[=!]==|&&|[|]{2}|[?]{2}=?|[+]?=) ", r"\1", line)
    parts = re.split(r'("(?:[^"\\]|\\.)*")', line)
    parts[::2] = [re.sub(r" ?(=>|[=!]==|[{}(),:;?=&|*]) ?", r"\1", part) for part in parts[::2]]
    return "".join(parts)


def _asset(name: str) -> str:
    """Return a file of the package."""
    return files("batch.report").joinpath(name).read_text("utf-8")
