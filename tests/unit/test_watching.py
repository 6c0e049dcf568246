"""What watches a run beside screen and log."""

from __future__ import annotations

import threading

from batch.cli.watching import PageAhead
from batch.events import Submitted
from batch.report import page


def submit(watcher: PageAhead, number: int) -> None:
    watcher.notify(Submitted(f"job-{number}", "8", f"kb-{number}", 1))


def test_page_is_prepared_after_last_submission() -> None:
    """Not before it: until then the machine has other work."""
    page._template.cache_clear()
    watcher = PageAhead(2)
    submit(watcher, 1)
    early = page._template.cache_info().currsize
    submit(watcher, 2)
    for thread in threading.enumerate():
        if thread.name == "page":
            thread.join()
    assert (early, page._template.cache_info().currsize) == (0, 1)
