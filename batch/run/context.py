"""What every stage of a run shares."""

from __future__ import annotations

import random
from collections.abc import Callable

from batch.attempt import Account
from batch.clock import Clock
from batch.events import Event
from batch.frozen import frozen
from batch.manifest.limits import Limits
from batch.plan import Policy
from batch.run.stop import Stop


@frozen
class RunContext:
    """Time, chance and rules of one run; all of it comes from outside.

    *account* is where this run's requests go; *dice* decides jitter; *notify* is told every event.
    """

    account: Account
    limits: Limits
    policy: Policy
    clock: Clock
    dice: random.Random
    stop: Stop
    notify: Callable[[Event], None]
