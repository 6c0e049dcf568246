"""The promises of `State`, kept by every implementation: a new one joins `IMPLEMENTATIONS`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from every_state import DOUBT, EVERY_STATE, TASK
from libraries_in_postgres import library_in
from memory_state import MemoryState
from scripted import ACCOUNT, SAID, attempt, generated, landed, opened

from batch.attempt import (
    Account,
    Attempt,
    AttemptState,
    Checked,
    Discarded,
    Doubt,
    Failed,
    Intended,
    Lost,
    PaidTask,
    Phase,
    Unconfirmed,
)
from batch.errors import RefusedError
from batch.output.results import ResultsFile
from batch.output.sqlite import Database
from batch.output.state import (
    AddRow,
    Change,
    GenerationTime,
    NotUploaded,
    Payment,
    Proof,
    Put,
    State,
    Uploaded,
    Withdraw,
)
from batch.output.writer import SqliteState
from batch.plan import Known


@dataclass(frozen=True)
class Subject:
    """An implementation, and how its rows are read."""

    state: State
    rows: Callable[[], list[str]]


@asynccontextmanager
async def sqlite(root: Path, _engine_url: Callable[[], str]) -> AsyncIterator[Subject]:
    """Open a real file with a real thread."""
    path = root / "results.jsonl"
    with (
        Database.open(root / "state.db") as database,
        SqliteState(database, ResultsFile(path)) as state,
    ):
        yield Subject(state, lambda: path.read_text().splitlines() if path.exists() else [])


@asynccontextmanager
async def memory(_root: Path, _engine_url: Callable[[], str]) -> AsyncIterator[Subject]:
    state = MemoryState()
    yield Subject(state, lambda: state.rows)


@asynccontextmanager
async def postgres(_root: Path, engine_url: Callable[[], str]) -> AsyncIterator[Subject]:
    """Open a library in a fresh database, over a real connection."""
    async with library_in(engine_url()) as library:
        yield Subject(library.state, library.rows)


IMPLEMENTATIONS: list[Callable[[Path, Callable[[], str]], AbstractAsyncContextManager[Subject]]] = [
    sqlite,
    memory,
    postgres,
]


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda made: made.__name__)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    async with request.param(tmp_path, lambda: request.getfixturevalue("emptied_url")) as made:
        yield made


@pytest.fixture
def state(subject: Subject) -> State:
    return subject.state


async def ids(state: State) -> list[str]:
    """Return the external ids of all attempts."""
    return [known.external_task_id for job in (await state.known()).values() for known in job]


# -- attempts


def test_every_state_is_tried_here() -> None:
    assert {type(state) for state in EVERY_STATE} == set(get_args(AttemptState))


@pytest.mark.parametrize("reached", EVERY_STATE, ids=lambda reached: type(reached).__name__)
async def test_committed_attempt_reads_back_equal(state: State, reached: AttemptState) -> None:
    made = replace(attempt(reached), number=3, polls=7, cost_usd=0.5, token_hash="0f")
    await state.commit(Put(made))
    assert await state.attempt("kb-1") == made


async def test_later_put_replaces_the_attempt(state: State) -> None:
    """Its job too: a job that was renamed takes its attempts along."""
    await state.commit(Put(attempt(opened())))
    moved = replace(attempt(generated(), job_id="b"), number=2, polls=1, cost_usd=0.2)
    await state.commit(Put(moved))
    assert await state.attempt("kb-1") == moved
    assert list(await state.known()) == ["b"]


async def test_unknown_attempt_is_a_key_error(state: State) -> None:
    with pytest.raises(KeyError, match="kb-9"):
        await state.attempt("kb-9")


async def test_withdrawn_attempt_is_gone(state: State) -> None:
    await state.commit(Put(attempt()))
    await state.commit(Withdraw("kb-1"), Withdraw("kb-9"))
    with pytest.raises(KeyError, match="kb-1"):
        await state.attempt("kb-1")
    await state.commit(Put(attempt(name="kb-2")))
    assert await ids(state) == ["kb-2"]


async def test_known_is_by_job_in_order(state: State) -> None:
    unexplained = replace(SAID, message="no", is_unexplained=True)
    mine = replace(attempt(landed("8", "videos/a.mp4", 9)), cost_usd=0.21)
    await state.commit(
        Put(attempt(opened("9"), name="kb-0", job_id="b")),
        Put(replace(attempt(Failed(unexplained, 2.0), name="kb-3"), number=3)),
        Put(mine),
        Put(replace(attempt(Lost(1.0, DOUBT), name="kb-2"), number=2)),
    )
    known = await state.known()
    assert await state.known_of("a") == known["a"]
    assert await state.known_of("c") == []
    assert list(known) == ["a", "b"]
    assert {job: [(one.number, one.phase) for one in of] for job, of in known.items()} == {
        "a": [(1, Phase.LANDED), (2, Phase.LOST), (3, Phase.FAILED)],
        "b": [(1, Phase.OPEN)],
    }
    failures = [(one.failure_kind, one.failure_message, one.is_unexplained) for one in known["a"]]
    assert failures == [
        (None, None, False),
        ("provider", "said so", False),
        ("provider", "no", True),
    ]
    expected = (mine.fingerprint, Phase.LANDED, "8", None, "videos/a.mp4", 9, 0.21, 3.0)
    assert known["a"][0] == Known("kb-1", "a", 1, *expected, sent_at=mine.sent_at)


@pytest.mark.parametrize("reached", EVERY_STATE, ids=lambda reached: type(reached).__name__)
async def test_attempt_in_short_tells_when_sent(state: State, reached: AttemptState) -> None:
    made = attempt(reached)
    await state.commit(Put(made))
    assert [item.sent_at for item in (await state.known())["a"]] == [made.sent_at]


async def test_payments_are_those_sent_since_a_moment(state: State) -> None:
    """Tasks by when they were submitted, attempts in doubt by when they were sent; no refusals."""
    for number, item in enumerate(EVERY_STATE):
        task = getattr(item, "task", None)
        mine = item if task is None else replace(item, task=replace(task, task_id=f"8{number}"))
        name = f"kb-{number}"
        await state.commit(Put(replace(attempt(mine, name=name, job_id=name), cost_usd=0.21)))
    found = {item.external_task_id: item for item in await state.payments(1.0)}
    refused = {f"kb-{n}" for n, item in enumerate(EVERY_STATE) if item == Failed(SAID, 2.0)}
    assert {f"kb-{number}" for number in range(len(EVERY_STATE))} - found.keys() == refused
    assert found["kb-0"] == Payment("kb-0", Phase.INTENDED, None, 0.21, 1.5)
    assert found["kb-5"] == Payment("kb-5", Phase.TIMED_OUT, "85", 0.21, 1.0)
    later = {item.external_task_id for item in await state.payments(1.25)}
    assert later == {"kb-0", "kb-1", "kb-2", "kb-3", "kb-4", "kb-7"}


@pytest.mark.parametrize("kind", [Lost, Unconfirmed])
async def test_doubt_keeps_when_it_was_sent(state: State, kind: Any) -> None:
    """It is looked for in a later night, and was paid for in that of its request, if at all."""
    await state.commit(Put(attempt(kind(9.0, Doubt(SAID, sent_at=1.5)))))
    assert (await state.attempt("kb-1")).sent_at == 1.5
    assert [item.at for item in await state.payments(0.0)] == [1.5]
    assert await state.payments(2.0) == []


async def test_repeated_request_was_sent_anew(state: State) -> None:
    await state.commit(Put(attempt(Intended(9.0, Doubt(SAID, sent_at=1.5)))))
    assert [item.at for item in await state.payments(0.0)] == [9.0]


# -- all or nothing


REFUSED: dict[str, tuple[Attempt, Attempt]] = {
    "a second owner of a task": (
        attempt(opened("8")),
        attempt(generated("8"), name="kb-2", job_id="b"),
    ),
    "a second owner by a former task": (
        attempt(landed("8", "videos/a.mp4", 9)),
        attempt(Failed(SAID, 2.0, TASK), name="kb-2", job_id="b"),
    ),
    "a second unfinished attempt": (
        attempt(Unconfirmed(1.0, DOUBT)),
        replace(attempt(name="kb-2"), number=2),
    ),
}


@pytest.mark.parametrize(("first", "second"), REFUSED.values(), ids=REFUSED.keys())
async def test_commit_against_a_rule_is_refused_whole(
    subject: Subject, first: Attempt, second: Attempt
) -> None:
    state = subject.state
    await state.commit(Put(first), AddRow("first"))
    other = attempt(name="kb-3", job_id="c")
    with pytest.raises(RefusedError):
        await state.commit(
            Put(other), AddRow("row"), Proof(ACCOUNT, 7.0), GenerationTime("k", 1.0), Put(second)
        )
    assert await ids(state) == ["kb-1"]
    assert await state.attempt("kb-1") == first
    assert await state.proved_at(ACCOUNT) is None
    assert await state.generation_times() == {}
    assert subject.rows() == ["first"]


async def test_refused_change_keeps_attempt_as_it_was(state: State) -> None:
    await state.commit(Put(attempt(opened("8"))), Put(attempt(name="kb-2", job_id="b")))
    with pytest.raises(RefusedError):
        await state.commit(Put(attempt(opened("8"), name="kb-2", job_id="b")))
    assert await state.owner_of("8") == "kb-1"
    assert await state.attempt("kb-2") == attempt(name="kb-2", job_id="b")


@pytest.mark.parametrize(
    "second",
    [
        replace(attempt(name="kb-2"), fingerprint="v1:other"),
        attempt(name="kb-2", job_id="b"),
        attempt(Failed(SAID, 2.0), name="kb-2"),
    ],
    ids=["another version", "another job", "finished"],
)
async def test_second_attempt_within_the_rules_is_taken(state: State, second: Attempt) -> None:
    await state.commit(Put(attempt()))
    await state.commit(Put(second))
    assert sorted(await ids(state)) == ["kb-1", "kb-2"]


async def test_successor_may_share_commit_of_failure(state: State) -> None:
    failed = attempt().failed(2.0, SAID)
    await state.commit(Put(attempt()))
    await state.commit(Put(failed), Put(replace(attempt(name="kb-2"), number=2)))
    assert await ids(state) == ["kb-1", "kb-2"]


async def test_concurrent_commits_all_land(state: State) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(50):
            made = attempt(opened(str(number)), name=f"kb-{number:02}", job_id=f"j{number:02}")
            group.create_task(state.commit(Put(made)))
    assert await ids(state) == [f"kb-{number:02}" for number in range(50)]


async def test_cancelled_commit_still_lands(subject: Subject) -> None:
    changes: list[Change] = [Put(attempt()), AddRow("row")]
    cancelled = asyncio.create_task(subject.state.commit(*changes))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await subject.state.commit(AddRow("next"))  # later commits land later
    assert await subject.state.attempt("kb-1") == attempt()
    assert subject.rows() == ["row", "next"]


async def test_rows_are_kept_in_order(subject: Subject) -> None:
    await subject.state.commit(AddRow('{"note":"ü"}'), AddRow("second"))
    await subject.state.commit(Put(attempt()))
    await subject.state.commit(AddRow("third"))
    assert subject.rows() == ['{"note":"ü"}', "second", "third"]


# -- questions


async def test_holders_of_spans_jobs_in_order(state: State) -> None:
    file = "videos/a.mp4"
    other = attempt(landed("7", file, 9), name="kb-7", job_id="b")
    second = replace(attempt(landed("9", file, 9), name="kb-0"), number=2)
    first = attempt(landed("8", file, 9))
    elsewhere = attempt(landed("6", "videos/c.mp4", 9), name="kb-6", job_id="c")
    open_one = attempt(opened("5"), name="kb-5", job_id="d")
    await state.commit(*map(Put, (other, second, first, elsewhere, open_one)))
    assert await state.holders_of(file) == [first, second, other]
    assert await state.holders_of("videos/none.mp4") == []


async def test_owners_of_content_span_what_was_edited_and_discarded(state: State) -> None:
    as_landed = attempt(landed("8", "videos/a.mp4", 9))
    state_of = replace(landed("7", "videos/b.mp4", 9), sha256="11", checked=Checked(9, 4.0, "00"))
    edited = attempt(state_of, name="kb-7", job_id="b")
    gone = attempt(Discarded(PaidTask("6", 1.0), 2.0, 3.0, 4.0, 9, "00"), name="kb-6", job_id="c")
    other = attempt(
        replace(state_of, task=PaidTask("5", 1.0), checked=None), name="kb-5", job_id="d"
    )
    open_one = attempt(opened("4"), name="kb-4", job_id="e")
    await state.commit(*map(Put, (gone, other, edited, as_landed, open_one)))
    assert await state.owners_of_content("00") == [as_landed, edited, gone]
    assert await state.owners_of_content("22") == []


async def test_owner_of_is_the_attempt_with_the_task(state: State) -> None:
    await state.commit(Put(attempt(opened("8"))))
    assert await state.owner_of("8") == "kb-1"
    await state.commit(Put(attempt(Failed(SAID, 2.0, PaidTask("8", 1.0)))))
    assert await state.owner_of("8") == "kb-1"
    assert await state.owner_of("9") is None


async def test_newest_task_of_is_the_accounts(state: State) -> None:
    def made(number: int, at: float | None, account: Account = ACCOUNT) -> Put:
        reached = Intended(9.0) if at is None else Failed(SAID, 9.0, PaidTask(f"8{number}", at))
        name = f"kb-{number}"
        return Put(replace(attempt(reached, name=name, job_id=name), account=account))

    assert await state.newest_task_of(ACCOUNT) is None
    other = replace(ACCOUNT, key_hash="another")
    await state.commit(made(1, 5.0), made(2, 7.0), made(3, 6.0), made(4, None), made(5, 8.0, other))
    newest = await state.newest_task_of(ACCOUNT)
    assert newest is not None
    assert newest.external_task_id == "kb-2"


async def test_proof_belongs_to_address_and_key(state: State) -> None:
    here, another_key = ACCOUNT, replace(ACCOUNT, key_hash="another")
    await state.commit(Proof(here, 7.0), Proof(another_key, 8.0))
    await state.commit(Proof(here, 9.0))
    assert await state.proved_at(here) == 9.0
    assert await state.proved_at(another_key) == 8.0
    assert await state.proved_at(Account("https://elsewhere", here.key_hash)) is None


async def test_generation_times_are_oldest_first(state: State) -> None:
    await state.commit(GenerationTime("k", 3.0), GenerationTime("other", 5.0))
    await state.commit(GenerationTime("k", 1.0), GenerationTime("k", 2.0))
    assert await state.generation_times() == {"k": [3.0, 1.0, 2.0], "other": [5.0]}


# -- uploads


BUCKET, ELSEWHERE = "s3://studio/loops", "gs://studio"
FOX = Uploaded(BUCKET, "videos/fox.mp4", "0a", 9, 3.5, "kb-1", '"e1"', "7")
INDEX = Uploaded(BUCKET, "index.json", "0b", 5, 4.0)
COPY = FOX._replace(file="versions/fox/1.mp4", e_tag=None, version=None)


async def test_upload_reads_back_by_file_and_content(state: State) -> None:
    other = FOX._replace(target=ELSEWHERE)
    await state.commit(FOX, COPY, other, INDEX)
    assert await state.uploads(BUCKET) == [INDEX, COPY, FOX]
    assert await state.uploads(ELSEWHERE) == [other]
    assert await state.uploads(BUCKET, file="videos/fox.mp4") == [FOX]
    assert await state.uploads(BUCKET, sha256="0a") == [COPY, FOX]
    assert await state.uploads(BUCKET, file="videos/fox.mp4", sha256="0b") == []


async def test_later_upload_replaces_the_record(state: State) -> None:
    again = FOX._replace(sha256="0c", bytes=10, external_task_id="kb-2", e_tag='"e2"')
    await state.commit(FOX)
    await state.commit(again)
    assert await state.uploads(BUCKET) == [again]


async def test_upload_that_is_gone_is_forgotten(state: State) -> None:
    other = FOX._replace(target=ELSEWHERE)
    await state.commit(FOX, other, COPY)
    await state.commit(NotUploaded(BUCKET, FOX.file), NotUploaded(BUCKET, "videos/none.mp4"))
    assert await state.uploads(BUCKET) == [COPY]
    assert await state.uploads(ELSEWHERE) == [other]


async def test_refused_commit_records_no_upload(state: State) -> None:
    await state.commit(Put(attempt(opened("8"))))
    with pytest.raises(RefusedError):
        await state.commit(FOX, Put(attempt(opened("8"), name="kb-2", job_id="b")))
    assert await state.uploads(BUCKET) == []
