"""Moves: which jobs are known under another id, and a death at every step of carrying that out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ACCOUNT

from batch.attempt import Attempt, Discarded, Generated, Landed, PaidTask, Phase
from batch.job import Job, Video, canonical_request, fingerprint
from batch.output import disk
from batch.output.folder import OutputFolder, open_folder
from batch.output.sqlite import Database
from batch.output.state import Put
from batch.plan import Known, Policy, make_plan
from batch.plan.moves import after_moves, find_moves, with_room
from batch.plan.select import Selection
from batch.run import moves as moving


def job(job_id: str, prompt: str) -> Job:
    request = canonical_request({"prompt": prompt, "mode": "std"})
    return Job(job_id, request, fingerprint(request, None))


def tried(of: Job, number: int = 1, phase: Phase = Phase.LANDED) -> Known:
    file = of.video_path if phase is Phase.LANDED else None
    name = f"kb-{of.id}-{of.fingerprint[-6:]}-{number}"
    return Known(name, of.id, number, of.fingerprint, phase, "8", None, file, 9, 0.21, 1.0)


def known(*attempts: Known) -> dict[str, list[Known]]:
    found: dict[str, list[Known]] = {}
    for attempt in attempts:
        found.setdefault(attempt.job_id, []).append(attempt)
    return found


def pairs(jobs: list[Job], *attempts: Known) -> list[tuple[str, str]]:
    return [(move.old_id, move.new_id) for move in find_moves(jobs, known(*attempts))]


FOX, DEER = job("fox", "A fox"), job("deer", "A deer")


def test_known_jobs_do_not_move() -> None:
    assert pairs([FOX, DEER], tried(FOX), tried(DEER)) == []
    assert pairs([FOX, DEER]) == []


def test_job_that_loses_its_pin_takes_its_own_video() -> None:
    pinned = tried(job("fox", "A deer"))._replace(pinned_for=FOX.fingerprint)
    assert pairs([FOX, DEER], pinned) == [("fox", "deer")]
    own = tried(job("deer", "A fox"))
    assert pairs([FOX, DEER], pinned, own) == [("deer", "fox"), ("fox", "deer")]


def test_request_that_is_wanted_where_it_stands_stays() -> None:
    assert pairs([FOX, job("copy", "A fox")], tried(FOX)) == []


def test_id_that_is_gone_comes_before_a_former_version() -> None:
    """Its video would not be needed by anyone else."""
    changed = [job("fox", "A wolf"), job("new", "A fox")]
    gone = job("gone", "A fox")
    assert pairs(changed, tried(FOX), tried(gone)) == [("gone", "new")]
    assert pairs(changed, tried(FOX)) == [("fox", "new")]


def test_video_comes_before_a_failure() -> None:
    first, second = job("a", "A fox"), job("b", "A fox")
    attempts = (tried(first, phase=Phase.FAILED), tried(second))
    assert pairs([job("new", "A fox")], *attempts) == [("b", "new")]


def test_video_comes_before_an_id_that_is_gone() -> None:
    """The failures of an id that is gone would only be continued, and paid for."""
    changed = job("fox", "A wolf")
    attempts = (tried(FOX), tried(job("gone", "A fox"), phase=Phase.FAILED))
    assert pairs([changed, job("new", "A fox")], *attempts) == [("fox", "new")]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DISCARDED])
def test_failed_job_takes_a_video_of_its_request(phase: Phase) -> None:
    attempts = (tried(FOX, phase=phase), tried(job("gone", "A fox"), 2))
    (move,) = find_moves([FOX], known(*attempts))
    assert (move.old_id, [item.number for item in move.attempts]) == ("gone", [2])


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DISCARDED])
def test_failed_job_takes_nothing_worthless(phase: Phase) -> None:
    attempts = (tried(FOX, phase=Phase.FAILED), tried(job("gone", "A fox"), phase=phase))
    assert pairs([FOX], *attempts) == []


def test_failed_job_comes_after_a_new_one() -> None:
    """It may rest, and then nothing is paid for either."""
    attempts = (tried(FOX, phase=Phase.FAILED), tried(job("gone", "A fox")))
    assert pairs([FOX, job("new", "A fox")], *attempts) == [("gone", "new")]


def test_job_with_a_restored_version_takes_nothing() -> None:
    restored = tried(job("fox", "A wolf"))._replace(pinned_for=FOX.fingerprint)
    assert pairs([FOX], restored, tried(job("gone", "A fox"))) == []


def test_same_name_in_other_letters_comes_first() -> None:
    attempts = (tried(job("a", "A fox")), tried(job("FOX", "A fox")))
    assert pairs([job("Fox", "A fox")], *attempts) == [("FOX", "Fox")]


def test_other_letters_keep_the_history_of_a_changed_job() -> None:
    (move,) = find_moves([job("Fox", "A wolf")], known(tried(FOX), tried(FOX, 2)))
    assert [item.number for item in move.attempts] == [1, 2]


def test_whole_history_of_an_id_goes_along() -> None:
    wolf = job("fox", "A wolf")
    new = job("red-fox", "A fox")
    (move,) = find_moves([new], known(tried(wolf, 1), tried(FOX, 2)))
    assert [item.fingerprint for item in move.attempts] == [wolf.fingerprint, FOX.fingerprint]


def test_own_attempts_are_numbered_first() -> None:
    old = job("deer", "A deer at night")
    wanted = job("deer", "A fox")
    found = known(tried(old, 3), tried(FOX, 1))
    (move,) = with_room(find_moves([wanted], found), found)
    assert [item.number for item in move.attempts] == [4]
    assert not move.has_room


@given(
    st.lists(st.sampled_from(["x", "y", "z"]), min_size=4, max_size=4),
    st.lists(st.sampled_from(["x", "y", "z"]), min_size=4, max_size=4),
    st.permutations(["a", "b", "c", "d"]),
)
def test_as_many_requests_are_kept_as_are_known(
    before: list[str], after: list[str], names: list[str]
) -> None:
    """However jobs are renamed and swapped, nothing is paid that is known often enough."""
    old = [job(name, prompt) for name, prompt in zip("abcd", before, strict=True)]
    new = [job(name, prompt) for name, prompt in zip(names, after, strict=True)]
    found = known(*map(tried, old))
    moves = find_moves(new, found)
    then = after_moves(found, moves)

    moved = [item.external_task_id for move in moves for item in move.attempts]
    assert len(moved) == len(set(moved))
    kept = sum(any(i.fingerprint == one.fingerprint for i in then.get(one.id, ())) for one in new)
    assert kept == sum(min(before.count(prompt), after.count(prompt)) for prompt in "xyz")
    assert sum(map(len, then.values())) == 4


def stands(attempts: Sequence[Known], one: Job) -> bool:
    """Return whether a job has its video, and nothing else."""
    return [(item.phase, item.fingerprint) for item in attempts] == [
        (Phase.LANDED, one.fingerprint)
    ]


TRIED = st.tuples(
    st.sampled_from(["a", "A", "b", "c"]),
    st.sampled_from("xyz"),
    st.sampled_from([Phase.LANDED, Phase.FAILED, Phase.DISCARDED, Phase.OPEN]),
)


AFTER = st.dictionaries(st.sampled_from(["A", "b", "c"]), st.sampled_from("xyz"))


def history(before: list[tuple[str, str, Phase]]) -> dict[str, list[Known]]:
    found = known()
    for name, prompt, phase in before:
        found.setdefault(name, []).append(
            tried(job(name, prompt), len(found.get(name, ())) + 1, phase)
        )
    return found


@given(st.lists(TRIED, max_size=6), AFTER, st.sets(st.sampled_from("aAbc")), st.booleans())
def test_selecting_every_job_plans_the_same(
    before: list[tuple[str, str, Phase]], after: dict[str, str], missing: set[str], no_move: bool
) -> None:
    """Without a selection, jobs that are up to date are passed over from the start."""
    found = history(before)
    jobs = [job(name, prompt) for name, prompt in after.items()]
    plans = [
        make_plan(
            jobs,
            found,
            policy=Policy(no_move=no_move, selection=selection),
            is_present=lambda item: item.job_id not in missing,
            price=lambda _job: (0.21, True),
        )
        for selection in (Selection(), Selection(select=("*",)))
    ]
    assert plans[0] == plans[1]


@given(st.lists(TRIED, max_size=6), AFTER)
def test_second_plan_moves_nothing(
    before: list[tuple[str, str, Phase]], after: dict[str, str]
) -> None:
    """Equal requests never exchange their videos night by night, and none is left where it is useless."""
    found = history(before)
    jobs = [job(name, prompt) for name, prompt in after.items()]
    wanted = {one.id: one.fingerprint for one in jobs}
    moves = find_moves(jobs, found)
    passing = after_moves(found, moves)
    then = dict(passing)

    assert len(passing) == len(then)
    assert {name for name in [*found, *wanted] if name in passing} == set(then)
    assert all(then.values())
    places = [at for at, one in enumerate(jobs) if not stands(found.get(one.id, ()), one)]
    assert find_moves(jobs, found, places) == moves
    useful = [
        item.fingerprint
        for name, items in then.items()
        for item in items
        if item.fingerprint != wanted.get(name) and item.phase in {Phase.LANDED, Phase.OPEN}
    ]
    for one in jobs:
        own = [item for item in then.get(one.id, ()) if item.fingerprint == one.fingerprint]
        if not {item.phase for item in own} & {Phase.LANDED, Phase.OPEN}:
            assert one.fingerprint not in useful
            then.setdefault(one.id, []).append(tried(one, 50))  # it is paid for
    assert find_moves(jobs, then) == []


# -- carried out


class DiedError(BaseException):
    """The process is gone."""


class Mortal:
    """Dies at one of the steps that change a disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.left = at
        self.has_died = False
        for owner, name in ((disk, "link"), (disk, "move"), (disk, "flush"), (Database, "write")):
            monkeypatch.setattr(owner, name, self.around(getattr(owner, name)))
        for name in ("unlink", "rename"):
            monkeypatch.setattr(Path, name, self.around(getattr(Path, name)))

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = work(*args, **kwargs)
            self.step()
            return result

        return wrapped

    def step(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.has_died = True
            raise DiedError


def landed(of: Job) -> Attempt:
    state = Landed(PaidTask(f"8{of.id}", 1.0), 2.0, 3.0, of.video_path, 9, "00", Video(5.0, 1, 1))
    return Attempt(f"kb-{of.id}", of.id, of.fingerprint, 1, of.request, state, account=ACCOUNT)


def move_all(folder: OutputFolder, jobs: list[Job]) -> None:
    moves = find_moves(jobs, folder.database.known())
    moving.carry_out(folder, moves, run_id="r", now=9.0)


def recorded(folder: OutputFolder) -> dict[str, str]:
    """Return where the state has each video, and what that holds."""
    return {
        attempt.state.file: f"video {attempt.external_task_id.removeprefix('kb-')}"
        for attempt in folder.database.attempts()
        if isinstance(attempt.state, Landed)
    }


STORIES = {
    "renamed": {"x": "a", "deep/y": "b", "c": "c"},
    "swapped": {"a": "b", "b": "a", "c": "c"},
    "in a circle": {"b": "a", "c": "b", "a": "c"},
    "along a chain": {"b": "a", "c": "b", "d": "c"},
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a library of three videos."""

    def library(name: str) -> Path:
        root = tmp_path / name
        with open_folder(root, sandbox=True, now=1.0) as folder:
            (root / "videos").mkdir()
            for prompt in "abc":
                (root / f"videos/{prompt}.mp4").write_text(f"video {prompt}")
                folder.database.write([Put(landed(job(prompt, prompt)))])
        return root

    return library


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_death_at_any_step_of_a_move_loses_no_video(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, story: dict[str, str]
) -> None:
    """Who opens the folder next has every video under one name, and the next run under its own.

    The manifest may have gone back meanwhile: no other run would look at a second name.
    """
    jobs = [job(new, old) for new, old in story.items()]
    for at in itertools.count():
        root = make(f"library-{at}")
        with monkeypatch.context() as patch, open_folder(root, sandbox=True, now=1.0) as folder:
            mortal = Mortal(patch, at)
            with suppress(DiedError):
                move_all(folder, jobs)
        with open_folder(root, sandbox=True, now=1.0) as folder:
            there = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.mp4")}
            assert there == recorded(folder), f"step {at}"
            move_all(folder, jobs)
            there = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.mp4")}
            assert there == {f"videos/{new}.mp4": f"video {old}" for new, old in story.items()}
            assert there == recorded(folder), f"step {at}"
        if not mortal.has_died:
            break
    assert at > 8


@pytest.mark.parametrize("former", ["a", "z"])
def test_copy_that_a_restored_version_left_is_cleared(
    make: Callable[[str], Path], former: str
) -> None:
    """The disk did not let its name under versions/ go; nobody looks under a former id any more."""
    root = make("library")
    left = f"versions/{former}/19700101T000001Z.mp4"
    (root / left).parent.mkdir(parents=True)
    (root / left).write_text("video a")
    with open_folder(root, sandbox=True, now=1.0) as folder:
        restored = landed(job("a", "a"))
        assert isinstance(restored.state, Landed)
        folder.database.write([Put(restored.to(replace(restored.state, came_from=left)))])
        move_all(folder, [job("x", "a"), job("b", "b"), job("c", "c")])
    there = sorted(str(path.relative_to(root)) for path in root.rglob("*.mp4"))
    assert there == ["videos/b.mp4", "videos/c.mp4", "videos/x.mp4"]


def test_video_that_was_never_recorded_goes_along(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run died over it: its job's next name finds it, and nothing is left under the last one."""
    for at in itertools.count():
        root = make(f"library-{at}")
        with monkeypatch.context() as patch, open_folder(root, sandbox=True, now=1.0) as folder:
            made = replace(landed(job("a", "a")), state=Generated(PaidTask("8a", 1.0), 2.0))
            folder.database.write([Put(made)])
            mortal = Mortal(patch, at)
            with suppress(DiedError):
                move_all(folder, [job("x", "a")])
        with open_folder(root, sandbox=True, now=1.0) as folder:
            owner = folder.database.attempt("kb-a").job_id
        names = sorted(path.name for path in root.rglob("*.mp4"))
        assert names == sorted([f"{owner}.mp4", "b.mp4", "c.mp4"]), f"step {at}"
        if not mortal.has_died:
            break
    assert owner == "x"


def test_two_spellings_of_one_name_lose_no_video(tmp_path: Path) -> None:
    """Where letter case does not count, the folders of both are one."""
    with open_folder(tmp_path, sandbox=True, now=1.0) as folder:
        (tmp_path / "videos/Deep").mkdir(parents=True)
        (tmp_path / "videos/deep").symlink_to("Deep")
        (tmp_path / "videos/deep/x.mp4").write_text("a video")
        folder.database.write([Put(landed(job("deep/x", "A fox")))])
        move_all(folder, [job("Deep/x", "A fox")])
        (attempt,) = folder.database.attempts()
    assert isinstance(attempt.state, Landed)
    assert attempt.state.file == "videos/Deep/x.mp4"
    assert (tmp_path / attempt.state.file).read_text() == "a video"


def test_move_of_a_discarded_video_tells_of_the_one_that_stands(tmp_path: Path) -> None:
    old = landed(job("old", "A fox"))
    gone = Discarded(PaidTask("9", 4.0), 5.0, 6.0, 7.0, 9, "00")
    latest = replace(old, external_task_id="kb-9", number=2, state=gone)
    with open_folder(tmp_path, sandbox=True, now=1.0) as folder:
        (tmp_path / "videos").mkdir()
        (tmp_path / "videos/old.mp4").write_text("a video")
        folder.database.write([Put(old), Put(latest)])
        move_all(folder, [job("new", "A fox")])
        (row,) = map(json.loads, folder.database.result_lines())
    assert (row["job_id"], row["status"], row["task_id"]) == ("new", "succeeded", "8old")
    assert row["file"] == "videos/new.mp4"


def test_name_that_a_failed_landing_left_is_cleared(
    make: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk took no more: the former video had its place under versions/, and the new one none."""
    for at in itertools.count():
        root = make(f"library-{at}")
        former = Path("versions/a/19700101T000003Z.mp4")
        with open_folder(root, sandbox=True, now=1.0) as folder:
            (root / former.parent).mkdir(parents=True)
            disk.link(root / "videos/a.mp4", root / former)
            known = landed(job("a", "a"))
            displaced = replace(known, state=replace(known.state, file=str(former)))
            folder.database.write([Put(displaced)])
            jobs = [job("x", "a"), job("a", "b"), job("c", "c")]
            with monkeypatch.context() as patch, suppress(DiedError):
                mortal = Mortal(patch, at)
                move_all(folder, jobs)
        with open_folder(root, sandbox=True, now=1.0) as folder:
            move_all(folder, jobs)
        assert {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.mp4")} == {
            str(former): "video a",
            "videos/a.mp4": "video b",
            "videos/c.mp4": "video c",
        }, f"step {at}"
        if not mortal.has_died:
            break
    assert at > 8
