"""The provider of the nights: the sandbox's API in memory, on virtual time, with dice of its own.

It outlives every run, as the real one does. The way of a process to it is in `fake_api`.
"""

from __future__ import annotations

import json
import random
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from virtual_time import EPOCH

from batch.provider.wire import SUBMIT_PATH
from batch.sandbox.api import Api, Request
from batch.sandbox.config import SandboxConfig
from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultPlan
from batch.sandbox.shapes import Answer
from batch.sandbox.video.clips import render
from batch.sandbox.video.mp4 import free_header
from batch.sandbox.world import World

WORKS, SILENT, ABSENT, RELAY = "works", "silent", "absent", "relay"
"""The answer to a look-up by external id: the task; a page; always "not found"; another task."""
INVALID, FORBIDDEN, UNKNOWN = "sandbox:invalid", "sandbox:unsafe", "sandbox:unknown-words"
MODERATED, REWORDED = "moderation", "reworded-moderation"  # the former is part of the latter
FAILS = "sandbox:generation*"  # and how often
_CDN, _API = "https://cdn", "https://simulated.example"
_BY_LOOK_UP = {WORKS: (), SILENT: ("404-html",), ABSENT: ("404",), RELAY: ("other-task",)}
_THROTTLES = (
    *("429", "429:retry_after=1", "429:retry_after=20:moment=s", "1303:retry_after=1:moment=ms"),
    *("1303", "throttled-words", "saturated-words", "403-rate-limit", "200-429"),
)
_UNCLEAR = (  # answers to a POST that leave open whether there is a task
    *("502-before", "502-after", "504-after", "500-after", "5000-before"),
    *("html-2xx-before", "garbled-2xx", "empty-2xx"),
)
_BAD_ANSWERS = ("1000", "429:retry_after=15", "502", "504", "html-2xx", "garbled-2xx")
_LIES = ("unknown-status", "backwards", "no-url")


@dataclass
class Rates:
    """How often something goes wrong, between 0 and 1."""

    submit: float = 0.0
    query: float = 0.0
    fetch: float = 0.0
    throttle: float = 0.0
    disk: float = 0.0
    store: float = 0.0


@dataclass
class Ways:
    """How this provider is, beyond the configuration of its sandbox."""

    look_up: str = WORKS
    shape: int = 1  # of its answers; 0: each of the five
    link: str = ""  # where it stands, if not in its usual place
    resumes: bool = True
    clip_bytes: int = 5000
    calls_back: float | None = None  # how many of its callbacks arrive; None: none were asked for


@dataclass
class ProviderTask:
    """A task: paid for. Times are those of the loop; *fails* is the fault it ends by."""

    task_id: str
    external_task_id: str
    prompt: str
    created: float
    ends: float
    fails: str | None
    content: bytes
    callback_url: str | None


@dataclass
class Post:
    """A request that left a process."""

    external_task_id: str
    at: float
    run: int
    task_id: str | None = None
    prompt: str = ""


@cache
def template() -> bytes:
    return render("simulation", "", "1:1", 5).content()


def video(task_id: str, size: int) -> bytes:
    """Return a whole video of *size* bytes that differs from every other task's."""
    filler = random.Random(task_id).randbytes(max(size - len(template()) - 8, 32))
    return template() + free_header(len(filler)) + filler


def size_of(task_id: str, least: int) -> int:
    """Return the size of a task's video: hardly two have the same."""
    return max(least, len(template())) + random.Random(task_id).randrange(3000)


def weather(ways: Ways, rates: Rates, seed: int) -> FaultPlan:
    """Return the fault plan of one run."""
    odds = (
        ("submit", rates.throttle, _THROTTLES),
        ("submit", rates.submit / 3, _UNCLEAR),
        ("query", rates.query, (*_BAD_ANSWERS, *_LIES, "404", "other-task")),
        ("lookup", rates.query / 2, _BAD_ANSWERS),
        ("lookup", 1.0, _BY_LOOK_UP[ways.look_up]),  # before the lies: they find the task
        ("lookup", rates.query / 2, _LIES),
    )
    rules = [
        f"{where}:{kind}:rate={rate / len(kinds)}"
        for where, rate, kinds in odds
        for kind in kinds
        if rate
    ]
    for where in ("submit", "query", "lookup"):
        rules += [f"{where}:shape:{ways.shape}", f"{where}:numeric-ids:0.1"]
    if ways.link:
        rules += [f"{where}:link:{ways.link}" for where in ("query", "lookup")]
    return FaultPlan.from_strings(rules, seed=seed)


@dataclass
class Parcel:
    """A request on its way, and the answer once it has arrived."""

    arrives: float
    request: Request
    answer: Answer | None = None


class Provider:
    """Creates tasks, and remembers everything."""

    def __init__(self, ways: Ways, config: SandboxConfig, rng: random.Random) -> None:
        self.ways = ways
        self.rng = rng
        self.tasks: dict[str, ProviderTask] = {}
        self.by_external: dict[str, ProviderTask] = {}  # the latest of that id
        self.posts: list[Post] = []
        self.looks: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.called_back: dict[str, list[float]] = defaultdict(list)  # when an end was announced
        self.misnamed: set[str] = set()  # forged callbacks for another attempt have named these
        self.said_success: set[str] = set()
        self.duplicates_paid: list[str] = []
        self.on_created: Callable[[ProviderTask], None] = lambda _task: None
        self._travelling: list[Parcel] = []
        self._moment = 0.0
        self._world = World.from_config(config, lambda: EPOCH + self._moment)
        self._world.links.origin, self._world.links.api_origin = _CDN, _API
        self._api = Api(self._world, self._remember)
        self.configure = self._world.configure

    def set_rates(self, rates: Rates) -> None:
        """Apply faults at these rates from now on."""
        self._world.faults.replace(weather(self.ways, rates, self.rng.getrandbits(32)))

    def send(self, body: dict[str, Any], account: str, arrives: float) -> Parcel:
        """Send a request on its way; it arrives even if its sender dies."""
        request = Request("POST", SUBMIT_PATH, _key(account), json.dumps(body).encode())
        parcel = Parcel(arrives, request)
        insort(self._travelling, parcel, key=lambda parcel: parcel.arrives)
        return parcel

    def query(self, identifier: str, account: str, now: float) -> Answer:
        """Answer a query for one task."""
        self.catch_up(now)
        self._moment = now
        return self._api.answer(Request("GET", f"{SUBMIT_PATH}/{identifier}", _key(account)))[0]

    def catch_up(self, now: float) -> None:
        """Serve the requests that have arrived by now."""
        while self._travelling and self._travelling[0].arrives <= now:
            parcel = self._travelling.pop(0)
            self._moment = parcel.arrives
            parcel.answer = self._api.answer(parcel.request)[0]

    def linked(self, url: str, now: float) -> ProviderTask | None:
        """Return the task that a signed link leads to, or None if it is not valid any more."""
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        return self.tasks.get(self._world.links.check(parts.path, query, EPOCH + now) or "")

    def _remember(self, task: Task) -> None:
        assert task.external_task_id is not None
        assert task.finished_at is not None
        if task.external_task_id in self.by_external:
            self.duplicates_paid.append(task.external_task_id)
        made = ProviderTask(
            task_id=task.task_id,
            external_task_id=task.external_task_id,
            prompt=task.prompt,
            created=self._moment,
            ends=task.finished_at - EPOCH,
            fails=task.fault,
            content=b""
            if task.fault
            else video(task.task_id, size_of(task.task_id, self.ways.clip_bytes)),
            callback_url=task.body.get("callback_url"),
        )
        self.tasks[task.task_id] = self.by_external[task.external_task_id] = made
        self.on_created(made)


def _key(account: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {account}"}
