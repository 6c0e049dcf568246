"""`python -m batch`, the same thing as `kling-batch`."""

from __future__ import annotations

import errno
import gc
import signal
import sys
from types import FrameType
from typing import NoReturn

from batch.cli import streams

GC_ALLOCATIONS = 50_000  # between collections; importing and reading leave no cycles
FAILED, INTERRUPTED, TERMINATED = 1, 130, 143  # as in `batch.errors`, which is not imported yet


def main() -> None:
    """Run the command line and exit with its code; signals are handled from the first import on."""
    streams.open_closed()
    out, _err = streams.make_tolerant()
    signal.signal(signal.SIGTERM, _leave)
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)
    try:
        from batch.cli import main as cli  # noqa: PLC0415 - a Ctrl-C during the import prints no traceback

        code = cli.main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as left:  # `_leave`, or click where a shell asks how a word goes on
        code = left.code if isinstance(left.code, int) else FAILED
    except MemoryError:  # not even enough to tell of it, or of another error, as usual
        sys.stderr.write("kling-batch: the system grants this process no more memory (ulimit -v)\n")
        code = FAILED
    sys.stdout.flush()
    if code in {INTERRUPTED, TERMINATED} and "--json" in sys.argv and not out.is_used:
        sys.stdout.write(_interrupted(code))
        sys.stdout.flush()
    if out.trouble is not None and out.trouble.errno != errno.EPIPE:
        sys.stderr.write(f"kling-batch: stdout cannot be written ({out.trouble.strerror})\n")
    sys.stderr.flush()
    sys.exit(code)


def _interrupted(code: int) -> str:
    """Return what `--json` promises where a signal came before a result, as `batch.cli.problems` has it."""
    import json  # noqa: PLC0415 - nothing else of this command may be loaded yet

    message = "interrupted before there was a result; run again to go on"
    problem = {"file": None, "line": None, "column": None, "job": None, "message": message}
    return f"{json.dumps({'exit_code': code, 'problems': [problem]})}\n"


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind as for a Ctrl-C. A run installs its own handlers, see `batch.run.signals`."""
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    main()
