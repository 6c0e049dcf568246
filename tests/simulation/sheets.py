"""Which of several manifests lists a job: in some years two of them share a library, and so its ledger.

A night runs one of them. To it the other's jobs are orphans: a run leaves them alone, and a person who
prunes may take their videos away. Now and then a job goes over from one to the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable


class Sheets:
    """The manifests of a seed. The dice are its own, so that it changes nothing about other seeds."""

    def __init__(self, seed: int, keys: Iterable[str], *, is_year: bool) -> None:
        self._rng = random.Random(f"sheets {seed}")
        self.count = 2 if is_year and self._rng.random() < 0.3 else 1
        self._of = {key: n % self.count for n, key in enumerate(keys)}
        self.now = 0

    def draw(self) -> None:
        """Choose tonight's manifest, and move a job by chance."""
        if self.count > 1:
            self.now = self._rng.randrange(self.count)
            if self._rng.random() < 0.1:
                self._of[self._rng.choice(list(self._of))] = self._rng.randrange(self.count)

    def listed(self, keys: Iterable[str]) -> list[str]:
        """Return which of *keys* are in tonight's manifest; all, if none is: nobody runs an empty one."""
        keys = list(keys)
        return [key for key in keys if self._of[key] == self.now] or keys
