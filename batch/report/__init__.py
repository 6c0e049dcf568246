"""The page to open in the morning: what needs a person, what it cost, and the videos.

    records      reads the state, read-only and without a lock, also beside a running run
    entries      attempts → one entry for each job, with its versions
    needs        entries → what needs a person, and what to do about it
    night        a run's tasks → the lanes of its picture
    money        attempts → sums by day and model, and how long generation took
    data         puts these into the one structure that the page is made of
    posters      first frames as small pictures, where PyAV is installed
    page         the frame (page.html), with page.css and page.js inlined under a strict policy
    write        all of it, to a file that appears whole or not at all

Everything between `records` and `page` is a pure function of what was read. The page is derived: it
may be deleted, and it holds no key, no account, no signed link and no absolute path.

Public face: `write_report` in `write`.
"""

from __future__ import annotations
