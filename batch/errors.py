"""Every error of the package, and every exit code.

The class of an error says who must act:

    BatchError
    ├── UsageError            the person: wrong option, missing key            exit 2
    │   └── ManifestError     the person: the manifest, all faults at once     exit 2
    ├── StateError            the person: the output folder cannot be used     exit 1
    │   ├── AwayError         the person, or time: the database of a fleet does not answer  exit 1
    │   ├── StateLostError    the person: results are there, their state is not  exit 2
    │   └── RefusedError      us: a commit would break a rule of the state     exit 1
    ├── LockedError           no one: another run holds the folder             exit 75
    ├── ClaimLostError        no one: another worker has taken over the job    exit 1
    └── TransitionError       us: a state of a job was left in a way that its table forbids

What happens to one job (a refusal, a failed generation, a time-out) is no exception but a value,
`batch.job.Failure`: one bad prompt never ends a run.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import NamedTuple

NO_MEMORY = (
    "the system grants this process no more memory (ulimit -v, or the limit of a container); raise that"
    " limit and run again"
)


@unique
class ExitCode(IntEnum):
    """What the process says when it ends. Part of the public contract."""

    OK = 0
    JOBS_FAILED = 1
    USAGE = 2
    LIMIT = 3
    ACCOUNT = 4
    BUG = 70
    LOCKED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class BatchError(Exception):
    """Base of all errors that are told to the person in a sentence, without a traceback."""

    exit_code: ExitCode = ExitCode.JOBS_FAILED


class UsageError(BatchError):
    """The command or its surroundings are wrong; nothing was sent.

    *file* and *line* say where, if it is in a file.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        self.message, self.file, self.line = message, file, line
        super().__init__(message if file is None else f"{file}:{line}: {message}")


class Problem(NamedTuple):
    """One fault or warning in a manifest: where it is, and what to do about it.

    *line* and *column* count from 1; *line* is 0 for a file that cannot be read at all.
    """

    file: str
    line: int
    column: int
    message: str
    job: str | None = None
    advice: str | None = None

    def __str__(self) -> str:
        """Render as `file:line:column: job 'x': message (advice)`."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        job = f"job {self.job!r}: " if self.job is not None else ""
        return f"{place}: {job}{self.told}"

    @property
    def told(self) -> str:
        """The message and the advice, without the place."""
        return f"{self.message} ({self.advice})" if self.advice else self.message


class ManifestError(UsageError):
    """The manifest cannot be used. Carries every problem found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: (p.file, p.line, p.column))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class StateError(BatchError):
    """The state or the output folder cannot be read or written; nothing more is submitted."""


class AwayError(StateError):
    """The database of a fleet does not answer; whether it has done what was asked is not known."""


class StateLostError(StateError):
    """The folder holds results without their state: it is not the one that was meant, or it is broken.

    As with a wrong option, nothing was sent, and only the person can say what is right.
    """

    exit_code = ExitCode.USAGE


class RefusedError(StateError):
    """A commit would give a task two owners, or a job two unfinished attempts."""


class LockedError(BatchError):
    """Another run holds the output folder."""

    exit_code = ExitCode.LOCKED


class ClaimLostError(BatchError):
    """Another worker has claimed the job: whatever this one still does is too late."""


class TransitionError(AssertionError):
    """A bug of ours: the table in `batch.job` has no such transition."""
