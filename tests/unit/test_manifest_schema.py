"""The JSON Schema accepts and refuses the same as the reader; durations and rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from batch.manifest.limits import DEFAULT_LIMITS, LIMIT_KEYS, Rate, parse_duration, parse_rate
from batch.manifest.schema import manifest_schema

REPOSITORY = Path(__file__).parents[2]


class Yaml12(yaml.SafeLoader):
    """A loader of YAML 1.2: no numbers in base 60, `on` is a text."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if "int" not in tag and "bool" not in tag]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = manifest_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(json.loads(json.dumps(schema)))


def job(**options: Any) -> dict[str, Any]:
    return {"version": 1, "jobs": [{"id": "a", "prompt": "x", **options}]}


@pytest.mark.parametrize("loader", [yaml.SafeLoader, Yaml12])
@pytest.mark.parametrize("name", ["demo", "example"])
def test_repository_manifests_match_the_schema(
    validator: Draft202012Validator, name: str, loader: type
) -> None:
    """With YAML 1.1 and YAML 1.2."""
    data = yaml.load((REPOSITORY / f"jobs/{name}.yaml").read_text(), loader)

    assert [error.message for error in validator.iter_errors(json.loads(json.dumps(data)))] == []


@pytest.mark.parametrize(
    "options",
    [
        {"aspect_ratio": "16:9"},
        {"aspect_ratio": 969},
        {"sound": True},
        {"sound": "on"},
        {"duration": 5},
        {"duration": "10"},
        {"duration": "{d}", "matrix": {"d": [5, 10]}},
        {"prompt": False},
        {"prompt": 1000.0},
        {"tags": "a; b"},
        {"mode": None},
        {"model_name": "kling-v3"},
        {"camera_control": {"type": "simple", "config": {"zoom": 5, "pan": 0}}},
        {"camera_control": {"type": "down_back"}},
        {"camera_control": {"type": "down_back", "config": None}},
        {"extra": {"anything": [1]}},
    ],
)
def test_valid_manifest_matches_the_schema(
    validator: Draft202012Validator, options: dict[str, Any]
) -> None:
    assert [error.message for error in validator.iter_errors(job(**options))] == []


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"jobs": []},
        {"jobs": [{"from": "rows.tsv"}]},
        {**job(), "version": 2},
        {**job(), "limts": {}},
        {**job(), "limits": {"submit_rate": "fast"}},
        {**job(), "limits": {"deadline": "soon"}},
        job(promt="x"),
        job(mode="fast"),
        job(duration=2),
        job(aspect_ratio="21:9"),
        job(cfg_scale=2),
        job(sound="loud"),
        job(external_task_id="x"),
        job(callback_url="x"),
        job(model="a", model_name="b"),
        job(camera_control={"type": "simple"}),
        job(camera_control={"type": "simple", "config": {}}),
        job(camera_control={"type": "simple", "config": {"zoom": 0}}),
        job(camera_control={"type": "simple", "config": {"zoom": 1, "pan": 1}}),
        job(camera_control={"type": "simple", "config": {"zoom": 11}}),
        job(camera_control={"type": "down_back", "config": {"zoom": 1}}),
    ],
)
def test_invalid_manifest_does_not_match_the_schema(
    validator: Draft202012Validator, manifest: dict[str, Any]
) -> None:
    assert not validator.is_valid(manifest)


@pytest.mark.parametrize(
    "entry", [{"prompt": "x"}, {"from": "a.csv"}, {"from": "a.JSONL"}, {"from": "~/a.txt"}]
)
def test_entry_without_id_matches_the_schema(
    validator: Draft202012Validator, entry: dict[str, Any]
) -> None:
    assert validator.is_valid({"version": 1, "jobs": [entry]})


def test_every_key_has_a_description() -> None:
    schema = manifest_schema()
    limits = schema["properties"]["limits"]["properties"]
    sections = [
        schema["properties"],
        limits,
        schema["$defs"]["job"]["properties"],
        schema["properties"]["defaults"]["properties"],
        schema["properties"]["callback"]["properties"],
    ]

    assert all(shape["description"] for section in sections for shape in section.values())
    for name, key in LIMIT_KEYS.items():
        assert ("default" in limits[name]) is (getattr(DEFAULT_LIMITS, key.field) is not None)


def test_written_defaults_read_as_the_defaults() -> None:
    """A default that the schema shows can be copied into a manifest."""
    limits = manifest_schema()["properties"]["limits"]["properties"]
    for name, key in LIMIT_KEYS.items():
        if "default" in limits[name]:
            assert key.parse(str(limits[name]["default"])) == getattr(DEFAULT_LIMITS, key.field)


def test_schema_is_built_anew_each_time() -> None:
    """Building it changes none of its definitions."""
    first = json.dumps(manifest_schema())

    assert json.dumps(manifest_schema()) == first


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("30m", 1800),
        ("5h", 18000),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5", 1.5),
        ("0", 0),
        ("2 min", 120),
        ("1d", 86400),
        ("1h 5s", 3605),
        ("10sec", 10),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "5x", "-5s", "5 s s", "nan", "inf", "1e3", "99999d", "٣s"]
)
def test_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not a valid duration; for example|longer than ten years"
    ):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/min", Rate(60, 60)),
        ("2/s", Rate(2, 1)),
        ("100/h", Rate(100, 3600)),
        ("0.5 / s", Rate(0.5, 1)),
        ("5/10s", Rate(5, 10)),
    ],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "60", "0/s", "5/0s", "-1/s", "fast", "1/week", "1/s/s", "inf/s"]
)
def test_invalid_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid rate|must be greater than 0"):
        parse_rate(text)
