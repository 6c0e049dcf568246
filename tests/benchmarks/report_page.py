"""Writing the report of a library, and loading it in a browser, where there is one.

python tests/benchmarks/report_page.py [--quick] [--json] [--check]
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import children
import figures
from children import Used

LIBRARY = (
    "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import libraries;"
    " libraries.Library(Path(sys.argv[2]), int(sys.argv[3]), is_bare=True).write()"
)
# The least that has to be done: read the attempts, write the same data.
FLOOR = (
    "import sys, json; from pathlib import Path; from batch.output.sqlite import Database;"
    " d = Database.open_to_read(Path(sys.argv[1]) / '.kling-batch/state.db');"
    " a = [x.body() for x in d.attempts()]; Path(sys.argv[2]).write_text(json.dumps(a))"
)
PAGE = (
    '<!doctype html><meta charset="utf-8"><script type="application/json" id="data">{data}</script>'
    '<script>window.data = JSON.parse(document.getElementById("data").textContent)</script>'
)
GOALS = {500: 3.0, 5_000: 6.0}  # how many times as long as the floor a page may take to load


def measure(*, quick: bool = False) -> figures.Report:
    """Measure two sizes of library against floors that do the same without a page."""
    sizes, rounds = ((500,), 2) if quick else ((500, 5_000), 5)
    found: list[figures.Figure] = []
    rows: list[dict[str, object]] = []
    with children.folder() as folder:
        for jobs in sizes:
            root = folder / str(jobs)
            tests = children.HERE.parent / "browser"
            children.run(children.python("-c", LIBRARY, tests, root, str(jobs)), folder)
            writes, floors = _writes(folder, root, rounds)
            found += _compared(jobs, writes, floors)
            page = root / "report.html"
            rows.append({"jobs": jobs, "kB": page.stat().st_size // 1_000, **_loads(page, rounds)})
            found += _loaded(jobs, rows[-1])
    about = "of a library with former versions, without posters; start-up included in writing"
    return figures.report("report", about, found, rows=rows, notes=[f"{rounds} rounds, in turn"])


def _writes(folder: Path, root: Path, rounds: int) -> tuple[list[Used], list[Used]]:
    command = children.batch("report", root, "--posters", "none")
    floor = children.python("-c", FLOOR, root, folder / "floor.json")
    children.run(command, folder)  # bytecode and caches
    pairs = [(children.run(command, folder), children.run(floor, folder)) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _compared(jobs: int, ours: list[Used], floors: list[Used]) -> list[figures.Figure]:
    name, peer = f"{jobs} jobs, writing", "reading the state"
    return [
        figures.compared(
            f"{name}, wall", "s", [u.wall_s for u in ours], peer, [u.wall_s for u in floors]
        ),
        figures.compared(
            f"{name}, memory", "MB", [u.peak_mb for u in ours], peer, [u.peak_mb for u in floors]
        ),
    ]


def _loads(page: Path, rounds: int) -> dict[str, Any]:
    """Return the milliseconds until the page and its floor are loaded; nothing without a browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - optional
    except ImportError:
        return {}
    if browser is None:
        return {}
    data = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert data is not None
    floor = page.with_name("floor.html")
    floor.write_text(PAGE.replace("{data}", data[1]), "utf-8")
    ours: list[float] = []
    floors: list[float] = []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for _ in range(rounds):
            for path, times in ((page, ours), (floor, floors)):
                tab = started.new_page()
                tab.goto(path.as_uri())
                times.append(
                    tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
                )
                tab.close()
        started.close()
    return {"load ms": ours, "floor ms": floors}


def _loaded(jobs: int, row: dict[str, Any]) -> list[figures.Figure]:
    if "load ms" not in row:
        return []
    ours, floors = row.pop("load ms"), row.pop("floor ms")
    name = f"{jobs} jobs, loading"
    goal = GOALS[jobs]
    return [
        figures.compared(name, "ms", ours, "the same data in an empty page", floors, at_most=goal)
    ]


if __name__ == "__main__":
    figures.main(measure)
