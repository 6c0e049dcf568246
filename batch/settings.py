"""Settings by precedence: flag, environment, manifest, default.

`Options` is the one table of what can be chosen for a run: the command's flags, their environment
variables and the keyword arguments of the Python API all come from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict, get_type_hints

from batch.addresses import (
    DEFAULT_BASE_URL,
    check_base_url,
    check_callback_url,
    check_listen,
    check_proxy,
)
from batch.errors import UsageError
from batch.frozen import frozen
from batch.key import (
    ENGINE_VARIABLE,
    KEY_VARIABLE,
    NO_SECRET,
    Secret,
    find_engine,
    find_key,
    read_key,
)
from batch.manifest.findings import meant
from batch.manifest.limits import LIMIT_KEYS, Limits, Rate
from batch.manifest.model import Callback, Manifest
from batch.paths import expand_path, state_folder
from batch.plan import Policy
from batch.plan.select import Selection, read_pattern
from batch.target import Target

SANDBOX_SUFFIX = ".sandbox"  # of the folder whose videos cost nothing


class Option(NamedTuple):
    """How a choice is written on the command line.

    *parse* raises ValueError with advice; without it the option is a switch. A switch that costs
    money has no environment variable: forgotten there, it would go on paying.
    """

    flag: str
    help: str
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    repeats: bool = False
    may_be_empty: bool = True  # of a list
    has_variable: bool = True


def _limit(key: str, metavar: str, more: str = "") -> Option:
    limit = LIMIT_KEYS[key]
    return Option("--" + key.replace("_", "-"), limit.about + more, metavar, limit.parse)


def _costly(flag: str, about: str) -> Option:
    return Option(flag, about, has_variable=False)


_OUTPUT_DIR = (
    "Folder of videos, results and state. Default: outputs/<name of the manifest>, and with"
    f" --sandbox the same with {SANDBOX_SUFFIX} behind it."
)
_BASE_URL = f"Address of the API. Default: {DEFAULT_BASE_URL}."
_PROXY = "Reach the API through this proxy; env for HTTPS_PROXY, which is not used otherwise."
_SANDBOX = "Run against an embedded local server: no key, no network, same HTTP."
_NO_SHARE = "Share rate and slots with no other run of this account on this machine."
_NEW = "Pay for a library that does not exist yet: an output folder without a state."
_FORCE = "Regenerate jobs that are up to date, each once; cut short, it goes on. Costs money."
_NO_MOVE = "Pay for jobs that are known under another id instead of taking their videos over."
_PATTERNS = "a glob over ids, tag:NAME or state:failed. Repeatable; in the variable, one a line."
_SELECT = f"Only these jobs: {_PATTERNS}"
_EXCLUDE = f"Not these jobs: {_PATTERNS}"
_RETRY_FAILED = "Also retry failures that rest: moderation, invalid input. Costs money."
_RESUBMIT = "Submit unconfirmed jobs again. May pay for them a second time."
_CALLBACK_URL = "Where the provider reaches the receiver, for example https://studio.example/kling."
_CALLBACK_LISTEN = "Where to listen for callbacks. They only hasten the next poll."
_PLAN = "Pay only for what this file of `plan --out` names, and at most its price. Exit code 3."
_ENV_FILE = f"A file with {KEY_VARIABLE}=… (and {ENGINE_VARIABLE}=…, for a fleet); the environment goes first."
AnyPath = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """What a caller may choose for a run. None, like silence, leaves it to the manifest."""

    output_dir: Annotated[AnyPath | None, Option("--output-dir", _OUTPUT_DIR, "DIR", expand_path)]
    base_url: Annotated[str | None, Option("--base-url", _BASE_URL, "URL", check_base_url)]
    proxy: Annotated[str | None, Option("--proxy", _PROXY, "URL|env", check_proxy)]
    sandbox: Annotated[bool, Option("--sandbox", _SANDBOX)]
    submit_rate: Annotated[Rate | None, _limit("submit_rate", "RATE")]
    max_in_flight: Annotated[int | None, _limit("max_in_flight", "N")]
    no_share_account: Annotated[bool, Option("--no-share-account", _NO_SHARE)]
    deadline_s: Annotated[float | str | None, _limit("deadline", "DURATION|HH:MM", " Exit code 3.")]
    budget_usd: Annotated[float | None, _limit("budget", "USD", " Exit code 3.")]
    max_plan_cost_usd: Annotated[float | None, _limit("max_plan_cost", "USD", " Exit code 3.")]
    select: Annotated[
        list[str] | tuple[str, ...] | None,
        Option("--select", _SELECT, "PATTERN", read_pattern, repeats=True, may_be_empty=False),
    ]
    exclude: Annotated[
        list[str] | tuple[str, ...] | None,
        Option("--exclude", _EXCLUDE, "PATTERN", read_pattern, repeats=True),
    ]
    new: Annotated[bool, _costly("--new", _NEW)]
    force: Annotated[bool, _costly("--force", _FORCE)]
    retry_failed: Annotated[bool, _costly("--retry-failed", _RETRY_FAILED)]
    resubmit_unconfirmed: Annotated[bool, _costly("--resubmit-unconfirmed", _RESUBMIT)]
    plan: Annotated[
        AnyPath | None, Option("--plan", _PLAN, "FILE", expand_path, has_variable=False)
    ]
    no_move: Annotated[bool, _costly("--no-move", _NO_MOVE)]
    callback_url: Annotated[
        str | None, Option("--callback-url", _CALLBACK_URL, "URL", check_callback_url)
    ]
    callback_listen: Annotated[
        str | None, Option("--callback-listen", _CALLBACK_LISTEN, "HOST:PORT", check_listen)
    ]
    env_file: Annotated[AnyPath | None, Option("--env-file", _ENV_FILE, "FILE", expand_path)]
    # Without a flag: other users of the machine can read the command line.
    api_key: Annotated[str | None, Option("", "The API key.", parse=read_key)]


OPTIONS: dict[str, Option] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Options, include_extras=True).items()
}


class Receiver(NamedTuple):
    """Where callbacks arrive: the public *url* that the provider calls, and HOST:PORT here."""

    url: str
    listen: str


@frozen
class Settings:
    """What a run goes by, with every choice made.

    *target* is the bucket that videos are uploaded to; what the sandbox makes goes nowhere. In the
    user's *state_folder* it is kept which runs this machine has seen; None: nowhere.
    """

    output_dir: Path
    base_url: str
    sandbox: bool
    limits: Limits
    new: bool = False
    plan: Path | None = None
    policy: Policy = field(default_factory=Policy)
    callback: Receiver | None = None
    api_key: Secret = NO_SECRET
    proxy: Secret = NO_SECRET  # its URL may hold a password
    target: Target | None = None
    engine: Secret = NO_SECRET  # likewise: the Postgres of a fleet; empty for this machine alone
    state_folder: Path | None = None


def resolve(
    manifest: Manifest,
    options: Options,
    environ: Mapping[str, str],
    *,
    named: Callable[[str], str] = str,
) -> Settings:
    """Return the settings of a run.

    The key may be missing: a plan needs none, and `batch.key.require_key` asks for it before a run.

    Args:
        manifest: answers for what *options* leave open.
        options: the choices of the command line, its environment, or a caller.
        environ: where the key, the fleet and the user's state folder are looked for; nothing else is.
        named: returns what the caller calls an option, for the messages.

    Raises:
        UsageError: a value cannot be used; the message says which and why.
    """
    given = _checked(options, named)
    fields = {limit.field for limit in LIMIT_KEYS.values()} & given.keys()
    limits = manifest.limits.with_given(**{name: given[name] for name in fields})
    if given.get("no_share_account"):
        limits = limits.with_given(share_account=False)
    if "plan" in given:  # each job at its price, which is that of one attempt
        limits = limits.with_given(max_attempts_per_run=1)
    sandbox = given.get("sandbox", False)
    if sandbox and "base_url" in given:
        raise UsageError(
            f"{named('sandbox')} and {named('base_url')} exclude each other: the sandbox is a server of"
            " its own; leave out one of the two"
        )
    callback = manifest.callback or Callback()
    return Settings(
        output_dir=given.get("output_dir") or _default_dir(manifest, sandbox=sandbox),
        base_url=given.get("base_url") or check_base_url(manifest.base_url or DEFAULT_BASE_URL),
        sandbox=sandbox,
        limits=limits,
        new=given.get("new", False),
        plan=given.get("plan"),
        policy=Policy(
            force=given.get("force", False),
            no_move=given.get("no_move", False),
            retry_failed=given.get("retry_failed", False),
            resubmit_unconfirmed=given.get("resubmit_unconfirmed", False),
            max_attempts=limits.max_attempts,
            give_up_after=limits.give_up_after,
            day_starts=limits.day_starts,
            selection=Selection(given.get("select", ()), given.get("exclude", ())),
        ),
        callback=receiver_of(
            given.get("callback_url") or callback.url,
            given.get("callback_listen") or callback.listen,
            named,
        ),
        api_key=given.get("api_key")
        or find_key(environ, given.get("env_file"), is_needed=not sandbox),
        proxy=_proxy(given.get("proxy", manifest.proxy)),
        engine=NO_SECRET if sandbox else find_engine(environ, given.get("env_file")),
        target=None if sandbox else manifest.target,
        state_folder=None if sandbox else state_folder(environ),
    )


def _checked(options: Options, named: Callable[[str], str]) -> dict[str, Any]:
    """Return what is given, each value read as its text on the command line would be."""
    checked: dict[str, Any] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            hint = meant(name, OPTIONS) or f"the options are {', '.join(OPTIONS)}"
            raise UsageError(f"{name} is not an option; {hint}")
        if value is not None:
            try:
                checked[name] = _read(OPTIONS[name], value)
            except (TypeError, ValueError, UsageError) as error:
                raise UsageError(f"{named(name)}: {error}") from None
    return checked


def _read(option: Option, value: Any) -> Any:
    if option.parse is None:
        if not isinstance(value, bool):
            raise TypeError(f"{value!r} must be True or False")
        return value
    if not option.repeats:
        return option.parse(_text(value, option))
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} must be a list, for example ['a*', 'tag:night']")
    if not value and not option.may_be_empty:
        raise ValueError("an empty list selects no job; leave it out to select all")
    return tuple(option.parse(_text(item, option)) for item in value)


def _text(value: Any, option: Option) -> str:
    """Return *value* as the command line would have it."""
    match value:
        case str():
            return value
        case _ if option.repeats:
            pass
        case os.PathLike() if option.parse is expand_path:
            return str(Path(value))
        case Rate():
            return f"{value.count:.6f}/{value.period_s:.6f}s"
        case float() if option.parse is not expand_path:
            return f"{value:.6f}"
        case int() if option.parse is not expand_path and not isinstance(value, bool):
            return str(value)
    raise TypeError(f"a value of type {type(value).__name__} is not valid")  # its repr may be a key


def _default_dir(manifest: Manifest, *, sandbox: bool) -> Path:
    """Return the output folder that nobody has named. The sandbox's lies beside the real one."""
    folder = Path("outputs") / manifest.name
    if manifest.output_dir is not None:
        folder = manifest.path.parent / manifest.output_dir
    if not sandbox:
        return folder
    has_name = folder.name not in {"", ".."}
    return folder.with_name(folder.name + SANDBOX_SUFFIX) if has_name else folder / "sandbox"


def _proxy(proxy: str | None) -> Secret:
    return Secret("" if proxy is None else check_proxy(proxy))


def receiver_of(
    url: str | None, listen: str | None, named: Callable[[str], str] = str
) -> Receiver | None:
    """Return the receiver that two options make; None without both.

    Raises:
        UsageError: one is missing, or cannot be used.
    """
    if url and listen:
        return Receiver(check_callback_url(url), check_listen(listen))
    if url or listen:
        raise UsageError(
            "callbacks need both an address for the provider"
            f" ({named('callback_url')}) and one to listen on here ({named('callback_listen')})"
        )
    return None
