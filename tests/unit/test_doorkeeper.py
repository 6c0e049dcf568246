"""The doorkeeper of a fleet's gate, and the rules of an admission, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from memory_fleet import MemoryDesk, MemoryFleet
from scripted import ACCOUNT, SAID, attempt, opened
from virtual_time import VirtualClock, VirtualLoop, run

from batch.attempt import Attempt, Intended
from batch.errors import AwayError, ClaimLostError
from batch.manifest.limits import Limits, Rate
from batch.output.fleet import CLAIM, Claim, OpenRun, Work
from batch.output.state import Put, Withdraw
from batch.plan import Policy
from batch.provider.answers import Saturated
from batch.run.context import RunContext
from batch.run.doorkeeper import FleetGate
from batch.run.gate import SEND_WITHIN_S
from batch.run.stop import Stop, StopReason


class Doors:
    """The gates of some workers over records in memory."""

    def __init__(self, loop: VirtualLoop, limits: Limits) -> None:
        self.clock = VirtualClock(loop)
        self.fleet = MemoryFleet(self.clock.now)
        self.state = self.fleet.state("library")
        self.limits = limits

    def gate(self, run_id: str = "r") -> FleetGate:
        """Return the gate of one more worker."""
        context = RunContext(
            account=ACCOUNT,
            limits=self.limits,
            policy=Policy(),
            clock=self.clock,
            dice=random.Random(1),
            stop=Stop(),
            notify=lambda _event: None,
        )
        return self.fleet.gate("library", run_id, context, lambda _request: False)

    async def admit(self, gate: FleetGate, number: int, **values: Any) -> Attempt | None:
        """Return the attempt of job *number* as it is intended."""
        ticket = await gate.enter(number)
        return await ticket.intend(planned(number, **values))

    async def claim(self, number: int) -> Claim:
        """Claim job *number*."""
        found = await self.fleet.claim("r", str(number), "w")
        assert found is not None
        return found.claim

    async def end(self, one: Attempt | None) -> None:
        """End an attempt: it has created nothing."""
        assert one is not None
        await self.state.commit(Withdraw(one.external_task_id))


def planned(number: int, **values: Any) -> Attempt:
    one = attempt(name=f"kb-{number}", job_id=str(number))
    return replace(one, **{"cost_usd": 0.21, **values})


def play(story: Callable[[Doors], Awaitable[Any]], **limits: Any) -> Any:
    usual = {"submit_rate": Rate(1000, 1.0), "max_in_flight": 5}

    async def main(loop: VirtualLoop) -> Any:
        doors = Doors(loop, Limits(**{**usual, **limits}))
        run = OpenRun("r", "library", "/", ACCOUNT, "{}", 1.0)
        works = [Work(number, str(number), "{}") for number in range(100)]
        await doors.fleet.hand_over(run, works, lambda _transaction: None)
        return await story(doors)

    return run(main)


@pytest.mark.parametrize(
    "rate", [Rate(60, 60.0), Rate(2, 1.0), Rate(50, 1.0), Rate(0.5, 1.0), Rate(900, 1.0)]
)
def test_workers_use_the_rate_and_keep_it(rate: Rate) -> None:
    """Although each admission comes a little late."""

    async def story(doors: Doors) -> list[float]:
        gates, dice = [doors.gate(), doors.gate()], random.Random(2)
        for gate in gates:
            _slow_down(gate, dice)
        made = await asyncio.gather(*(doors.admit(gates[n % 2], n) for n in range(100)))
        return sorted(one.sent_at for one in made if one is not None)

    times = play(story, submit_rate=rate, max_in_flight=1000)
    count = max(1, int(rate.count))
    pairs = zip(times, times[count:], strict=False)
    assert all(last - first >= count / rate.per_second - 1e-6 for first, last in pairs)
    assert (len(times) - 1) / (times[-1] - times[0]) > rate.per_second * 0.95


def _slow_down(gate: FleetGate, dice: random.Random) -> None:
    """Have the desk take some milliseconds before it looks."""
    ask = gate.desk.ask

    async def slow(*given: Any) -> Any:
        await asyncio.sleep(dice.random() * 0.004)
        return await ask(*given)

    gate.desk.ask = slow  # type: ignore[method-assign]


def test_desk_is_asked_for_more_as_it_admits() -> None:
    async def story(doors: Doors) -> None:
        gate, asked = doors.gate(), []
        ask = gate.desk.ask

        async def counted(requests: Any, limits: Any) -> Any:
            asked.append(len(requests))
            return await ask(requests, limits)

        gate.desk.ask = counted  # type: ignore[method-assign]
        await asyncio.gather(*(doors.admit(gate, number) for number in range(20)))
        assert asked == [1, 3, 7, 9]

    play(story, submit_rate=Rate(2000, 1.0), max_in_flight=20)


def test_lost_claim_keeps_no_neighbour_out() -> None:
    async def story(doors: Doors) -> None:
        gate = doors.gate()
        claims = [await doors.claim(number) for number in range(4)]
        await doors.claim(2)

        async def admit(number: int) -> Attempt | None:
            CLAIM.set(claims[number])  # of this task alone
            return await doors.admit(gate, number)

        found = await asyncio.gather(*map(admit, range(4)), return_exceptions=True)
        assert [type(one) for one in found] == [Attempt, Attempt, ClaimLostError, Attempt]

    play(story)


def test_late_intent_is_renewed() -> None:
    """Nothing may be sent by one that was on disk only after its time."""

    async def story(doors: Doors) -> None:
        gate = doors.gate()
        desk, asked = gate.desk, []

        async def ask(*given: Any) -> Any:
            asked.append(doors.clock.monotonic())
            found = await MemoryDesk.ask(desk, *given)  # type: ignore[arg-type]
            if len(asked) == 1:
                await asyncio.sleep(SEND_WITHIN_S + 1.0)
            return found

        desk.ask = ask  # type: ignore[method-assign]
        ticket = await gate.enter(0)
        one = await ticket.intend(planned(0))
        assert one is not None
        assert len(asked) == 2
        assert ticket.not_after == asked[1] + SEND_WITHIN_S
        assert one.sent_at >= doors.clock.now() - 1.0
        assert doors.fleet.runs["r"].reserved_usd == pytest.approx(0.21)

    play(story, budget_usd=0.3)


def test_desk_that_is_away_is_asked_again() -> None:
    async def story(doors: Doors) -> None:
        gate = doors.gate()
        begun = doors.clock.monotonic()
        desk, ask = gate.desk, gate.desk.ask

        async def away(*given: Any) -> Any:
            if doors.clock.monotonic() < begun + 60.0:
                raise AwayError("it does not answer")
            return await ask(*given)

        desk.ask = away  # type: ignore[method-assign]
        assert await doors.admit(gate, 0) is not None
        assert 60.0 <= doors.clock.monotonic() - begun < 62.0

    play(story)


def test_stop_ends_the_wait_for_an_absent_desk() -> None:
    async def story(doors: Doors) -> None:
        gate = doors.gate()

        async def away(*_given: Any) -> Any:
            raise AwayError("it does not answer")

        gate.desk.ask = away  # type: ignore[method-assign]
        waiting = asyncio.create_task(doors.admit(gate, 0))
        await asyncio.sleep(30.0)
        gate.context.stop.ask(StopReason.STATE, "the state cannot be written")
        assert await waiting is None

    play(story)


def test_bug_at_the_desk_is_told_by_every_job() -> None:
    async def story(doors: Doors) -> None:
        gate = doors.gate()

        async def broken(*_given: Any) -> Any:
            raise ZeroDivisionError

        gate.desk.ask = broken  # type: ignore[method-assign]
        found = await asyncio.gather(
            *(doors.admit(gate, number) for number in range(3)), return_exceptions=True
        )
        assert [type(error) for error in found] == [ZeroDivisionError] * 3

    play(story)


def test_mild_stop_refuses_only_what_costs_too_much() -> None:
    async def story(doors: Doors) -> None:
        gate = doors.gate()
        assert await doors.admit(gate, 0, cost_usd=0.9) is not None
        assert await doors.admit(gate, 1, cost_usd=0.21) is None
        await doors.fleet.stop("r", StopReason.BUDGET, "used up")
        assert await doors.admit(gate, 2, cost_usd=0.1) is not None

    play(story, budget_usd=1.0)


def test_full_account_pauses_at_the_second_refusal() -> None:
    """The first says what it takes: the end of a task of ours frees a slot."""

    async def story(doors: Doors) -> list[tuple[int, bool]]:
        first, second = doors.gate(), doors.gate()
        seen = []
        for gate, number in ((first, 0), (second, 1)):
            ticket = await gate.enter(number)
            one = await ticket.intend(planned(number))
            await doors.end(one)
            await ticket.refused("0", Saturated(SAID, None))
            traffic = doors.fleet.accounts[ACCOUNT].traffic
            assert traffic is not None
            seen.append((traffic.limit, traffic.paused_until > doors.clock.now()))
        return seen

    assert play(story) == [(1, False), (1, True)]


def test_waiters_of_two_workers_share_every_slot() -> None:
    async def story(doors: Doors) -> int:
        gates, open_now, most = [doors.gate(), doors.gate()], 0, 0

        async def live(number: int) -> None:
            nonlocal open_now, most
            one = await doors.admit(gates[number % 2], number)
            assert one is not None
            open_now += 1
            most = max(most, open_now)
            await doors.state.commit(Put(one.to(opened(str(number)))))
            await asyncio.sleep(random.Random(number).random() * 20)
            open_now -= 1
            await doors.end(one)

        await asyncio.gather(*(live(number) for number in range(60)))
        assert not any(gate.is_waited_for for gate in gates)
        return most

    assert play(story, max_in_flight=7) == 7


def test_intent_is_of_the_desks_clock() -> None:
    async def story(doors: Doors) -> None:
        doors.fleet.now = lambda: 5.0
        one = await doors.admit(doors.gate(), 0)
        assert one is not None
        assert one.state == Intended(5.0)

    play(story)
