"""A plan is carried out: one coroutine per job, from its slot to its line in results.jsonl.

    planner    a manifest and an output folder become a planned run        light: a quiet night ends here
    presence   which videos are still here, also edited ones
    silence    a provider that does not answer is reported
    resources  threads and descriptors, as the system grants them
    wiring     everything that a run talks to is opened and put together
    execute    from the first event to the summary; refusals: when requests were refused for now
    uploader   videos go to the bucket as they land
    rescue     what an earlier run could not record is taken in
    feeder     for each decision of the plan: wait for a slot, start a job
    earlier    what earlier runs have left of a job: a lost answer, ids that are taken
    former     what was paid for former versions of a job, and the lines that tell its end
    job_run    the story of one job:

        collect what former versions have paid for
        while there is no video:
            submit     the gate gives the turn and puts the intent on disk; then the POST
            lookup     if the answer was lost: does the task exist?         proof: what "not found" is worth
            poll       until the provider reports how it ended              schedule, lessons: when
            landing    fetch the bytes, check them, move them to their name
            failed?    another attempt, where one can heal it
        conclude       the outcome and its row in one commit

The gate asks two parts for that: `pacer` for the turn, `slots` for the slot. Both keep to what the
account's other runs on this machine leave: `share` says what that is, `book` is the file through which
they meet, and `Alone` stands for a run without others. What a refusal teaches, and when a turn is due,
says `account` for all of them. In a fleet, a `doorkeeper` asks for all jobs of a run in one worker:
`admission` judges slot, turn and budget together, and `gate_postgres` keeps them in one transaction.

A failure of one job is a value (`Failure`) and ends up in its row; only a state that cannot be written
ends the run. What stops a run early is asked of `stop`: it is the one switch that every stage observes.
Stages share one `RunContext` (time, chance, limits, policy) and one `Run` (the stages themselves); the
simulation of the tests puts the same pieces together by the same `wiring.assemble`.

Public face: `execute` in `execute`, `open_planned_run` and `plan_only` in `planner`, `Summary` in
`summary`.
"""

from __future__ import annotations
