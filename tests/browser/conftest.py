"""A real browser on the page of a real folder: chromium, driven by Playwright.

The folder is made by three nights against a sandbox with faults. Its page may load nothing from
elsewhere and may violate no rule of its policy: every page that a test opens is watched.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from batch.clock import SystemClock
from batch.manifest.reader import load
from batch.report.posters import Mode
from batch.report.write import write_report
from batch.run.execute import execute
from batch.run.planner import open_planned_run
from batch.run.presence import Presence
from batch.sandbox import FaultPlan, SandboxConfig, serve
from batch.settings import resolve

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

KEY = "sk-verysecretkey0123456789"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective + " " + e.blockedURI));
"""
LIMITS = {
    "submit_rate": "1000/s",
    "max_in_flight": 4,
    "poll_interval": "50ms",
    "task_timeout": "700ms",
    "settle_time": "100ms",
    "stall_timeout": "150ms",
}
ODD = "odd #1 100% & 'y'; --x"
ARABIC = "عربي/قمر"
LONG = "a-very-long-identifier-" + "x" * 120
SCRIPT = "</script><img src=x onerror=document.title='pwned'><!-- <script>"
JOBS: list[dict[str, Any]] = [
    {"id": "fox", "prompt": "A fox at dawn, static camera, soft light", "tags": ["nature"]},
    {"id": "deer", "prompt": "A deer in the snow", "duration": 5, "tags": ["nature"]},
    {"id": "teacup", "prompt": "Steam over a teacup", "aspect_ratio": "1:1", "model": "kling-v3"},
    {"id": "city/night", "prompt": "A city at night", "aspect_ratio": "9:16", "tags": ["city"]},
    {"id": ODD, "prompt": SCRIPT},
    {"id": ARABIC, "prompt": "قمر فوق البحر، موج هادئ"},
    {"id": LONG, "prompt": "long " * 80},
    {"id": "refused", "prompt": "sandbox:moderation"},
    {"id": "stuck", "prompt": "sandbox:stuck"},
    {"id": "cut", "prompt": "A cut download"},
    {"id": "lost", "prompt": "A video that somebody deletes"},
    {"id": "broken", "prompt": "A video that somebody damages"},
    {"id": "gone", "prompt": "A job that leaves the manifest"},
]
CHANGED = [
    {**JOBS[0], "prompt": "A fox at dawn, slow push in, soft light"},
    {**JOBS[1], "duration": 10, "aspect_ratio": "9:16"},
    *JOBS[2:-1],
    {"id": "owl", "prompt": "An owl that is new", "model": "kling-v3"},
]


def _browser_path() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


async def _nights(root: Path, jobs: list[list[dict[str, Any]]]) -> None:
    faults = ["download:cut:match=A cut*"]
    config = SandboxConfig(median_s=0.1, sigma=0.2, seed=3, faults=FaultPlan.from_strings(faults))
    async with serve(config) as box:
        for listed in jobs:
            path = root.parent / "night.yaml"
            manifest = {"version": 1, "limits": LIMITS, "jobs": listed}
            path.write_text(json.dumps(manifest), "utf-8")
            loaded = load(path)
            given: Any = {"output_dir": root, "base_url": box.base_url, "api_key": KEY, "new": True}
            with open_planned_run(loaded, resolve(loaded, given, {}), SystemClock()) as planned:
                await execute(planned, [], SystemClock())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output folder after two nights with trouble; its name is an awkward one."""
    root = tmp_path_factory.mktemp("made") / "nature loops #1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batch.run.fetch.RETRY_BASE_S", 0.01)
        patch.setattr("batch.run.fetch.RETRY_CAP_S", 0.02)
        with ThreadPoolExecutor(1) as apart:  # Playwright may have a loop in this thread
            apart.submit(asyncio.run, _nights(root, [JOBS, CHANGED])).result()
    (root / "videos/lost.mp4").unlink()
    broken = root / "videos/broken.mp4"
    whole = broken.stat()
    broken.write_bytes(b"\0" * whole.st_size)
    os.utime(broken, ns=(whole.st_atime_ns, whole.st_mtime_ns))  # no plan notices that
    return root


@pytest.fixture(scope="session")
def report(folder: Path) -> Path:
    """Return the page of the folder, with its posters inside."""
    return write_report(folder, Presence, mode=Mode.INLINE).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start the browser; while it is there, Playwright's loop runs in this thread, and no other can."""
    path = _browser_path()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        # In a container the browser's own sandbox cannot be set up.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Callable[..., Any]]:
    """Give a function that opens a page and watches it."""
    contexts, pages = [], []

    def open_page(path: Path | str = report, hash_: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.set_default_timeout(5_000)
        page.troubles, page.requested = [], []
        page.on("console", lambda message: page.troubles.append(message.text))
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on("request", lambda request: page.requested.append(request.url))
        pages.append(page)
        page.goto((path.as_uri() if isinstance(path, Path) else path) + hash_)
        return page

    yield open_page
    for page in pages:
        violations = page.evaluate("window.violations ?? []")
        assert not violations, violations
        told = [text for text in page.troubles if "ERR_FILE_NOT_FOUND" not in text]
        assert not told, told
        for url in page.requested:
            assert urlsplit(url).scheme in {"file", "data", "blob"} or "127.0.0.1" in url, url
    for context in contexts:
        context.close()
