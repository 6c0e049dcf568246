"""Output folders of any size, written as runs would have left them: for pictures and for budgets."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.attempt import Attempt, Failed, Landed, Open, PaidTask, TimedOut
from batch.job import Failure, FailureKind, Video, canonical_request, fingerprint
from batch.output.layout import Layout
from batch.output.sqlite import Database
from batch.output.state import BeginRun, EndRun, Fact, Put
from batch.prices import estimate
from batch.sandbox.video.clips import clip_duration_s, render

SUBJECTS = ("fox", "deer", "owl", "teacup", "train", "bridge", "skyline", "harbour", "kiln", "kelp")
LIGHTS = ("at-dawn", "in-the-morning", "at-noon", "in-the-evening", "under-snow", "in-the-rain")
HOSTILE = (
    "odd #1 100% & \"x\" 'y'",
    "عربي/قمر",
    "狐狸/清晨",
    "a-very-long-identifier-" + "x" * 120,
)
PROMPTS = {
    HOSTILE[0]: "</script><img src=x onerror=document.title='pwned'><!-- <script>",
    HOSTILE[1]: "قمر فوق البحر، موج هادئ \u202eoverride",
    HOSTILE[2]: "一只狐狸走过高高的草丛，清晨的光线，镜头缓慢推进，浅景深",
}
DAY_S = 86_400
RECORD = {
    "limits": {"max_in_flight": 6, "submit_rate": [60, 60.0], "budget_per_month_usd": 300.0},
    "refused": [[600, "1303", 3], [9000, "429", 1]],
}


@dataclass
class Library:
    """A folder in the making: every so-many-th job has a fault, a change or something new."""

    root: Path
    jobs: int
    seed: int = 1
    failing: bool = False
    is_bare: bool = False  # its videos are one byte long
    pruned: str | None = None  # a job that has left the manifest, its video moved to versions/

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.now = time.time()
        self.start = self.now - 6 * 3600

    def write(self) -> Path:
        """Write state and videos."""
        layout = Layout(self.root)
        layout.state.mkdir(parents=True)
        with Database.open(layout.database) as database:
            changes: list[Any] = [
                BeginRun("20261120T020000Z-0a1b2c", self.start - 8 * DAY_S),
                EndRun("20261120T020000Z-0a1b2c", self.start - 8 * DAY_S + 9000, 0),
                BeginRun("20261128T005500Z-5c9ed6", self.start),
                EndRun("20261128T005500Z-5c9ed6", self.start + 4 * 3600, 1, json.dumps(RECORD)),
            ]
            listed = []
            for number in range(self.jobs):
                job_id = self._id(number)
                listed.append([job_id, [self.subject(number), "loops"]])
                changes += map(Put, self._attempts(number, job_id))
            if self.pruned is not None:
                body = {"prompt": "A pruned one", "duration": "5", "aspect_ratio": "16:9"}
                body |= {"model_name": "kling-v3"}
                file = f"versions/{self.pruned}/20261120T023108Z.mp4"
                changes.append(Put(self._landed(self.pruned, 1, body, self.start - DAY_S, file)))
            changes.append(Fact("listed", json.dumps(listed)))
            database.write(changes)
        return self.root

    def _id(self, number: int) -> str:
        if 3 <= number < 3 + len(HOSTILE):
            return HOSTILE[number - 3]
        return f"{self.subject(number)}/{LIGHTS[number // 10 % 6]}-{number:03}"

    @staticmethod
    def subject(number: int) -> str:
        return SUBJECTS[number % len(SUBJECTS)]

    def _attempts(self, number: int, job_id: str) -> Iterator[Attempt]:
        is_changed, is_new = number % 6 == 1, number % 50 == 0
        light = LIGHTS[number // 10 % 6].replace("-", " ")
        prompt = PROMPTS.get(
            job_id, f"A {self.subject(number)} {light}, slow push in, soft light, take {number}."
        )
        ratio = ("16:9", "16:9", "16:9", "9:16", "1:1")[self.dice.randrange(5)]
        options = {
            "model_name": "kling-v3" if number % 4 else "kling-v2-6",
            "mode": "std" if number % 3 else "pro",
            "duration": "10" if number % 8 == 7 else "5",
            "aspect_ratio": ratio,
        }
        old = self.start - 8 * DAY_S + self.dice.random() * 8000
        if self.failing:
            yield self._failed(job_id, 1, {"prompt": prompt, **options}, self._tonight(number))
            return
        if is_changed:
            former = {"prompt": prompt.replace("slow push in", "static camera"), **options}
            former |= {"model_name": "kling-v2-6"}
            if number % 12 == 1:
                former |= {"aspect_ratio": "4:3", "duration": "10"}
            file = f"versions/{job_id}/20261120T023108Z.mp4"
            yield self._landed(job_id, 1, former, old, file)
        begun = self._tonight(number) if is_changed or is_new else old
        body = {"prompt": prompt, **options}
        attempt = 2 if is_changed else 1
        if number % 35 == 20:
            yield self._failed(job_id, attempt, body, self._tonight(number))
        elif number % 71 == 30:
            task = self._task(begun)
            yield self._attempt(job_id, attempt, body, TimedOut(task, begun + 1800))
        elif number % 200 == 55:
            yield self._attempt(job_id, attempt, body, Open(self._task(begun)))
        else:
            yield self._landed(job_id, attempt, body, begun, f"videos/{job_id}.mp4")

    def _tonight(self, number: int) -> float:
        return self.start + (number * 977 % 13000) + self.dice.random() * 60

    def _task(self, sent: float) -> PaidTask:
        number = self.dice.randrange(10**17, 10**18)
        return PaidTask(str(number), sent, f"req-{number % 10**9}")

    def _failed(self, job_id: str, number: int, body: dict[str, Any], sent: float) -> Attempt:
        kind, words = self.dice.choice(
            [
                (FailureKind.MODERATION, "the provider refuses this prompt (risk control)"),
                (FailureKind.GENERATION, "the provider failed to make it: generation error"),
            ]
        )
        state = Failed(Failure(kind, words), sent + 60 + self.dice.random() * 120, self._task(sent))
        return self._attempt(job_id, number, body, state)

    def _landed(
        self, job_id: str, number: int, body: dict[str, Any], sent: float, file: str
    ) -> Attempt:
        seconds = int(body["duration"])
        text = f"#{number} {body['model_name']}"
        content = b"\0"
        if not self.is_bare:
            content = render(body["prompt"], text, body["aspect_ratio"], seconds).content()
        width, height = {"16:9": (320, 180), "9:16": (180, 320), "1:1": (240, 240)}.get(
            body["aspect_ratio"], (256, 192)
        )
        generated = sent + 90 + self.dice.lognormvariate(4.5, 0.35)
        landed = generated + 4 + self.dice.random() * 20
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (landed, landed))
        state = Landed(
            task=self._task(sent),
            generated_at=generated,
            landed_at=landed,
            file=file,
            bytes=len(content),
            sha256=hashlib.sha256(content if len(content) > 1 else file.encode()).hexdigest(),
            video=Video(clip_duration_s(seconds), width, height),
        )
        return self._attempt(job_id, number, body, state)

    def _attempt(self, job_id: str, number: int, body: dict[str, Any], state: Any) -> Attempt:
        request = canonical_request(body)
        return Attempt(
            external_task_id=f"kb-{self.dice.randbytes(16).hex()}",
            job_id=job_id,
            fingerprint=fingerprint(request, None),
            number=number,
            request=request,
            state=state,
            cost_usd=estimate(body).usd,
        )
