"""The gate of a fleet in Postgres: cap, rate and budgets are those of all its workers together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

import psycopg
import pytest
from doors import ASKS, Door, doors, planned
from every_state import EVERY_STATE
from patience import PATIENCE_S
from scripted import ACCOUNT, SAID, generated, opened

from batch.attempt import Attempt, Doubt, Failed, Intended, Lost, Open, PaidTask, Phase
from batch.errors import ClaimLostError
from batch.library.accounts import charged_usd
from batch.manifest.limits import Rate
from batch.output.postgres.admissions import SPENT
from batch.output.state import Put, Withdraw
from batch.provider.answers import Saturated, Throttled
from batch.run import doorkeeper
from batch.run.doorkeeper import FleetTicket
from batch.run.stop import StopReason

GRACE_S = 0.15  # in which nobody else may be let in
Entered = tuple[FleetTicket, Attempt | None]


def ask(*made: Door, jobs: Iterable[int]) -> list[asyncio.Task[Entered]]:
    """Have workers ask in turn for the admission of jobs."""
    return [asyncio.create_task(made[n % len(made)].enter(n), name=ASKS) for n in jobs]


async def let_in(tasks: list[asyncio.Task[Entered]], count: int) -> list[Entered]:
    """Wait until *count* have their answer, and see that no more get one; return the answers."""
    give_up_at = time.monotonic() + PATIENCE_S
    while sum(task.done() for task in tasks) < count and time.monotonic() < give_up_at:
        await asyncio.wait(
            [t for t in tasks if not t.done()], timeout=1.0, return_when="FIRST_COMPLETED"
        )
    if count < len(tasks):
        await asyncio.wait(tasks, timeout=GRACE_S)
    found = [task.result() for task in tasks if task.done()]
    assert len(found) == count
    return found


async def waited_for(door: Door, count: int) -> None:
    """Wait until so many jobs wait at a worker's gate for a slot."""
    while len(door.gate._waiting) < count or not door.gate.is_waited_for:
        await asyncio.sleep(0.01)


def sent(entered: Iterable[Entered]) -> list[Attempt]:
    return [attempt for _, attempt in entered if attempt is not None]


async def submit(door: Door, number: int) -> Entered:
    """Have a job let in, and its task be accepted."""
    ticket, attempt = await door.enter(number)
    assert attempt is not None
    await door.commit(Put(attempt.to(opened(attempt.job_id))))
    await ticket.accepted()
    return ticket, attempt


# -- slots


async def test_cap_is_that_of_all_workers(engine_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that one of them frees is another's at once: they are told."""
    monkeypatch.setattr(doorkeeper, "ASK_AGAIN_S", 10 * PATIENCE_S)
    async with doors(engine_url, max_in_flight=5) as made:
        asked = ask(*made, jobs=range(12))
        first = sent(await let_in(asked, 5))
        assert len(first) == 5
        assert any(door.gate.is_waited_for for door in made)
        for item in first[:2]:
            await made[0].commit(Put(item.to(opened(item.job_id))))
        await let_in(asked, 5)
        await made[0].commit(
            *(Put(replace(item, state=generated(item.job_id))) for item in first[:2])
        )
        await let_in(asked, 7)


async def test_slots_are_given_in_the_manifests_order(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        _, first = await door.enter(30)
        asked = ask(door, jobs=(7, 3, 9))
        await waited_for(door, 3)
        assert first is not None
        await door.commit(Withdraw(first.external_task_id))
        (second,) = sent(await let_in(asked, 1))
        assert second.job_id == "3"


async def test_slots_are_counted_after_the_lock(engine_url: str) -> None:
    """Not as of the moment when the wait for the account began."""
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        await door.commit(Put(planned(1).to(Intended(1.0)).to(opened())))
        with psycopg.connect(engine_url, options="-c search_path=kling") as other:
            other.execute("SELECT 1 FROM accounts FOR UPDATE")
            asked = ask(door, jobs=[0])
            await let_in(asked, 0)
            other.execute("UPDATE attempts SET slot_until = 1e12")
        await let_in(asked, 0)


async def test_refusals_teach_all_workers(engine_url: str) -> None:
    """The provider takes 10, ours say 20: three refusals, and the limit is 10 for both."""
    async with doors(engine_url, max_in_flight=20) as made:
        for number in range(10):
            await submit(made[number % 2], number)
        entered = [(door, *(await door.enter(n))) for n, door in enumerate((*made, made[0]), 10)]
        for door, ticket, attempt in entered:
            await door.commit(Withdraw(attempt.external_task_id))
            await ticket.refused(attempt.job_id, Saturated(SAID, None))
        ((limit, refusals),) = made[0].worker.execute("SELECT slot_limit, refusals FROM accounts")
        assert (limit, refusals) == (10, 2), "what is refused during a pause counts once"
        made[0].worker.execute("UPDATE accounts SET paused_until = 0")
        asked = ask(*made, jobs=range(20, 24))
        await let_in(asked, 0)


async def test_limit_rises_after_a_quiet_while(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=3) as (door,):
        await submit(door, 0)
        door.worker.execute("UPDATE accounts SET slot_limit = 1, raise_at = 0")
        await let_in(ask(door, jobs=[1, 2]), 1)
        (found,) = door.worker.execute("SELECT slot_limit, probing FROM accounts")
        assert found == (2, True)


async def test_open_task_takes_a_slot_whatever_the_limit(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        for number in (0, 1):
            item = planned(number).to(opened(str(number)))
            await door.commit(Put(item))
            await door.gate.occupy(number, item)
        asked = ask(door, jobs=[2])
        for number in (0, 1):
            await let_in(asked, 0)
            await door.commit(Put(replace(planned(number), state=generated(str(number)))))
        await let_in(asked, 1)


async def test_ended_task_takes_no_slot(engine_url: str) -> None:
    """A worker that wakes up remembers it as open."""
    async with doors(engine_url, 1) as (door,):
        for number, state in enumerate(EVERY_STATE):
            task = getattr(state, "task", None)
            own = state if task is None else replace(state, task=replace(task, task_id=f"{number}"))
            await door.commit(Put(planned(number, state=own)))
            await door.gate.occupy(number, planned(number))
        held = door.worker.execute("SELECT DISTINCT state FROM attempts WHERE slot_until > 0")
        expected = {phase.value for phase in Phase if phase.holds_slot}
        assert {state for (state,) in held} == expected


async def test_held_slot_needs_no_other(engine_url: str) -> None:
    """What is sent again passes those who wait for a slot, or all would wait for ever."""
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        ticket, attempt = await door.enter(9)
        asked = ask(door, jobs=[0])
        await waited_for(door, 1)
        assert attempt is not None
        lost = attempt.to(Lost(2.0, Doubt(SAID)))
        await door.commit(Put(lost))
        again = await asyncio.wait_for(ticket.intend(lost), PATIENCE_S)
        assert again is not None
        assert again.doubt == Doubt(SAID)
        await let_in(asked, 0)


async def test_requeued_job_waits_like_every_other(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        item = planned(9).to(Lost(1.0, Doubt(SAID)))
        await door.commit(Put(item))
        ticket = await door.gate.occupy(9, item)
        asked = ask(door, jobs=[0])
        await waited_for(door, 1)
        await ticket.requeue()
        again = asyncio.create_task(ticket.intend(item), name=ASKS)
        assert len(sent(await let_in(asked, 1))) == 1
        assert not again.done()


async def test_dead_workers_slot_ends_by_itself(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        await door.enter(0)
        asked = ask(door, jobs=[1])
        await waited_for(door, 1)
        door.worker.execute("UPDATE attempts SET slot_until = 1")
        door.worker.execute("SELECT pg_notify('kling_slots', '')")
        await let_in(asked, 1)


async def test_other_run_of_the_account_shares_its_slots(engine_url: str) -> None:
    """The largest limit of the runs is the account's; each keeps to its own as well."""
    async with (
        doors(engine_url, 1, max_in_flight=4) as (large,),
        doors(engine_url, 1, max_in_flight=2, run_id="r2", library="library 2") as (small,),
    ):
        await let_in(ask(large, jobs=[90 % 40]), 1)
        await let_in(ask(small, jobs=range(4)), 2)
        await let_in(ask(large, jobs=range(4)), 1)


# -- the rate


async def test_no_window_sees_more_than_the_rate(engine_url: str) -> None:
    async with doors(engine_url, max_in_flight=200, submit_rate=Rate(30, 1.0)) as made:
        found = sent(await let_in(ask(*made, jobs=range(40)), 40))
        times = sorted(item.sent_at for item in found)
        assert len(times) == 40
        pairs = zip(times, times[30:], strict=False)
        assert min(last - first for first, last in pairs) >= 1.0


async def test_pause_holds_all_workers(engine_url: str) -> None:
    async with doors(engine_url) as (first, second):
        ticket, attempt = await first.enter(0)
        assert attempt is not None
        await first.commit(Withdraw(attempt.external_task_id))
        await ticket.refused("0", Throttled(SAID, 0.6))
        asked = ask(second, jobs=[1])
        await let_in(asked, 0)
        await let_in(asked, 1)


async def test_accepted_request_ends_the_row_of_refusals(engine_url: str) -> None:
    async with doors(engine_url, 1) as (door,):
        door.worker.execute("UPDATE accounts SET refusals = 3")
        await submit(door, 0)
        assert door.worker.execute("SELECT refusals FROM accounts") == [(0,)]


# -- budgets


async def test_budget_is_spent_to_the_cent(engine_url: str) -> None:
    async with doors(engine_url, max_in_flight=40, budget_usd=1.05) as made:
        entered = await let_in(ask(*made, jobs=range(20)), 20)
        assert len(sent(entered)) == 5
        assert {door.stop.reason for door in made} == {StopReason.BUDGET}
        assert not made[0].stop.feeding.is_set(), "others may cost less"
        assert made[0].worker.execute("SELECT reserved_usd FROM runs") == [(pytest.approx(1.05),)]


@pytest.mark.parametrize("is_withdrawn", [True, False])
async def test_what_created_nothing_costs_nothing(engine_url: str, is_withdrawn: bool) -> None:
    async with doors(engine_url, 1, budget_usd=0.3) as (door,):
        for number in range(3):
            _, attempt = await door.enter(number)
            assert attempt is not None
            refused = Put(attempt.to(Failed(SAID, 2.0)))
            await door.commit(Withdraw(f"kb-{number}") if is_withdrawn else refused)
        assert door.worker.execute("SELECT reserved_usd FROM runs") == [(pytest.approx(0.0),)]


async def test_repeated_request_is_paid_for_once(engine_url: str) -> None:
    async with doors(engine_url, 1, budget_usd=0.3, max_in_flight=1) as (door,):
        ticket, attempt = await door.enter(0)
        assert attempt is not None
        lost = attempt.to(Lost(2.0, Doubt(SAID)))
        await door.commit(Put(lost))
        assert await ticket.intend(lost) is not None
        assert door.worker.execute("SELECT reserved_usd FROM runs") == [(pytest.approx(0.21),)]


async def test_doubt_of_an_earlier_run_is_paid_for_by_this_one(engine_url: str) -> None:
    async with doors(engine_url, 1, budget_usd=0.3) as (door,):
        item = planned(0).to(Lost(1.0, Doubt(SAID)))
        await door.commit(Put(item))
        ticket = await door.gate.occupy(0, item)
        assert await ticket.intend(item) is not None
        assert door.worker.execute("SELECT reserved_usd FROM runs") == [(pytest.approx(0.21),)]
        _, other = await door.enter(1)
        assert other is None


async def test_day_counts_what_earlier_runs_have_sent(engine_url: str) -> None:
    """Of this library, and not what was sent on another day."""
    async with doors(engine_url, budget_per_day_usd=0.8, max_in_flight=9) as made:
        now = time.time()
        for number, at in ((30, now), (31, now - 3 * 86_400)):
            task = Open(PaidTask(str(number), at))
            await made[0].commit(Put(planned(number).to(task)))
        entered = await let_in(ask(*made, jobs=range(6)), 6)
        assert len(sent(entered)) == 2
        assert {door.stop.reason for door in made} == {StopReason.BUDGET}
        assert "budget of $0.80 for one day (budget_per_day) is used up" in made[0].stop.sentence


async def test_spent_is_what_the_ledger_counts(engine_url: str) -> None:
    """For an attempt in every state."""
    async with doors(engine_url, 1, budget_per_day_usd=100.0) as (door,):
        for number, state in enumerate(EVERY_STATE):
            task = getattr(state, "task", None)
            own = state if task is None else replace(state, task=replace(task, task_id=f"{number}"))
            item = planned(number, cost_usd=0.01 * 2**number, state=own)
            await door.commit(Put(item))
        for begins in (0.0, 1.2, 1.7):
            payments = await door.state.payments(begins)
            values = {
                "library": "library",
                "run_id": "r",
                "names": [],
                "begins": begins,
                "ends": 2.0,
            }
            with psycopg.connect(engine_url, options="-c search_path=kling") as connection:
                found = connection.execute(SPENT, values).fetchone()
            assert found == (
                pytest.approx(charged_usd(item for item in payments if item.at < 2.0)),
            )


async def test_slot_is_kept_while_the_task_may_be_open(engine_url: str) -> None:
    async with doors(engine_url, 1) as (door,):
        for number, state in enumerate(EVERY_STATE):
            task = getattr(state, "task", None)
            own = state if task is None else replace(state, task=replace(task, task_id=f"{number}"))
            item = planned(number)
            await door.commit(Put(item))
            await door.gate.occupy(number, item)
            await door.commit(Put(replace(item, state=own)))
        kept = door.worker.execute("SELECT DISTINCT state FROM attempts WHERE slot_until > 0")
        assert {state for (state,) in kept} == {"Intended", "Lost", "Open"}


# -- stops


@pytest.mark.parametrize("reason", [StopReason.INTERRUPTED, StopReason.ACCOUNT])
async def test_stop_ends_every_wait(engine_url: str, reason: StopReason) -> None:
    async with doors(engine_url, max_in_flight=1) as made:
        asked = ask(*made, jobs=range(6))
        await let_in(asked, 1)
        await made[0].worker.fleet.stop("r", reason, "enough")
        made[0].worker.execute("SELECT pg_notify('kling_slots', '')")
        entered = await let_in(asked, 6)
        assert len(sent(entered)) == 1
        assert {(door.stop.reason, door.stop.sentence) for door in made} == {(reason, "enough")}


async def test_stop_of_this_worker_ends_its_waits(engine_url: str) -> None:
    async with doors(engine_url, max_in_flight=1) as (first, second):
        await first.enter(0)
        asked = ask(first, jobs=[1])
        others = ask(second, jobs=[2])
        await let_in(asked, 0)
        first.stop.ask(StopReason.TERMINATED, "SIGTERM")
        assert sent(await let_in(asked, 1)) == []
        assert asked[0].done()
        await let_in(others, 0)


async def test_nothing_goes_out_after_the_deadline(engine_url: str) -> None:
    async with doors(engine_url, 1, deadline_in_s=-1.0) as (door,):
        assert (await door.enter(0))[1] is None
        assert door.stop.reason is StopReason.DEADLINE
        assert door.worker.execute("SELECT count(*) FROM attempts") == [(0,)]


async def test_failover_ends_submitting(engine_url: str) -> None:
    """A standby may have forgotten intents: the next run looks for their tasks first."""
    async with doors(engine_url, 1) as (door,):
        assert (await door.enter(0))[1] is not None
        door.worker.execute("UPDATE runs SET timeline = split_part(timeline, '/', 1) || '/7'")
        assert (await door.enter(1))[1] is None
        assert door.stop.reason is StopReason.STATE
        assert "may have forgotten what was submitted last" in door.stop.sentence


async def test_refused_account_stops_the_other_run(engine_url: str) -> None:
    async with doors(engine_url, 1) as (door,):
        door.worker.execute("UPDATE accounts SET refused = 'no money'")
        assert (await door.enter(0))[1] is None
        assert (door.stop.reason, door.stop.sentence) == (StopReason.ACCOUNT, "no money")


# -- claims and connections


async def test_lost_claim_is_not_let_in(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        _, first = await door.enter(0)
        asked = ask(door, jobs=[1])
        await waited_for(door, 1)
        await door.worker.fleet.claim("r", "1", "another")
        assert first is not None
        await door.commit(Withdraw(first.external_task_id))
        with pytest.raises(ClaimLostError):
            await asked[0]
        assert door.worker.execute("SELECT count(*) FROM attempts") == [(0,)]


async def test_cancelled_waiter_leaves_the_others_alone(engine_url: str) -> None:
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        _, first = await door.enter(9)
        asked = ask(door, jobs=[0, 1])
        await waited_for(door, 2)
        asked[0].cancel()
        assert first is not None
        await door.commit(Withdraw(first.external_task_id))
        (second,) = sent(await let_in(asked[1:], 1))
        assert second.job_id == "1"


async def test_lost_connection_is_no_answer(engine_url: str) -> None:
    """The doorkeeper asks again, over another connection."""
    async with doors(engine_url, 1, max_in_flight=1) as (door,):
        _, first = await door.enter(9)
        asked = ask(door, jobs=[0])
        await waited_for(door, 1)
        door.worker.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert first is not None
        await door.commit(Withdraw(first.external_task_id))
        assert len(sent(await let_in(asked, 1))) == 1


async def test_simultaneous_admissions_are_one_transaction(engine_url: str) -> None:
    """And of a job whose claim is lost by then, nothing is kept."""
    async with doors(engine_url, 1, max_in_flight=9, budget_usd=9.0) as (door,):
        requests = []
        for number in range(4):
            found = await door.worker.fleet.claim("r", str(number), "w")
            assert found is not None
            with door.under(found.claim):
                requests.append(door.gate.request(planned(number)))
        desk, limits = door.gate.desk, door.gate.context.limits
        assert len(await desk.ask(requests[1:], limits)) == 3
        assert len(door.worker.execute("SELECT DISTINCT xmin FROM attempts")) == 1
        await door.worker.fleet.claim("r", "2", "w2")
        with pytest.raises(ClaimLostError):
            await desk.ask(requests, limits)
        rows = door.worker.execute("SELECT job_id FROM attempts WHERE slot_until > 0")
        assert sorted(rows) == [("1",), ("2",), ("3",)]
        assert door.worker.execute("SELECT reserved_usd FROM runs") == [(pytest.approx(0.63),)]


async def test_admission_whose_answer_was_lost_is_repeated(engine_url: str) -> None:
    async with doors(engine_url, 1, budget_usd=0.3, max_in_flight=1) as (door,):
        found = await door.worker.fleet.claim("r", "0", "w")
        assert found is not None
        with door.under(found.claim):
            request = door.gate.request(planned(0))
        limits = door.gate.context.limits
        for _ in range(3):
            await door.gate.desk.ask([request], limits)
            await asyncio.sleep(0.002)
        assert door.worker.execute("SELECT reserved_usd FROM runs") == [(pytest.approx(0.21),)]
        assert door.worker.execute("SELECT count(*) FROM attempts") == [(1,)]
        assert door.worker.execute("SELECT account FROM accounts") == [(ACCOUNT.key_hash,)]
