"""What a library holds and what it has cost, read from its state.

    accounts   every number that is printed anywhere: tasks, cost, what became of them
    planned    what the latest run was to do: the rest of the state holds no manifest
    resting    which failed jobs no run retries by itself
    entries    the attempts one by one: cost, what became of each, whether its video is here
    ledger     entries as lines, in text, CSV and JSON
    status     what stands where, what is wrong by name, and what to do about it
    derived    files beside the videos, and index.json, written from the state
    uploading  its bucket is brought up to date
    settle     an unconfirmed job is settled by hand: adopted or forgotten
    restore    an earlier version of a video takes its name again, and is pinned
    prune      orphans, old versions and strays go (strays: files that the state does not name)

All but the last five only read: without a lock, also while a run is going. Summary, `status` and `ledger`
agree because each of them asks `accounts`; none of them counts for itself.

Public face: `Figures`, `Books` and `figures` in `accounts`, `read_library` in `entries`, `look` in
`status`, `adopt` and `forget` in `settle`, `restore` in `restore`, `find` and `carry_out` in `prune`.
"""

from __future__ import annotations
