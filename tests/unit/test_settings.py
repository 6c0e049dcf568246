"""Settings: precedence, what is refused at entry, and the one table of options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch.addresses import DEFAULT_BASE_URL, ENDPOINT, check_base_url
from batch.cli.commands.flags import unknown_variables
from batch.errors import UsageError
from batch.manifest.limits import Rate
from batch.manifest.model import Manifest
from batch.manifest.reader import load
from batch.provider.wire import SUBMIT_PATH
from batch.settings import Options, resolve

HOST = "https://api.example"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    path = tmp_path / "night.yaml"
    path.write_text(
        "version: 1\nlimits: {max_in_flight: 7, max_attempts: 2}\njobs: [{id: a, prompt: b}]\n"
    )
    return load(path)


def test_options_beat_manifest_beats_default(manifest: Manifest) -> None:
    settings = resolve(manifest, {"submit_rate": Rate(2, 1.0), "force": True}, {})

    assert settings.limits.submit_rate == Rate(2, 1.0)
    assert settings.limits.max_in_flight == 7
    assert settings.limits.max_downloads == 4
    assert (settings.policy.force, settings.policy.max_attempts) == (True, 2)
    assert settings.output_dir == Path("outputs/night")


def test_none_leaves_the_choice_to_the_manifest(manifest: Manifest) -> None:
    settings = resolve(manifest, {"max_in_flight": None, "base_url": None}, {})

    assert settings.limits.max_in_flight == 7
    assert settings.base_url == DEFAULT_BASE_URL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("select", "a*"),
        ("select", [True]),
        ("max_in_flight", 0),
        ("max_in_flight", 2.5),
        ("max_in_flight", True),
        ("budget_usd", -1),
        ("budget_usd", float("nan")),
        ("deadline_s", float("inf")),
        ("deadline_s", 0),
        ("submit_rate", 60),
        ("submit_rate", Rate(0, 1.0)),
        ("select", []),
        ("select", [5]),
        ("select", ["state:faild"]),
        ("exclude", "a*"),
        ("output_dir", 5),
        ("output_dir", ""),
        ("output_dir", "~nobody-here/x"),
        ("env_file", "a\r"),
        ("base_url", ""),
        ("base_url", "http://api.example"),
        ("base_url", 5),
        ("proxy", "proxy.example:3128"),
        ("callback_url", "studio.example"),
        ("callback_listen", "8090"),
        ("api_key", ""),
        ("api_key", "sk 0"),
        ("force", "no"),
        ("budget", 5),
    ],
)
def test_unusable_option_is_refused_by_name(manifest: Manifest, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name}\b"):
        resolve(manifest, {name: value}, {"COMETAPI_KEY": "sk-other"})  # type: ignore[misc]


def test_message_has_the_name_that_the_caller_knows(manifest: Manifest) -> None:
    flags = {"base_url": "--base-url", "sandbox": "--sandbox"}
    with pytest.raises(UsageError, match="^--base-url: the base URL 'x' must begin"):
        resolve(manifest, {"base_url": "x"}, {}, named=flags.__getitem__)
    both: Options = {"base_url": HOST, "sandbox": True}
    with pytest.raises(UsageError, match="^--sandbox and --base-url exclude each other"):
        resolve(manifest, both, {}, named=flags.__getitem__)
    with pytest.raises(UsageError, match="^sandbox and base_url exclude each other"):
        resolve(manifest, both, {})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://api.example/\r", HOST),
        (" https://api.example \n", HOST),
        ("https://api.example//", HOST),
        ("https://gateway.example/relay/", "https://gateway.example/relay"),
        ("https://gateway.example/relay/v1", "https://gateway.example/relay/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_base_url_loses_blanks_and_slash(given: str, wanted: str) -> None:
    assert check_base_url(given) == wanted


@pytest.mark.parametrize(
    "path",
    [
        *("/v1", "/kling", "/kling/", "/kling/v1", "/v1/videos", "/videos/text2video"),
        *("/kling/v1/videos/text2video", "/kling/v1/videos/text2video/", "/kling/v1/videos/x/123"),
    ],
)
def test_endpoint_in_base_url_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=rf"; use {HOST}$"):
        check_base_url(HOST + path)
    if path.startswith("/kling/v1"):
        with pytest.raises(UsageError, match=rf"; use {HOST}/relay$"):
            check_base_url(f"{HOST}/relay{path}")


@pytest.mark.parametrize(
    "given", ["", "api.example", "https://api\r.example", "https://a b.example"]
)
def test_invalid_base_url_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="base URL"):
        check_base_url(given)


def test_mistyped_key_is_not_shown(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match=r"^api_key: a value of type bytes is not valid$"):
        resolve(manifest, {"api_key": b"sk-0123456789"}, {})  # type: ignore[typeddict-item]


def test_endpoint_is_the_one_that_is_called() -> None:
    assert ENDPOINT == SUBMIT_PATH


def test_unknown_variable_is_warned_of() -> None:
    environ = {
        "KLING_BATCH_SELECT": "a",
        "KLING_BATCH_PROGRESS": "never",
        "KLING_BATCH_FORCE": "1",
        "KLING_BATCH_BUGDET": "5",
        "HOME": "/",
    }
    about_budget, about_force = unknown_variables(environ)

    assert about_budget.endswith("; did you mean KLING_BATCH_BUDGET?")
    assert about_force == "the environment variable KLING_BATCH_FORCE is unknown and has no effect"


@pytest.mark.parametrize(
    ("in_manifest", "given", "wanted"),
    [
        (None, None, ""),
        ("env", None, "env"),
        ("env", "http://me:secret@proxy.example:3128", "http://me:secret@proxy.example:3128"),
    ],
)
def test_proxy_is_used_only_on_request(
    manifest: Manifest, in_manifest: str | None, given: str | None, wanted: str
) -> None:
    """And its password shows nowhere."""
    settings = resolve(replace(manifest, proxy=in_manifest), {"proxy": given}, {})
    assert settings.proxy.reveal() == wanted
    assert "secret" not in repr(settings)


def test_invalid_proxy_is_refused_without_its_password(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="not a valid address") as caught:
        resolve(manifest, {"proxy": "proxy.example:secret"}, {})
    assert "secret" not in str(caught.value)
