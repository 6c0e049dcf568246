"""The state of libraries, and what a fleet shares, in Postgres (extra `[fleet]`).

One database serves all libraries and accounts of a studio. Four walls keep a task from being paid
for twice, and each is needed:

    the claim     every commit names the token of its claim, and is refused when there is a newer one
    the indexes   a task has one owner, a job one unfinished attempt for a request
    the deadline  a request goes out within ten seconds of its intent, by its sender's monotonic clock
    the clock     how old an intent is, only the database's clock says

A process that is stopped for ever keeps its connections, whose other end its kernel answers for. What
it holds by them has an end all the same:

    a transaction, between statements   10 s   idle_in_transaction_session_timeout
    a transaction, unread answer        20 s   tcp_user_timeout, but not on a Unix socket
    a transaction, half a pipeline      35 s   a beat of another worker: for Postgres that is one
                                               statement under way, for which it has no time-out
    a library, to end its run           35 s   a beat of another worker: a lock of the session
    jobs, and their slots               35 s   another worker takes them over

Who waits for a lock gives up after five seconds, and asks again, so that beats come through. The sessions
of a command that is stopped are not ended so. It locks nothing that workers want: no half pipeline, an
account only as the last statement of a transaction, and a library not while its run ends.

Only this package and `batch.run.gate_postgres` know psycopg.
"""

from __future__ import annotations

from batch.errors import UsageError


def not_installed(error: ImportError) -> UsageError:
    """Return the error of an installation without what a fleet needs."""
    return UsageError(
        f"a fleet needs more than is installed ({error}); pip install 'kling-batch[fleet]'. Nothing was"
        " sent"
    )


try:
    import psycopg as _psycopg  # noqa: F401 - or the system's libpq is missing
except ImportError as error:
    raise not_installed(error) from None
