"""Callbacks of a fleet, all of which one worker receives: real workers, Postgres and a provider that calls."""

from __future__ import annotations

import signal
import socket
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from ports import free_port
from test_fleet import Fleet, fleet, nursery, send

from batch.callbacks.hints import hash_token
from batch.sandbox import Sandbox

__all__ = ["fleet", "nursery"]  # fixtures
LONG = {"poll_interval": "1h"}  # what is polled sooner was called back


class Studio:
    """A fleet whose callbacks all go to worker *two*."""

    def __init__(self, fleet: Fleet, box: Sandbox) -> None:
        self.fleet, self.box = fleet, box
        fleet.box = box
        self.ports = {name: free_port() for name in ("one", "two")}

    def worker(self, name: str, point: str = "") -> Any:
        """Start a worker."""
        environ = {
            "KLING_BATCH_CALLBACK_URL": f"http://127.0.0.1:{self.ports['two']}/kling",
            "KLING_BATCH_CALLBACK_LISTEN": f"127.0.0.1:{self.ports[name]}",
        }
        return self.fleet.worker(name, point, environ=environ)

    def listening(self) -> bool:
        """Return whether worker *two* receives."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.ports["two"])):
            return True
        return False

    def waits(self, count: int) -> bool:
        """Return whether so many tasks are on disk, and look-up has proved itself with one of them."""
        with psycopg.connect(self.fleet.url) as connection:
            found = connection.execute("SELECT state FROM kling.attempts").fetchall()
        return found == [("Open",)] * count and self.box.stats.lookups >= 1

    def polls(self) -> Counter[str]:
        """Return how often each task was polled, by whichever id."""
        stats = self.box.stats
        return Counter({"by our id": stats.lookups}) + Counter(stats.queries_per_task)

    def finish(self) -> None:
        """Have the provider end all its tasks now, and call back."""
        request = urllib.request.Request(f"{self.box.base_url}/sandbox/finish", b"{}")
        urllib.request.urlopen(request).close()

    def tokens(self) -> list[str]:
        """Return the tokens that the provider was given."""
        urls = [task.body["callback_url"] for task in self.box.tasks]
        return [str(url).rpartition("/")[2] for url in urls]


@pytest.fixture
def studio(fleet: Fleet, sandbox: Callable[..., Sandbox]) -> Studio:
    return Studio(fleet, sandbox(median_s=36_000.0))


def test_callback_at_an_idle_worker_is_polled_at_once(studio: Studio, cluster: Any) -> None:
    """Worker one has all the jobs, and two is called: one poll a task, an hour before it is due."""
    its, box = studio.fleet, studio.box
    manifest = its.manifest(4, limits=LONG)
    with studio.worker("one"), its.running(manifest, "--json") as run:
        its.shell.until(lambda: studio.waits(4))
        with studio.worker("two"):
            its.shell.until(studio.listening)
            before, missed = studio.polls(), box.stats.failed_callbacks
            studio.finish()
            out, err = run.communicate(timeout=100)
    assert run.returncode == 0, err.decode()
    assert (studio.polls() - before).total() == 4
    assert box.stats.failed_callbacks == missed
    assert box.stats.posts == box.stats.created == 4
    said = its.said("one") + its.said("two") + err.decode() + out.decode()
    kept = cluster.dump(its.url)
    for token in studio.tokens():
        assert token not in said + kept
        assert hash_token(token) in kept


def test_successor_receives_the_dead_workers_callbacks(studio: Studio) -> None:
    its, box = studio.fleet, studio.box
    manifest = its.manifest(2, limits=LONG)
    with studio.worker("one") as first, its.running(manifest, "--json") as run:
        its.shell.until(lambda: studio.waits(2))
        before = studio.polls()
        with studio.worker("two"):
            send(first, signal.SIGKILL)
            # Whoever takes a job over polls its task once.
            its.shell.until(lambda: (studio.polls() - before).total() == 2)
            studio.finish()
            _, err = run.communicate(timeout=100)
    assert run.returncode == 0, err.decode()
    assert (studio.polls() - before).total() == 4
    assert box.stats.posts == box.stats.created == 2


@pytest.mark.parametrize("point", ["before relay", "after relay"])
def test_receiver_that_dies_of_a_callback_delays_it(studio: Studio, point: str) -> None:
    """The job is polled when it is due."""
    its, box = studio.fleet, studio.box
    manifest = its.manifest(2, limits={"poll_interval": "500ms"})
    with studio.worker("one"), its.running(manifest, "--json") as run:
        its.shell.until(lambda: studio.waits(2))
        with studio.worker("two", point):
            its.shell.until(studio.listening)
            studio.finish()
            _, err = run.communicate(timeout=100)
    assert run.returncode == 0, err.decode()
    assert f"at {point}" in its.said("two")
    assert box.stats.posts == box.stats.created == 2


@pytest.mark.parametrize("name", ["URL", "LISTEN"])
def test_worker_needs_both_options(studio: Studio, name: str) -> None:
    value = {"URL": "https://studio.example/kling", "LISTEN": "127.0.0.1:8090"}[name]
    environ = {"KLING_BATCH_ENGINE": studio.fleet.url, f"KLING_BATCH_CALLBACK_{name}": value}
    said = studio.fleet.shell("worker", **environ)
    assert said.code == 2
    assert "callbacks need both" in said.err


def test_worker_that_cannot_listen_ends(studio: Studio) -> None:
    """Its operator has asked for it, unlike one whose run names an address that is taken there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ("--callback-url", "https://studio.example", "--callback-listen", place)
        said = studio.fleet.shell("worker", *flags, KLING_BATCH_ENGINE=studio.fleet.url)
    assert (said.code, f"cannot listen for callbacks on {place}" in said.err) == (2, True)


def test_run_lends_its_callbacks_to_workers(studio: Studio) -> None:
    """To those that were given none: one of a machine listens there, and all give the address out."""
    its, box = studio.fleet, studio.box
    place = f"127.0.0.1:{studio.ports['two']}"
    callback = {"url": f"http://{place}/kling", "listen": place}
    manifest = its.manifest(4, limits=LONG, callback=callback)
    with its.worker("one"), its.worker("two"), its.running(manifest, "--json") as run:
        its.shell.until(lambda: studio.waits(4))
        studio.finish()
        _, err = run.communicate(timeout=100)
    assert run.returncode == 0, err.decode()
    assert max(box.stats.queries_per_task.values()) == 1
    assert (box.stats.created, box.stats.failed_callbacks) == (4, 0)
