"""What `adopt` and `forget` share: the folder is held, and the provider of the attempt can be asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from batch.addresses import DEFAULT_BASE_URL
from batch.attempt import Account, Attempt
from batch.cli.bug_report import hide
from batch.cli.commands.flags import with_options
from batch.cli.completing import complete_folder, complete_job
from batch.cli.folders import held_folder, meet_engine
from batch.clock import Clock, SystemClock
from batch.frozen import frozen
from batch.key import find_engine
from batch.library.settle import adopt, check_account, forget, unconfirmed
from batch.manifest.model import Manifest
from batch.output.folder import ORIGIN, SANDBOX
from batch.output.store import Store
from batch.paths import expand_path
from batch.provider.protocol import VideoApi
from batch.settings import Options, Settings, resolve

Command = TypeVar("Command", bound=Callable[..., Any])
PROVIDER_OPTIONS = ("base_url", "proxy", "env_file")


@frozen
class Case:
    """An attempt in doubt, in a folder that is ours for the moment."""

    database: Store
    attempt: Attempt
    settings: Settings
    can_ask: bool

    def _client(self, clock: Clock) -> AbstractAsyncContextManager[tuple[VideoApi, Account]]:
        from batch.run.resources import fit  # noqa: PLC0415 - `--help` needs no network
        from batch.run.wiring import open_client  # noqa: PLC0415

        granted = fit(self.settings.limits, is_embedded=self.settings.sandbox)
        return open_client(self.settings, granted, clock)

    async def adopt(self, task_id: str) -> Attempt:
        """Return the attempt with its task, once the provider has shown it."""
        async with self._client(SystemClock()) as (api, account):
            return await adopt(self.database, self.attempt, task_id, api=api, account=account)

    async def forget(self) -> Attempt:
        """Return the attempt without a task; where there is a key, the provider is asked before."""
        clock = SystemClock()
        if not self.can_ask:
            return await forget(self.database, self.attempt, api=None, now=clock.now())
        async with self._client(clock) as (api, account):
            check_account(self.attempt, account)
            return await forget(self.database, self.attempt, api=api, now=clock.now())


def job_arguments(command: Command) -> Command:
    """Give *command* its OUTPUT_DIR and JOB arguments."""
    job = click.argument("job", shell_complete=complete_job)(command)
    folder = click.Path(path_type=Path)
    return click.argument("output_dir", type=folder, shell_complete=complete_folder)(job)


def with_provider(command: Command) -> Command:
    """Give *command* the options that say how the provider is reached."""
    return with_options(command, PROVIDER_OPTIONS)


@contextmanager
def settling(
    output_dir: Path, job: str, flags: Mapping[str, Any], *, needs_key: bool = True
) -> Iterator[Case]:
    """Hold the folder, and find the attempt in doubt.

    Raises:
        LockedError: a run holds the folder.
        UsageError: there is no such folder, job or attempt, or an option cannot be used.
        StateError: the state cannot be used.
    """
    env_file = flags["env_file"]
    meet_engine(find_engine(os.environ, None if env_file is None else expand_path(env_file)))
    with held_folder(output_dir) as folder:
        is_sandbox = folder.database.fact(ORIGIN) == SANDBOX
        attempt = unconfirmed(folder.database, job)
        settings = _settings(output_dir, attempt, flags, is_sandbox=is_sandbox)
        can_ask = needs_key or is_sandbox or bool(settings.api_key)
        yield Case(folder.database, attempt, settings, can_ask)


def _settings(
    output_dir: Path, attempt: Attempt, flags: Mapping[str, Any], *, is_sandbox: bool
) -> Settings:
    from batch.run.wiring import SANDBOX_NAME  # noqa: PLC0415 - as above

    base_url = attempt.account.base_url
    given: dict[str, Any] = {name: flags[name] for name in PROVIDER_OPTIONS}
    given["base_url"] = given["base_url"] or (DEFAULT_BASE_URL if is_sandbox else base_url)
    given |= {"output_dir": output_dir, "sandbox": base_url == SANDBOX_NAME}
    manifest = Manifest(output_dir, output_dir.name, jobs=())  # none is needed
    settings = resolve(manifest, cast("Options", given), os.environ)
    hide(settings.api_key.reveal())
    return settings
