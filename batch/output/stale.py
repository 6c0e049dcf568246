"""How far the files beside the videos follow from the state, and which jobs' do not.

What changes a video, or where it is, without a row (an edit, a deletion, another owner) commits the
fact that is made here with it. So a death leaves nothing that tells of before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from batch.output.state import Fact
from batch.output.store import Store

DERIVED_UPTO = "derived_upto"  # what `library.derived` has written beside the videos


def stale(database: Store, job_ids: Iterable[str]) -> list[Fact]:
    """Return what to commit so that the next run rewrites the files beside the videos of some jobs.

    An empty list where no such files were ever written.
    """
    fact = json.loads(database.fact(DERIVED_UPTO) or "{}")
    jobs = {*fact.get("stale", ()), *job_ids}
    if not fact or not jobs:
        return []
    # The upload compares the fact with the one that it saw last: the count makes it another.
    count = fact.get("renewed", 0) + 1
    return [Fact(DERIVED_UPTO, json.dumps({**fact, "stale": sorted(jobs), "renewed": count}))]
