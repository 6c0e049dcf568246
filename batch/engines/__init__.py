"""Many machines: runs that one process hands over, and workers carry out.

    run      plan as on one machine  →  begin  →  hand over the jobs, in one transaction  →  follow
    worker   an engine delivers (run, job)  →  claim  →  `JobRun` as on one machine  →  settle
             beat: what was stopped?  who is dead?  which run is settled?  →  end it

The engine only delivers: everything that concerns money is decided by our own rows (`batch.output.fleet`),
and holds with any engine. `engine` says what one has to do; `dbos` does it, over the rows of `queue`, and
nothing else knows it.
"""
