"""How long a run will go on: its slots, its rate and the tasks of the past, played through."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from batch.frozen import frozen

PLAYED = 500  # submissions; of more, the first ones are taken to flow steadily
OVERDUE = 0.25  # of its age: what is left of a task that is older than all known ones
GOLDEN = 0.618033988749895  # its multiples spread evenly, whatever their number


@frozen
class Outlook:
    """What is still to come.

    Attributes:
        waiting: jobs that are still to be submitted.
        ages: seconds since the submission of each open task.
        to_download: videos that are generated and not here yet.
        times: seconds that tasks of this kind have taken, ascending.
        slots: how many tasks may be open at once.
        interval_s: seconds from one submission to the next.
        download_s: seconds from the end of a task to its video here.
        downloads: how many run at once.
    """

    waiting: int
    ages: Sequence[float]
    to_download: int
    times: Sequence[float]
    slots: int
    interval_s: float
    download_s: float = 0.0
    downloads: int = 1


def seconds_left(outlook: Outlook) -> float | None:
    """Return how long all that will take; None where no task has ever ended.

    The open tasks take the rest of equally likely times, the longest known included, so that the last
    one decides and not the average.
    """
    downloads_s = outlook.to_download / outlook.downloads * outlook.download_s
    if not (outlook.waiting or outlook.ages):
        return downloads_s
    if not outlook.times:
        return None
    count = len(outlook.ages)
    ends = [
        _rest(outlook.times, age, (rank + 0.5) / count)
        for rank, age in enumerate(sorted(outlook.ages, reverse=True))
    ]
    played = min(outlook.waiting, PLAYED)
    steady_s = (outlook.waiting - played) * max(
        sum(outlook.times) / len(outlook.times) / outlook.slots, outlook.interval_s
    )
    generated_s = steady_s + _play(outlook, ends, played)
    return max(generated_s + outlook.download_s, downloads_s)


def _rest(times: Sequence[float], age_s: float, share: float) -> float:
    """Return what is left of a task of this age, *share* of its like being done sooner."""
    longer = [seconds for seconds in times if seconds > age_s]
    return longer[int(share * len(longer))] - age_s if longer else OVERDUE * age_s


def _play(outlook: Outlook, ends: list[float], submissions: int) -> float:
    """Return when the last task ends; *ends* are those of the open ones."""
    heapq.heapify(ends)
    last, turn = max(ends, default=0.0), 0.0
    for number in range(submissions):
        free = 0.0
        while len(ends) >= outlook.slots:
            free = heapq.heappop(ends)
        turn = max(turn, free) if number == 0 else max(turn + outlook.interval_s, free)
        times = outlook.times
        end = turn + times[int(number * GOLDEN % 1 * len(times))]
        heapq.heappush(ends, end)
        last = max(last, end)
    return last


def in_words(seconds: float) -> str:
    """Return `less than a minute`, `about 14 min`, `about 1 h 20 min`, `about 12 h`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return "less than a minute"
    if minutes >= 600:
        return f"about {round(minutes / 60)} h"
    if minutes > 30:
        minutes = 5 * round(minutes / 5)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes)
    return f"about {' '.join(parts)}"
