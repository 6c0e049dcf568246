"""However a run ends: summary, `status`, `ledger` and the provider's own count and price agree."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from patience import PATIENCE_S, until

from batch.sandbox import FaultPlan

PRICE = 0.42
STUCK = {"median_s": 600.0}


class Accounts:
    """A folder, a provider, and every number that is printed about them."""

    def __init__(self, shell: Any, box: Any, jobs: Any = 4, **keys: Any) -> None:
        self.shell = shell
        self.box = box
        manifest = shell.manifest(jobs, prices={"kling-v2-6": PRICE}, **keys)
        self.args = ("run", manifest, "--base-url", box.base_url, "--json")

    def run(self, *flags: str) -> Any:
        """Run to the end; return the summary."""
        return self.shell(*self.args, *flags).json

    def interrupted(self, *signals: int, when: Callable[[], bool]) -> Any:
        """Run, send *signals* once *when* is true, and return the summary."""
        with self.shell.running(*self.args) as process:
            until(when)
            for number in signals:
                process.send_signal(number)
                until(lambda: b"next run" in process.stderr.readline())
            out, _err = process.communicate(timeout=PATIENCE_S)
        return json.loads(out) if out else None

    def check(self, summary: Any = None) -> dict[str, Any]:
        """Check that all numbers agree; return the figures of `status`."""
        (status,) = self.shell("status", "--json", key=None).json
        ledger = self.shell("ledger", "--json", key=None).json
        figures, created = status["figures"], self.box.stats.created
        assert figures["tasks"] == status["tasks_paid"] == len(ledger["tasks"])
        assert figures["tasks"] <= created <= figures["tasks"] + figures["perhaps_paid"]
        assert figures["cost_usd"] == round(figures["tasks"] * PRICE, 6)
        assert ledger["total"] == {name: figures[name] for name in ledger["total"]}
        assert len(status["unconfirmed"]) == len(ledger["perhaps_paid"]) == figures["perhaps_paid"]
        endings = ("succeeded", "failed", "timed_out", "open", "to_download")
        assert figures["tasks"] == sum(figures[name] for name in endings)
        if summary is not None:
            assert summary["library"] == figures
            assert summary["cost_usd"] == round(summary["tasks_created"] * PRICE, 6)
        return figures

    def check_first(self, summary: Any) -> dict[str, Any]:
        """Check the summary of a folder's first run: it has created everything."""
        figures = self.check(summary)
        assert summary["tasks_created"] == figures["tasks"]
        return figures


@pytest.fixture
def accounts(shell: Any, sandbox: Any) -> Callable[..., Accounts]:
    """Give a function that opens a folder at a provider with faults and options."""

    def opened(*faults: str, options: Any = None, jobs: Any = 4, **keys: Any) -> Accounts:
        return Accounts(shell, sandbox(*faults, **(options or {})), jobs, **keys)

    return opened


def test_all_succeed(accounts: Any) -> None:
    books = accounts()
    assert books.check_first(books.run())["succeeded"] == books.box.stats.created == 4
    quiet = books.run()
    assert (quiet["tasks_created"], quiet["cost_usd"]) == (0, 0.0)
    assert books.check(quiet)["tasks"] == 4


def test_moderation(accounts: Any) -> None:
    """A refused request costs nothing, a failed task does."""
    jobs = [{"id": name, "prompt": f"sandbox:{name}"} for name in ("moderation", "refused", "x")]
    books = accounts(jobs=jobs)
    figures = books.check_first(books.run())
    assert figures["tasks"] == books.box.stats.created


def test_failed_three_times(accounts: Any) -> None:
    books = accounts("outcome:generation", jobs=2)
    summary = books.run()
    assert books.check_first(summary)["failed"] == books.box.stats.created == 6
    assert summary["outcomes"] == {"failed": 2}


def test_lost_answers(accounts: Any) -> None:
    """Without look-up they are perhaps paid, and cost nothing for certain."""
    books = accounts("submit:drop-after:until=2", options={"lookup": False})
    summary = books.run()
    figures = books.check_first(summary)
    assert (figures["tasks"], figures["perhaps_paid"]) == (2, 2)
    assert summary["outcomes"]["unconfirmed"] == 2
    again = books.run()
    assert again["tasks_created"] == 0
    assert books.check(again) == figures


def test_lost_answers_found(accounts: Any) -> None:
    books = accounts("submit:drop-after:until=2")
    assert books.check_first(books.run())["succeeded"] == books.box.stats.created == 4


def test_deadline(accounts: Any) -> None:
    books = accounts(options=STUCK)
    figures = books.check_first(books.run("--deadline", "1s"))
    assert figures["open"] == books.box.stats.created == 4


def test_budget(accounts: Any) -> None:
    """Forty jobs, money for three: what was set aside and not used is in no sum."""
    books = accounts(jobs=5)
    summary = books.run("--budget", "1.30")
    assert books.check_first(summary)["tasks"] == books.box.stats.created == 3
    assert summary["left"] == 2


def test_refusal_amid_the_run(accounts: Any) -> None:
    """The account runs out of credit after two tasks."""
    books = accounts("submit:429-credit:after=2", limits={"max_in_flight": 1})
    assert books.check_first(books.run())["tasks"] == books.box.stats.created == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal(accounts: Any, number: int) -> None:
    books = accounts(options=STUCK)
    summary = books.interrupted(number, when=lambda: books.box.stats.queries >= 4)
    assert books.check_first(summary)["open"] == books.box.stats.created == 4
    assert summary["left"] == 4


def test_two_signals(accounts: Any) -> None:
    """Three videos are on their way: paid for, not here, and in the summary."""
    books = accounts(
        "download:slow:bytes_per_s=2000,after=1",
        options={"video_bytes": 500_000},
        limits={"max_in_flight": 4},
    )
    when = lambda: books.box.stats.downloads == 4 and landed(books) == 1  # noqa: E731
    with books.shell.running(*books.args) as process:
        until(when)
        process.send_signal(signal.SIGINT)
        line = process.stderr.readline()
        while b"once more" not in line:
            line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _err = process.communicate(timeout=PATIENCE_S)
    summary = json.loads(out)
    figures = books.check_first(summary)
    assert (figures["tasks"], figures["to_download"]) == (4, 3)
    assert (summary["outcomes"], summary["left"]) == ({"succeeded": 1}, 3)
    books.box.set_faults(FaultPlan())
    last = books.run()
    assert last["tasks_created"] == 0
    assert books.check(last)["succeeded"] == books.box.stats.created == 4


def landed(books: Accounts) -> int:
    """Count the rows of results.jsonl."""
    path = books.shell.folder / "outputs/night/results.jsonl"
    return len(path.read_text("utf-8").splitlines()) if path.exists() else 0


def test_kill_and_next_run(accounts: Any) -> None:
    """A killed run has no summary; the next one has created only what it has created."""
    books = accounts(options={"median_s": 1.0}, limits={"max_in_flight": 2})
    with books.shell.running(*books.args) as process:
        until(lambda: books.box.stats.queries >= 1 and books.box.stats.created == 2)
        process.kill()
        process.wait()
    books.check()
    before = books.box.stats.created
    summary = books.run()
    assert books.check(summary)["succeeded"] == books.box.stats.created == 4
    assert summary["tasks_created"] == 4 - before


def test_state_that_cannot_be_written(accounts: Any) -> None:
    """Its file may not grow any more; what was under way is perhaps paid, and found by the next run."""
    books = accounts(jobs=30, limits={"max_in_flight": 8, "settle_time": "1s"})
    whole = books.shell.command
    books.shell.command = ("bash", "-c", 'ulimit -f 250; exec "$0" "$@"', *whole)
    assert books.shell(*books.args).code == 1
    books.check()
    assert books.box.stats.created < 30
    books.shell.command = whole
    summary = books.run()
    assert books.check(summary)["succeeded"] == books.box.stats.created == 30
