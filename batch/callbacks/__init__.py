"""Callbacks are hints: they change the moment of the next poll, and nothing else.

`receiver` is a small server for the provider's POSTs; a token in the path says which attempt one is
about. `hints` records it: the poller of that attempt wakes and asks the API, and only that answer counts.
As long as callbacks keep announcing the ends of tasks, polling beside them is rarer. In a fleet a callback
may come to another worker than the one that has the job: `mailroom` passes it on.

Public face: `Hints` in `hints`, `listen` in `receiver`, `Mailroom` in `mailroom`.
"""

from __future__ import annotations
