"""Two manifests, one key, one machine: the limits belong to the account."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from patience import PATIENCE_S

JOBS, MOST, RATE = 30, 20, 20
LIMITS = {"submit_rate": f"{RATE}/s", "max_in_flight": MOST}


class Nights:
    """Two manifests that are run at once against one provider."""

    def __init__(self, shell: Any, sandbox: Callable[..., Any]) -> None:
        self.shell, self.provider = shell, sandbox(median_s=2.0)

    def run(self, *flags: str, **limits: Any) -> list[int]:
        """Run both to the end; return their exit codes."""
        with ExitStack() as exits:
            runs = [self.begin(exits, name, *flags, **limits) for name in ("one", "two")]
            return [run.wait(timeout=PATIENCE_S) for run in runs]

    def begin(
        self, exits: ExitStack, name: str, *flags: str, **limits: Any
    ) -> subprocess.Popen[bytes]:
        """Start one of them."""
        jobs = [{"id": f"{name}-{n}", "prompt": f"{name} fox {n}"} for n in range(JOBS)]
        manifest = self.shell.manifest(
            jobs, f"{name}.yaml", base_url=self.provider.base_url, limits={**LIMITS, **limits}
        )
        process: subprocess.Popen[bytes] = exits.enter_context(
            self.shell.running("run", manifest, "--quiet", *flags)
        )
        return process

    @property
    def most_a_second(self) -> int:
        """The most submissions in any second."""
        times = sorted(self.provider.stats.post_times)
        return max(
            sum(begun <= time < begun + 1.0 for time in times[at : at + 100])
            for at, begun in enumerate(times)
        )


@pytest.fixture
def nights(shell: Any, sandbox: Callable[..., Any]) -> Nights:
    return Nights(shell, sandbox)


def test_two_runs_keep_to_the_accounts_limits(nights: Nights) -> None:
    assert nights.run() == [0, 0]
    stats = nights.provider.stats
    assert (stats.created, stats.most_in_flight) == (2 * JOBS, MOST)
    assert nights.most_a_second <= RATE
    owners = [task.prompt.split()[0] for task in nights.provider.tasks]
    assert max(len(list(same)) for _, same in itertools.groupby(owners)) < JOBS, (
        "one after the other"
    )


@pytest.mark.parametrize(
    ("flags", "limits"), [(["--no-share-account"], {}), ([], {"share_account": False})]
)
def test_runs_that_share_nothing_keep_to_their_own(
    nights: Nights, flags: list[str], limits: dict[str, Any]
) -> None:
    assert nights.run(*flags, **limits) == [0, 0]
    assert nights.provider.stats.most_in_flight > MOST


def test_run_goes_on_with_the_slots_of_a_killed_one(nights: Nights) -> None:
    """What the killed one has open is still open at the provider, which may refuse for it."""
    with ExitStack() as exits:
        first = nights.begin(exits, "one")
        nights.shell.until(lambda: nights.provider.stats.created >= 5)
        second = nights.begin(exits, "two")
        nights.shell.until(lambda: nights.provider.stats.created >= 25)
        first.kill()
        assert second.wait(timeout=PATIENCE_S) == 0
        assert nights.begin(exits, "one").wait(timeout=PATIENCE_S) == 0
    assert nights.provider.stats.created == 2 * JOBS


def test_stopped_run_waits_for_no_other(nights: Nights) -> None:
    with ExitStack() as exits:
        nights.provider.configure(median_s=60.0)
        nights.begin(exits, "one", max_in_flight=1)
        nights.shell.until(lambda: nights.provider.stats.created == 1)
        second = nights.begin(exits, "two", max_in_flight=1)
        (book,) = (nights.shell.folder.parent / "state/kling-batch").glob(
            "account-????????????????"
        )
        nights.shell.until(lambda: book.read_text().count(": [1,") == 2)
        second.terminate()
        assert second.wait(timeout=PATIENCE_S) == 143
    assert nights.provider.stats.posts == 1


def test_unwritable_book_is_told_and_stops_nothing(shell: Any, sandbox: Callable[..., Any]) -> None:
    (shell.folder.parent / "state").write_text("a file, not a folder")
    said = shell("run", shell.manifest(base_url=sandbox().base_url))
    assert said.code == 0
    assert said.err.count("limits are not shared with other runs of this account") == 1


def test_sandbox_run_shares_nothing(shell: Any) -> None:
    assert shell("run", shell.manifest(), "--sandbox").code == 0
    assert not (shell.folder.parent / "state").exists()
