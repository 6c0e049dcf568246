"""An output folder: lock, state, results.jsonl, and videos that appear whole or not at all.

    folder       lock, open or migrate the database, check it against results.jsonl and repair that
    state        the protocol: the changes that can be committed, and the questions (`tests/contract`)
    writer       `State` for the event loop: a thread commits, many commits share a flush
    sqlite       the database itself, with codec, migrations, sqlite_errors; in_short: attempts as a
                 plan needs them, packed where there are many
    results      results.jsonl, appended to with each commit; row: one line of it
    videos       a part file grows (part), is checked, flushed and renamed (disk)
    names        second names of videos that get new ones, which a death may leave
    sidecar      the files beside a video that say what it is; stale: whose follow from the state no more
    bucket       put, head, copy, get, list in a bucket; uploads: the files of a library go there, and
                 the state records it; uploaded: what it says of that, without asking the bucket
    probe        a file is written where videos will lie, before anything is paid for
    seen         the latest run that this machine has seen, outside of the folder: an older one is noticed
    rescue       task ids that the database did not take, for the next run
    layout       every path of the folder, once

The database is the truth and everything else follows it. So after a death at any step:

    what a run does next           is on disk before                    the next run
    POST a request                 the attempt *Intended*               looks the task up
    poll                           the task id                          polls on
    put a video at its name        where the former one is kept         downloads again, unpaid
    miss a video that has landed   that it has landed                   looks for it again
    remove a local copy            that the bucket has it, seen there   removes it
    report the end of a job        the outcome and its row, in one      appends the row

A part file left over is removed, half a line of results.jsonl is cut off and written again. Nothing
that was paid for is deleted: a former video gets its second name before the new one takes the first.

Public face: `open_folder`, `peek` and `OutputFolder` in `folder`, `State` and its changes in `state`,
`SqliteState` in `writer`, `Videos` in `videos`, `make_row` in `row`.
"""

from __future__ import annotations
