"""What a run has done so far: counted while it goes, told at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """What a run has done."""

    outcomes: Counter[str] = field(default_factory=Counter)
    tasks_created: int = 0
    adopted: int = 0
    superseded: int = 0
    cost_usd: float = 0.0
    left: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    troubles: list[dict[str, Any]] = field(default_factory=list)
