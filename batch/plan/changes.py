"""What changed between the request that stands in the library and the one that the manifest makes."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

WORDS_AROUND = 3


class OptionChange(NamedTuple):
    """One option that is another; None stands for one that is not sent."""

    option: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Return it as a line of a plan has it; of a text only the words around its first change."""
        if isinstance(self.before, str) and isinstance(self.after, str) and " " in self.before:
            return f'{self.option}: "{first_change(self.before, self.after)}"'
        return f"{self.option} {_shown(self.before)} → {_shown(self.after)}"


class Changed(NamedTuple):
    """What is another in a changed job, and what its video cost before."""

    options: tuple[OptionChange, ...]
    cost_before_usd: float | None = None


def compare(before: str, after: str) -> tuple[OptionChange, ...]:
    """Return what differs between two requests (JSON); the prompts last, since they are long."""
    old, new = json.loads(before), json.loads(after)
    names = sorted(old.keys() | new.keys(), key=lambda name: ("prompt" in name, name))
    return tuple(
        OptionChange(name, old.get(name), new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    )


def first_change(before: str, after: str) -> str:
    """Return the first change between two texts, with the words around it: `a [-b-]{+c+} d`."""
    import difflib  # noqa: PLC0415 - only for a plan that is shown

    old, new = _words(before), _words(after)
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for tag, old_from, old_to, new_from, new_to in codes:
        if tag == "equal":
            continue
        left = max(0, old_from - 2 * WORDS_AROUND)
        right = old_to + 2 * WORDS_AROUND
        removed, added = "".join(old[old_from:old_to]), "".join(new[new_from:new_to])
        return "".join(
            [
                "…" if left else "",
                *old[left:old_from],
                f"[-{removed}-]" if removed else "",
                f"{{+{added}+}}" if added else "",
                *old[old_to:right],
                "…" if right < len(old) else "",
            ]
        )
    return after


def _words(text: str) -> list[str]:
    """Split a text into words and what stands between them; letters without blanks one by one."""
    return re.findall(r"[\u3000-\u9fff\uac00-\ud7af]|[^\s\u3000-\u9fff\uac00-\ud7af]+|\s+", text)


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
