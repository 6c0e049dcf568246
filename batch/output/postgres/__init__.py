"""The state of libraries, and what a fleet shares, in Postgres (extra `[fleet]`).

One database serves all libraries and accounts of a studio. Four walls keep a task from being paid
for twice, and each is needed:

    the claim     every commit names the token of its claim, and is refused when there is a newer one
    the indexes   a task has one owner, a job one unfinished attempt for a request
    the deadline  a request goes out within ten seconds of its intent, by its sender's monotonic clock
    the clock     how old an intent is, only the database's clock says

Only this package and `batch.run.gate_postgres` know psycopg.
"""

from __future__ import annotations

from batch.errors import UsageError

try:
    import psycopg as _psycopg  # noqa: F401 - or the system's libpq is missing
except ImportError as error:
    raise UsageError(
        f"a fleet needs more than is installed ({error}); pip install 'kling-batch[fleet]'. Nothing was"
        " sent"
    ) from None
