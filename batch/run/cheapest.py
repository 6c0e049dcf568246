"""The cheapest polls of a task whose end is known in distribution, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence


def cheapest(
    ages: Sequence[float], done: Sequence[float], price_s: float, poll_interval_s: float
) -> tuple[float, ...]:
    """Return, for each age at which a poll was in vain, the age of the poll that should follow.

    With F = *done* and I its integral, the lateness of what ends between two polls at a and b is
    I(b) - I(a) - F(a) (b - a). So the least cost from age i on is

        V(i) = price (1 - F_i) - I_i + F_i t_i + min over j of ( I_j + V_j - F_i t_j ),

    a minimum over lines in F_i. Going backwards the lines come in the order of their slopes, so
    that a stack holds their lower envelope, and F_i falls, so that the lowest line only moves up
    the stack: n steps instead of n².
    """
    areas = integral(ages, done)
    last = len(ages) - 1
    costs = [price_s * (1 - share) for share in done]
    nexts = [age + poll_interval_s for age in ages]
    lines: list[tuple[float, float]] = []  # (t_j, I_j + V_j), in the order of their slopes
    best, candidate = 0, last
    for i in range(last - 1, -1, -1):
        age, share = ages[i], done[i]
        while candidate > i and ages[candidate] >= age + poll_interval_s:
            _push(lines, ages[candidate], areas[candidate] + costs[candidate])
            best = min(best, len(lines) - 1)  # what replaced the lowest line is the lowest
            candidate -= 1
        if not lines:
            continue
        best = _lowest(lines, share, best)
        nexts[i], level = lines[best]
        costs[i] += level - areas[i] - share * (nexts[i] - age)
    return tuple(nexts)


def integral(ages: Sequence[float], done: Sequence[float]) -> list[float]:
    """Return the integral of *done* up to each age."""
    areas = [0.0]
    for i in range(1, len(ages)):
        areas.append(areas[-1] + (done[i - 1] + done[i]) / 2 * (ages[i] - ages[i - 1]))
    return areas


def _push(lines: list[tuple[float, float]], age: float, level: float) -> None:
    """Add the line `level - F * age`, flatter than all before, to the lower envelope."""
    while len(lines) >= 2:
        (age1, level1), (age2, level2) = lines[-2], lines[-1]
        # With F falling, the last line takes over from its neighbour; it is of no use if the new
        # one has taken over by then.
        if (level2 - level) * (age1 - age2) < (level1 - level2) * (age2 - age):
            break
        lines.pop()
    lines.append((age, level))


def _lowest(lines: list[tuple[float, float]], share: float, start: int) -> int:
    """Return which line is the lowest at F = *share*, being asked with F falling.

    The lowest one then only ever moves towards the flatter lines, from where it was: *start*.
    """
    while start + 1 < len(lines):
        (age1, level1), (age2, level2) = lines[start], lines[start + 1]
        if level1 - share * age1 <= level2 - share * age2:
            break
        start += 1
    return start
