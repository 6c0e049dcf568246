"""What needs a person, grouped by kind, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from batch.errors import ExitCode
from batch.report.entries import Entry
from batch.report.records import Run

KEPT_DAYS = 30  # how long the provider keeps a video
DAY_S = 86_400
AGAIN = "The next run tries again, at most max_attempts times."

# In this order. The kinds of failure are those of results.jsonl.
ADVICE = {
    "account": "Mend the key, the credit or the permission, then run again.",
    "missing": "Run again: these are paid for, and downloading costs nothing.",
    "unconfirmed": "The next run looks for the tasks. What you have seen at the provider, or not, settles"
    " it: kling-batch adopt, or forget.",
    "moderation": "Change the prompt. --retry-failed sends it again as it is, and pays.",
    "invalid_request": "Change the job: the provider does not take it as it is.",
    "timed_out": "Nothing to do: the next run asks for these tasks again, unpaid.",
    "unexplained": "The next run tries once more; then change the prompt, or use --retry-failed.",
    "generation": AGAIN,
    "resting": "No run tries again by itself: change the job, or use --retry-failed.",
    "spent": "No run tries again: change the job, or raise limits.max_attempts.",
    "media": "Look at the file that the provider made; --force pays for another one.",
    "download": "The provider no longer has it. --retry-failed pays for a new one.",
    "disk": "Make room on the disk, or mend its permissions, then run again.",
}
TITLES = {
    "account": "The provider refuses the account",
    "missing": "paid for and not here",
    "unconfirmed": "unconfirmed: perhaps paid for",
    "moderation": "refused by moderation",
    "invalid_request": "refused as invalid",
    "timed_out": "still open at the provider",
    "unexplained": "failed for a reason in unknown words",
    "generation": "failed at the provider",
    "resting": "failed again, and at rest",
    "spent": "failed as often as max_attempts allows",
}


@dataclass(slots=True)
class Need:
    """A group: *jobs* are the numbers of entries, *notes* what is to be said of each."""

    kind: str
    jobs: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    message: str = ""

    @property
    def title(self) -> str:
        """What it is, to stand after the number of jobs."""
        return TITLES.get(self.kind, f"failed ({self.kind.replace('_', ' ')})")

    @property
    def advice(self) -> str:
        """What to do."""
        return ADVICE.get(self.kind, AGAIN)

    def to_json(self) -> dict[str, Any]:
        """Return the group as plain JSON values."""
        return {"kind": self.kind, "title": self.title, "advice": self.advice, "jobs": self.jobs}


def needs(found: list[Entry], run: Run | None, now: float) -> list[Need]:
    """Return the groups that are not empty, in the order of `ADVICE`, unknown kinds last.

    Args:
        found: all entries.
        run: the latest run; the account's refusal is its exit code.
        now: decides how long the provider still keeps a video.
    """
    groups: dict[str, Need] = {}
    if run is not None and run.exit_code == ExitCode.ACCOUNT:
        groups["account"] = Need("account", message=str(run.summary.get("stopped") or ""))
    for number, entry in enumerate(found):
        kind = kind_of(entry)
        if kind is not None:
            group = groups.setdefault(kind, Need(kind))
            group.jobs.append(number)
            group.notes.append(_note(entry, kind, now))
    for group in groups.values():
        if group.notes and len(set(group.notes)) == 1:
            group.message, group.notes = group.message or group.notes[0], [""] * len(group.notes)
    order = list(ADVICE)
    return sorted(
        groups.values(),
        key=lambda need: order.index(need.kind) if need.kind in order else len(order),
    )


def kind_of(entry: Entry) -> str | None:
    """Return the kind of trouble of an entry; None where it needs nobody."""
    match entry["status"]:
        case "to_download":
            return "missing"
        case "missing" if not entry.get("orphan"):
            return "missing"
        case "timed_out" | "unconfirmed" as status:
            return str(status)
        case "failed" if not entry.get("orphan"):
            error = entry["tries"][0]["error"]
            if "rests" in entry:
                return str(entry["rests"])
            return "unexplained" if "unexplained" in error else str(error["kind"])
        case _:
            return None


def _note(entry: Entry, kind: str, now: float) -> str:
    latest = entry["tries"][0]
    message: str = latest.get("error", {}).get("message", "")
    if kind != "missing":
        return message
    left = min(KEPT_DAYS - int((now - latest["generated"]) / DAY_S), KEPT_DAYS)
    days = f"{left} days left" if left > 1 else "the last day" if left == 1 else "probably too late"
    return f"{days}; {message}" if message else days
