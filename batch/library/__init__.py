"""What a library holds and what it has cost, read from its state.

    accounts   every number that is printed anywhere: tasks, cost, what became of them
    presence   whether a video that landed is still here
    ledger     one line for each task ever created, and what became of it
    status     what stands where, what is wrong by name, and what to do about it

All of them only read: without a lock, also while a run is going. Summary, `status` and `ledger`
agree because each of them asks `accounts`; none of them counts for itself.

Public face: `Figures`, `Books` and `figures` in `accounts`, `entries` in `ledger`, `look` in `status`,
`adopt` and `forget` in `settle`.
"""

from __future__ import annotations
