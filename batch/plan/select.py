"""Which jobs a run is about: patterns over ids, tags and states.

A pattern is a glob over ids, `tag:` and a glob over tags, or `state:` and a word of `STATES`. No id
holds a colon, so the three are never mistaken for each other.
"""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from batch.attempt import Phase
from batch.errors import UsageError
from batch.job import Job

TAG, STATE = "tag:", "state:"
STATES = {
    "new": "never submitted",
    "open": "submitted, and its video is not here yet",
    "succeeded": "its video was downloaded",
    "failed": "it failed, or its download did",
    "timed_out": "its task was still open when task_timeout was over",
    "unconfirmed": "it is not known whether a task exists",
}
_WORDS = {
    Phase.LANDED: "succeeded",
    Phase.DISCARDED: "succeeded",
    Phase.FAILED: "failed",
    Phase.TIMED_OUT: "timed_out",
    Phase.UNCONFIRMED: "unconfirmed",
}


def state_of(phase: Phase | None, failure_kind: str | None = None) -> str:
    """Return the word of `STATES` for a job, as its last line of results.jsonl has it.

    Args:
        phase: that of its latest attempt; None without one.
        failure_kind: that of its latest attempt, if it (or its download) failed.
    """
    if phase is None:
        return "new"
    if phase is Phase.GENERATED and failure_kind is not None:
        return "failed"
    return _WORDS.get(phase, "open")


def read_pattern(text: str) -> str:
    """Return *text* as a pattern, in Unicode's composed form.

    Raises:
        ValueError: it can match no job, whatever the manifest.
    """
    if not text.strip():
        raise ValueError("an empty pattern matches no job")
    if not text.isprintable():
        raise ValueError(f"{text!r} is not a valid pattern: it holds an invisible character")
    if text.startswith(STATE) and text.removeprefix(STATE) not in STATES:
        raise ValueError(
            f"{text!r} is not a valid pattern; the states are {', '.join(STATES)}, for example"
            " state:failed"
        )
    return unicodedata.normalize("NFC", text)


class Selection(NamedTuple):
    """The jobs that a run is about: those of *select* (none: all), without those of *exclude*."""

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether it names no pattern, so that every job is selected."""
        return not self.select and not self.exclude

    def takes(self, job_id: str, tags: Sequence[str], state: str) -> bool:
        """Return whether a job is selected; *state* is a word of `STATES`."""
        is_in = not self.select or any(_matches(p, job_id, tags, state) for p in self.select)
        return is_in and not any(_matches(p, job_id, tags, state) for p in self.exclude)

    def check(self, jobs: Sequence[Job], known_ids: Callable[[], Collection[str]]) -> None:
        """Refuse patterns that match no job of the manifest: most are typing errors.

        A state may have no jobs tonight, and so may a tag that is excluded.

        Args:
            jobs: those of the manifest.
            known_ids: returns the ids that the state knows; asked only to explain a refusal.

        Raises:
            UsageError: a pattern matches no job, or every job is excluded.
        """
        told = [("selects", p) for p in self.select] + [
            ("excludes", p) for p in self.exclude if not p.startswith(TAG)
        ]
        faults = [(verb, p) for verb, p in told if _is_idle(p, jobs)]
        if faults:
            known = known_ids()
            raise UsageError("\n".join(_refusal(verb, p, jobs, known) for verb, p in faults))
        has_state = any(p.startswith(STATE) for p in (*self.select, *self.exclude))
        if jobs and not has_state and not any(self.takes(job.id, job.tags, "") for job in jobs):
            raise UsageError("every job that is selected is excluded, too")

    def idle_tags(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Iterate over the excluded tags that no job of the manifest has."""
        return (p for p in self.exclude if p.startswith(TAG) and _is_idle(p, jobs))


def _matches(pattern: str, job_id: str, tags: Sequence[str], state: str) -> bool:
    if pattern.startswith(TAG):
        return any(_is_like(tag, pattern.removeprefix(TAG)) for tag in tags)
    if pattern.startswith(STATE):
        return state == pattern.removeprefix(STATE)
    return _is_like(job_id, pattern)


def _is_like(text: str, glob: str) -> bool:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text == glob or fnmatch.fnmatchcase(text, glob)  # an id may hold brackets


def _is_idle(pattern: str, jobs: Sequence[Job]) -> bool:
    return not pattern.startswith(STATE) and not any(
        _matches(pattern, job.id, job.tags, "") for job in jobs
    )


def _refusal(verb: str, pattern: str, jobs: Sequence[Job], known: Collection[str]) -> str:
    message = f"the pattern {pattern!r} {verb} no job of the manifest"
    orphans = [job_id for job_id in known if _matches(pattern, job_id, (), "")]
    if orphans:
        more = f" and {len(orphans) - 1} more" if len(orphans) > 1 else ""
        return f"{message}, only what has left it: {orphans[0]!r}{more}; a run keeps its video"
    import difflib  # noqa: PLC0415 - only a mistyped pattern needs it

    names = {job.id for job in jobs} | {TAG + tag for job in jobs for tag in job.tags}
    near = difflib.get_close_matches(pattern, names, n=1)
    return f"{message}; did you mean {near[0]!r}?" if near else message
