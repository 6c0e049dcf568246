"""An attempt's state of every kind, as the tests of what is stored want them."""

from __future__ import annotations

from dataclasses import replace

from scripted import SAID, generated, landed, opened

from batch.attempt import (
    AttemptState,
    Discarded,
    Doubt,
    Failed,
    Generated,
    Intended,
    Lost,
    PaidTask,
    Pin,
    TimedOut,
    Unconfirmed,
)

DOUBT = Doubt(SAID, exists=True, on_request=True)
TASK = PaidTask("8", 1.0, "r-8")
EVERY_STATE: list[AttemptState] = [
    Intended(1.5),
    Intended(1.5, DOUBT),
    Lost(1.5, Doubt(SAID)),
    Lost(1.5, DOUBT),
    opened(),
    TimedOut(TASK, 2.0),
    TimedOut(TASK, 2.0, "queued"),
    generated(),
    Generated(TASK, 2.0, SAID),
    landed("8", "videos/a.mp4", 9),
    replace(landed("8", "videos/a.mp4", 9), warnings=("asked for 10 s", "ünïcode")),
    replace(landed("8", "videos/a.mp4", 9), pin=Pin("v2:0", 1.5)),
    replace(landed("8", "videos/a.mp4", 9), first_at=1.5, came_from="versions/a/1.mp4"),
    Discarded(TASK, 2.0, 3.0, 4.0, 9, "00"),
    Failed(SAID, 2.0),
    Failed(SAID, 2.0, TASK),
    Unconfirmed(1.0, Doubt(SAID)),
    Unconfirmed(1.0, DOUBT),
]
