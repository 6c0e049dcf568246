"""`notify:` and `output:`: who is told of a run, and what is written beside the videos."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from batch.errors import ManifestError
from batch.manifest.model import Derived, Keep, Manifest
from batch.manifest.reader import load
from batch.manifest.schema import manifest_schema
from batch.target import Target

Read = Callable[[str], Manifest]


class Yaml12(yaml.SafeLoader):
    """A loader to which `on` is a text, as to editors of YAML 1.2."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if "bool" not in tag]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
SECRET = "https://hooks.example/T1/verysecret"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Load a manifest with a job and *text*, which the schema must take, too."""

    def read(text: str) -> Manifest:
        path = tmp_path / "night.yaml"
        path.write_text(f"version: 1\njobs: [{{id: a, prompt: x}}]\n{text}\n", encoding="utf-8")
        manifest = load(path)
        plain = json.loads(json.dumps(yaml.load(path.read_text(), Yaml12)))
        assert list(Draft202012Validator(manifest_schema()).iter_errors(plain)) == []
        return manifest

    return read


@pytest.fixture
def fault(tmp_path: Path) -> Callable[[str], str]:
    """Return the one fault of a manifest with a job and *text* in its third line."""

    def fault(text: str) -> str:
        path = tmp_path / "m.yaml"
        path.write_text(f"version: 1\njobs: [{{id: a, prompt: x}}]\n{text}\n", encoding="utf-8")
        with pytest.raises(ManifestError) as caught:
            load(path)
        (problem,) = caught.value.problems
        assert problem.line == 3
        assert problem.column > 1
        return str(problem)

    return fault


# -- notify ----------------------------------------------------------------------------------


def test_whole_section_is_read(read: Read) -> None:
    notify = read(
        "notify: {on: trouble, command: [./tell.sh, ops], webhook: env:STUDIO_HOOK,"
        " ping: env:HC_URL, timeout: 5s}"
    ).notify
    assert (notify.on, notify.command, notify.timeout_s) == ("trouble", ("./tell.sh", "ops"), 5.0)
    assert notify.webhook.reveal() == "env:STUDIO_HOOK"
    assert notify.pings.url.reveal() == "env:HC_URL"


def test_ping_may_be_one_for_each_end(read: Read) -> None:
    pings = read("notify: {ping: {start: env:A, failure: env:B}}").notify.pings
    assert [url.reveal() for url in pings] == ["env:A", "env:B"]


def test_without_it_nobody_is_told(read: Read) -> None:
    for text in ("", "notify:", "notify: {}", "notify: {webhook: , command: }"):
        notify = read(text).notify
        assert not any((notify.webhook, notify.command, *notify.pings))
        assert notify.on == "news"


def test_url_in_the_manifest_is_warned_of(read: Read) -> None:
    manifest = read(f"notify: {{webhook: '{SECRET}'}}")
    (warning,) = manifest.warnings
    assert "notify.webhook is a secret" in str(warning)
    assert "webhook: env:NAME" in str(warning)
    assert "verysecret" not in f"{warning}{manifest!r}"


@pytest.mark.parametrize("key", ["webhook", "ping"])
@pytest.mark.parametrize(
    "value", ["hooks.example/verysecret", "ftp://verysecret", "'env:'", "env:1a", "'https://a b'"]
)
def test_wrong_address_is_not_shown(fault: Callable[[str], str], key: str, value: str) -> None:
    said = fault(f"notify: {{{key}: {value}}}")
    assert f"notify.{key} is not a valid address" in said
    assert "for example env:STUDIO_HOOK" in said
    assert "verysecret" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{command: ./tell.sh ops}", "notify.command must be a list, but this is a text"),
        ("{command: []}", "notify.command must be a program and its arguments"),
        ("{command: [[a]]}", "notify.command must be a program and its arguments"),
        ("{on: alway}", "notify.on: 'alway' must be one of news, trouble, always"),
        ("{timeout: 0s}", "notify.timeout: it must be longer than 0s"),
        ("{webhok: env:A}", "unknown key 'webhok' in notify (did you mean webhook?)"),
        ("{ping: {begin: env:A}}", "unknown key 'begin' in notify.ping"),
        ("{webhook: [env:A]}", "notify.webhook must be an address, but this is a list"),
        ("[a]", "notify must be a mapping"),
    ],
)
def test_mistake_has_place_and_advice(fault: Callable[[str], str], text: str, said: str) -> None:
    assert said in fault(f"notify: {text}")


# -- output ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "derived"),
    [
        ("", Derived()),
        ("{sidecar: false}", Derived()),
        ("{sidecar: true}", Derived(frozenset({"json"}), index=True)),
        ("{sidecar: json}", Derived(frozenset({"json"}), index=True)),
        ("{sidecar: xmp, index: off}", Derived(frozenset({"xmp"}))),
        ("{sidecar: both}", Derived(frozenset({"json", "xmp"}), index=True)),
        ("{index: true}", Derived(index=True)),
    ],
)
def test_output_says_what_is_written(read: Read, text: str, derived: Derived) -> None:
    assert read(f"output: {text}").derived == derived


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{sidecar: yml}", "output.sidecar: 'yml' must be one of json, xmp, both, true or false"),
        ("{sidecar: [json]}", "output.sidecar must be one value"),
        ("{index: maybe}", "output.index: 'maybe' must be true or false"),
        ("{sidecars: both}", "unknown key 'sidecars' in output (did you mean sidecar?)"),
    ],
)
def test_mistake_in_output_is_a_fault(fault: Callable[[str], str], text: str, said: str) -> None:
    assert said in fault(f"output: {text}")


@pytest.mark.parametrize("below", ["a.json/b", "a.mp4.xmp/b", "a.mp4/b", "A.JSON/b"])
def test_id_below_a_file_of_another_is_refused(tmp_path: Path, below: str) -> None:
    """A sidecar may be turned on later; then both would need the same name."""
    path = tmp_path / "m.yaml"
    jobs = [{"id": "a", "prompt": "x"}, {"id": below, "prompt": "y"}]
    path.write_text(json.dumps({"version": 1, "jobs": jobs}), "utf-8")
    with pytest.raises(ManifestError, match="needs a folder where 'a' has its file"):
        load(path)


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("", Keep()),
        ("output: {sidecar: both}", Keep()),
        ("output: {keep_versions: all}", Keep(math.inf)),
        ("output: {keep_versions: 3, keep_within: 90d}", Keep(3, 90 * 86_400.0)),
        ("output: {keep_within: 12h}", Keep(None, 43_200.0)),
    ],
)
def test_kept_versions_are_read(read: Read, text: str, keep: Keep) -> None:
    assert read(text).keep == keep


@pytest.mark.parametrize("text", ["keep_versions: -1", "keep_versions: 0", "keep_within: soon"])
def test_wrong_number_of_versions_is_a_fault(fault: Callable[[str], str], text: str) -> None:
    assert text.partition(":")[0] in fault(f"output: {{{text}}}")


def test_what_either_rule_names_is_kept() -> None:
    """Without a rule everything is; with one, only what it names."""
    assert Keep().keeps(99, 1e9)
    assert Keep(math.inf).keeps(99, 1e9)
    assert [Keep(2).keeps(number, 0.0) for number in (1, 2, 3)] == [True, True, False]
    assert [Keep(None, 60.0).keeps(1, age_s) for age_s in (59.0, 61.0)] == [True, False]
    assert Keep(1, 60.0).keeps(9, 59.0)


# -- bucket


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("{sidecar: both}", None),
        ("{target: }", None),
        ("{target: s3://studio}", Target("s3://studio")),
        ("{target: s3://studio/loops/}", Target("s3://studio/loops")),
        ("{target: gs://studio/a b, local: keep}", Target("gs://studio/a b")),
        ("{target: az://c/p, local: remove}", Target("az://c/p", removes=True)),
        ("{target: s3://b, verify_every: 12h}", Target("s3://b", verify_every_s=43_200.0)),
    ],
)
def test_output_says_where_videos_go(read: Read, text: str, target: Target | None) -> None:
    assert read(f"output: {text}").target == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "target: ftp://studio/x",
            "output.target: 'ftp://' is not a valid bucket; for example s3:",
        ),
        (
            "target: studio",
            "output.target: 'studio' is not a valid bucket; for example s3://bucket",
        ),
        ("target: s3://", "'s3://' is not a valid bucket"),
        ("target: 's3://a//b'", "'s3://a//b' is not a valid bucket"),
        ("target: s3://a/../b", "'s3://a/../b' is not a valid bucket"),
        ("target: [s3://a]", "output.target must be one value"),
        ("target: s3://a, local: delete", "output.local: 'delete' must be one of keep, remove"),
        ("target: s3://a, verify_every: 0s", "output.verify_every: it must be longer than 0s"),
    ],
)
def test_mistake_in_target_is_a_fault(fault: Callable[[str], str], text: str, said: str) -> None:
    assert said in fault(f"output: {{{text}}}")


@pytest.mark.parametrize("place", ["AKID:verysecret@studio/x", "studio/x?sig=verysecret"])
def test_secret_in_target_is_refused_unseen(fault: Callable[[str], str], place: str) -> None:
    said = fault(f"output: {{target: '{'az'}://{place}'}}")
    assert "must not hold credentials or a query; they come from the environment" in said
    assert "verysecret" not in said


def test_local_without_target_is_warned_of(read: Read) -> None:
    (warning,) = read("output: {local: remove}").warnings
    assert str(warning).endswith("local and verify_every are of no use without output.target")
    assert (warning.line, warning.column) == (3, 10)
