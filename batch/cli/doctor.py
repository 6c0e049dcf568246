"""What `doctor` checks: the manifest, the key, the provider, the folders and the system.

Each check says what was seen and, where something is wrong, what to do. Nothing is submitted; the one
request is a GET for a task that does not exist.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from batch import __version__
from batch.addresses import DEFAULT_BASE_URL
from batch.cli.bucket import check_bucket
from batch.cli.bug_report import hide
from batch.cli.checks import Check, fail, ok, warn
from batch.cli.commands.flags import unknown_variables
from batch.cli.folders import all_folders, meet_engine
from batch.cli.words import counted
from batch.clock import SystemClock
from batch.errors import BatchError, ManifestError, StateError, UsageError
from batch.job import FailureKind
from batch.key import KEY_VARIABLE, NO_SECRET, Secret, find_engine, find_key, key_fault
from batch.manifest.model import Manifest
from batch.manifest.reader import load
from batch.output.folder import LOOKED_UP, OLDER, ORIGIN, SANDBOX, is_older, peek
from batch.output.probe import try_places
from batch.output.stores import holder, open_to_read
from batch.paths import expand_path, state_folder
from batch.provider.answers import AccountRefused, NotFound, QueryAnswer, Unavailable
from batch.provider.client import Client
from batch.run.resources import fit, raise_descriptor_limit, start_pool
from batch.settings import Options, Settings, resolve

MANIFEST = "manifest"
ANSWERS_WITHIN_S = 10.0
CLOCK_MAY_DIFFER_S = 60.0
SHORTEST_KEY = 20  # characters; those of CometAPI have some 50
VIDEO_BYTES = 25_000_000  # ten seconds in 1080p; most take less
ROOM_BYTES = 1_000_000_000
SHOWN = 10


def examine(path: Path | None, flags: Mapping[str, Any]) -> list[Check]:
    """Return every check; *path* is the manifest, if one is meant."""
    raise_descriptor_limit()
    checks = [ok("version", f"kling-batch {__version__}, Python {platform.python_version()}")]
    manifest = None
    if path is not None:
        manifest, check = _manifest(path)
        checks.append(check)
    is_known = manifest is not None or path is None
    # A key in a faulty env file is a check of its own, below.
    options = cast("Options", {**flags, "env_file": None})
    blank = Manifest(Path("outputs"), "outputs", jobs=())
    settings = resolve(manifest or blank, options, os.environ, named=_flag_of)
    env_file = None if flags["env_file"] is None else expand_path(flags["env_file"])
    checks += _engine(settings, env_file)
    key, check = _key(settings, env_file)
    checks.append(check)
    checks += _system(settings)
    if not is_known:
        checks.append(warn("provider", "not asked", "mend the manifest: it may name the base URL"))
    elif not settings.sandbox:
        checks += _provider(settings, key)
        checks += check_bucket(settings)
    if manifest is not None or flags["output_dir"] is not None:
        checks += _folder(settings.output_dir, manifest, is_sandbox=settings.sandbox)
    elif is_known:
        checks += _folders()
    return checks


def _engine(settings: Settings, env_file: Path | None) -> Iterator[Check]:
    """Look at the Postgres of a fleet, where there is one."""
    try:
        engine = NO_SECRET if settings.sandbox else find_engine(os.environ, env_file)
        meet_engine(engine)
        if engine:
            from batch.output.postgres.connection import connect, place_of  # noqa: PLC0415 - rarely

            connect(engine).close()
            yield ok("engine", f"{place_of(engine)} answers")
    except BatchError as error:
        yield fail("engine", str(error))


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


# -- the manifest and the key ------------------------------------------------------------------


def _manifest(path: Path) -> tuple[Manifest | None, Check]:
    try:
        manifest = load(path)
    except ManifestError as error:
        told = [str(problem) for problem in error.problems[:SHOWN]]
        return None, fail(MANIFEST, "\n".join(told), f"kling-batch plan {path} lists all faults")
    found = f"{path} has {counted(len(manifest.jobs), 'job')}"
    if manifest.warnings:
        about = f"{found} and {counted(len(manifest.warnings), 'warning')}"
        return manifest, warn(MANIFEST, about, f"kling-batch plan {path} lists them")
    return manifest, ok(MANIFEST, found)


def _key(settings: Settings, env_file: Path | None) -> tuple[Secret, Check]:
    """Return the key, which may be empty, and what can be said of it without showing it."""
    if settings.sandbox:
        return NO_SECRET, ok("key", "not needed in the sandbox")
    try:
        key = find_key(os.environ, env_file, is_needed=True)
    except UsageError as error:
        return NO_SECRET, fail("key", str(error), "a real run needs a key that can be read")
    hide(key.reveal())
    if not key:
        return key, fail(
            "key",
            f"{KEY_VARIABLE} is not set",
            "set it in the environment, or name a file that holds it with --env-file",
        )
    is_from_environment = bool(os.environ.get(KEY_VARIABLE, "").strip())
    source = "the environment" if is_from_environment else str(env_file)
    if fault := key_fault(key.reveal()):
        return NO_SECRET, fail("key", f"{KEY_VARIABLE} in {source}: {fault}")
    if settings.base_url == DEFAULT_BASE_URL and not _is_like_a_key(key.reveal()):
        return key, warn(
            "key",
            f"{KEY_VARIABLE} in {source} does not look like a key of CometAPI",
            "those begin with sk- and are longer than 20 characters; copy it again",
        )
    return key, ok("key", f"{KEY_VARIABLE} in {source}")


def _is_like_a_key(key: str) -> bool:
    return key.startswith("sk-") and len(key) >= SHORTEST_KEY


# -- the provider and the clock ------------------------------------------------------------------


def _provider(settings: Settings, key: Secret) -> list[Check]:
    try:
        return asyncio.run(_ask(settings, key))
    except OSError as error:  # no descriptor for the loop itself
        return [fail("provider", f"not asked: {error.strerror or error}")]


async def _ask(settings: Settings, key: Secret) -> list[Check]:
    """Ask the provider for a task that does not exist."""
    clock = SystemClock()
    client = Client(
        base_url=settings.base_url,
        key=key.reveal(),
        request_timeout_s=min(settings.limits.request_timeout_s, ANSWERS_WITHIN_S),
        stall_timeout_s=ANSWERS_WITHIN_S,
        clock=clock,
        proxy=settings.proxy.reveal() or None,
    )
    async with client:
        begun = clock.monotonic()
        answer = await client.query(f"kb-doctor-{secrets.token_hex(8)}")
        took_ms = math.ceil((clock.monotonic() - begun) * 1000)
        answered_at = clock.now()
    checks = [_answer(answer, settings.base_url, took_ms, has_key=bool(key))]
    if client.server_time is not None:
        checks.append(_clock(client.server_time - answered_at))
    return checks


def _answer(answer: QueryAnswer, base_url: str, took_ms: int, *, has_key: bool) -> Check:
    name = "provider"
    match answer:
        case Unavailable(failure=failure) if failure.kind is FailureKind.NETWORK:
            advice = "check the network, the base URL and, behind a proxy, --proxy"
            return fail(name, f"{base_url} cannot be reached: {failure.message}", advice)
        case Unavailable(failure=failure, is_page=True):
            said = f"{base_url} answers, but not as the API does: {failure.message}"
            return fail(name, said, "check the base URL")
        case Unavailable(failure=failure):
            return warn(name, f"{base_url} answers: {failure.message}", "try again in some minutes")
        case AccountRefused(failure=failure) if has_key:
            said = f"{base_url} refuses the key: {failure.message}"
            return fail(name, said, "check the key, and whether it belongs to this base URL")
        case NotFound() if has_key:
            return ok(name, f"{base_url} answers in {took_ms} ms and takes the key")
        case _:
            return ok(name, f"{base_url} answers in {took_ms} ms")


def _clock(ahead_s: float) -> Check:
    off = abs(ahead_s)
    if off <= CLOCK_MAY_DIFFER_S:
        return ok("clock", "agrees with the provider's to the minute")
    words = f"{'behind' if ahead_s > 0 else 'ahead of'} the provider's by {off / 60:,.0f} min"
    advice = "set it (NTP): days left, deadlines and the names of versions follow it"
    return warn("clock", words, advice)


# -- the output folders ------------------------------------------------------------------------


def _folders() -> Iterator[Check]:
    found = all_folders()
    for root in found:
        try:
            with open_to_read(root) as database:
                is_sandbox = database.fact(ORIGIN) == SANDBOX
        except StateError as error:
            yield fail("state", str(error))
            continue
        yield from _folder(root, None, is_sandbox=is_sandbox)
    if not found:
        yield from _room(Path("outputs"), None)


def _folder(root: Path, manifest: Manifest | None, *, is_sandbox: bool) -> Iterator[Check]:
    yield _state(root, is_sandbox=is_sandbox)
    held_by = holder(root)
    if held_by is None:
        yield ok("lock", f"no run holds {root}")
    else:
        yield warn("lock", f"a run holds {root}: {held_by}", "wait for its end, or stop it")
    yield from _room(root, manifest)


def _state(root: Path, *, is_sandbox: bool) -> Check:
    try:
        with peek(root, sandbox=is_sandbox) as database:
            if database is None:
                return ok("state", f"{root} is a new library: nothing was ever made there")
            if is_older(database, state_folder(os.environ)):
                return warn("state", f"{root}: {OLDER}", f"run: {LOOKED_UP}")
            return ok("state", f"{root} knows {counted(len(database.known()), 'job')}")
    except BatchError as error:
        return fail("state", str(error))


def _room(root: Path, manifest: Manifest | None) -> Iterator[Check]:
    """Try out the places of the videos, and look at the space for them."""
    jobs = () if manifest is None else manifest.jobs
    try:
        try_places(root, {job.video_path for job in jobs} or {"videos/any.mp4"})
        yield ok("folder", f"{root} can be written")
    except StateError as error:
        yield fail("folder", str(error).removesuffix(". Nothing was sent"))
    missing = sum(not (root / job.video_path).exists() for job in jobs)
    wanted = max(ROOM_BYTES, missing * VIDEO_BYTES)
    free = min(_free_bytes(place) for place in (root, root / "videos"))
    about = f"{free / 1e9:,.1f} GB free for {root}"
    if free >= wanted:
        yield ok("disk", about)
    else:
        makes = f"{counted(missing, 'video')} to make" if missing else "a night"
        yield warn("disk", about, f"make room: {makes} may take {wanted / 1e9:,.1f} GB")


def _free_bytes(place: Path) -> int:
    """Return the space where *place* is, or will be."""
    place = place.absolute()
    return shutil.disk_usage(next(at for at in (place, *place.parents) if at.exists())).free


# -- the system --------------------------------------------------------------------------------


def _system(settings: Settings) -> Iterator[Check]:
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        yield ok("file names", "in UTF-8")
    else:
        advice = "set LC_ALL=C.UTF-8, also in cron; ids with other letters are refused"
        yield warn("file names", f"in {encoding}", advice)
    yield _descriptors(settings)
    yield _threads(settings.limits.max_downloads + 2)
    for unknown in unknown_variables(os.environ):
        yield warn("variables", unknown, "correct its name, or unset it")


def _descriptors(settings: Settings) -> Check:
    try:
        granted = fit(settings.limits, is_embedded=settings.sandbox).limits
    except StateError as error:
        return fail("descriptors", str(error).replace("nothing was sent. ", ""))
    enough = (
        f"for {counted(granted.max_in_flight, 'task')} in flight and"
        f" {counted(granted.max_downloads, 'download')} at once"
    )
    if granted == settings.limits:
        return ok("descriptors", f"enough {enough}")
    return warn("descriptors", f"only {enough}", "raise ulimit -n to have the limits as set")


def _threads(wanted: int) -> Check:
    before = threading.active_count()
    try:
        with start_pool(wanted, "doctor"):
            got = threading.active_count() - before
    except StateError as error:
        return fail("threads", str(error).replace("nothing was sent. ", ""))
    if got >= wanted:
        return ok("threads", f"{wanted} of {wanted} start")
    advice = "raise ulimit -u or -v, or the limits of the container"
    return warn("threads", f"only {got} of {wanted} start", advice)
