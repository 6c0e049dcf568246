"""The keys of a manifest, and its JSON Schema for editors.

The reader and `manifest_schema` share the tables here, `limits.LIMIT_KEYS` and `options.OPTIONS`.
An editor applies the schema after YAML has decided on types, and editors differ (YAML 1.1 reads
`16:9` as 969 and `on` as true), so the schema is more lenient than the reader.
"""

from __future__ import annotations

from datetime import time
from typing import Any

from batch.manifest.limits import (
    DEFAULT_LIMITS,
    DURATION_SHAPE,
    LIMIT_KEYS,
    MONEY_SHAPE,
    SWITCH_SHAPE,
)
from batch.manifest.options import OPTIONS, REFUSED_KEYS
from batch.manifest.values import JsonSchema
from batch.prices import PRICE_PATTERN, PRICED_MODES
from batch.target import TARGET_PATTERN

VERSION = 1

ROOT_KEYS: dict[str, str] = {
    "version": "The version of this format: 1.",
    "name": "Names the output folder; default: the file's name.",
    "defaults": "Values that every job inherits; a job's own value wins.",
    "limits": "How fast, how much, how long.",
    "jobs": "The videos to make.",
    "output_dir": "The output folder, relative to the manifest; default: outputs/<name>.",
    "base_url": "The API's address.",
    "proxy": "The URL of a proxy to reach the API through; env for the one of the environment.",
    "callback": "The receiver of the provider's announcements of finished tasks.",
    "prices": "USD prices that override the built-in table.",
    "notify": "Who is told of a run when it has ended.",
    "output": "What is written beside the videos, which former versions are kept, and a bucket.",
}
CALLBACK_KEYS: dict[str, str] = {
    "url": "The public address that the provider calls.",
    "listen": "HOST:PORT on which the receiver listens.",
}
NOTIFY_KEYS: dict[str, str] = {
    "on": "When command and webhook are told: of news, of every exit code but 0, or always.",
    "command": "A program and its arguments, without a shell; the summary is its stdin, as JSON.",
    "webhook": "The summary is posted there as JSON: env:NAME (a variable with the URL), or a URL.",
    "ping": "A monitor that is told of start and end: env:NAME, a URL, or one for each of these.",
    "timeout": "The longest time for all of it.",
}
NOTIFY_ON = ("news", "trouble", "always")
PING_KEYS = ("start", "success", "failure")
OUTPUT_KEYS: dict[str, str] = {
    "sidecar": "What is written beside each video: <id>.json, <id>.mp4.xmp, both or nothing.",
    "index": "Whether index.json lists all videos. Default: as sidecar.",
    "keep_versions": "How many former versions of a job prune --versions keeps; all by default.",
    "keep_within": "It also keeps those that were displaced within this time.",
    "target": "The bucket that videos are uploaded to: s3://bucket/prefix, gs://… or az://….",
    "local": "Whether the local copy of an uploaded video is kept or removed.",
    "verify_every": "How often a run lists the bucket to see that all is still there.",
}
LOCAL = ("keep", "remove")
SIDECARS: dict[str, frozenset[str]] = {
    "json": frozenset({"json"}),
    "xmp": frozenset({"xmp"}),
    "both": frozenset({"json", "xmp"}),
}
JOB_KEYS: dict[str, str] = {
    "id": "Names the job and its file, videos/<id>.mp4. May hold slashes. Default: of the prompt.",
    "prompt": "What the video shows.",
    "negative_prompt": "What it must not show.",
    **{name: option.about for name, option in OPTIONS.items()},
    "tags": "Names to select jobs by: a list, or one text with semicolons.",
    "count": "How many variants to make: ids get -1, -2, …",
    "matrix": "Axes and their values: one job per combination. {axis} stands for the value.",
    "from": "A .csv or .jsonl file of jobs, or a .txt of prompts, relative to the manifest.",
}
# An id or a matrix belongs to one job and cannot be inherited.
DEFAULTS_KEYS: dict[str, str] = {
    name: about for name, about in JOB_KEYS.items() if name not in ("id", "matrix", "from")
}


def manifest_schema() -> JsonSchema:
    """Return the JSON Schema (2020-12) of a manifest, for editors to complete and check."""
    defaults = {name: shape for name, shape in _job_properties().items() if name in DEFAULTS_KEYS}
    shapes: dict[str, JsonSchema] = {
        "version": {"enum": [VERSION, str(VERSION)], "default": VERSION},
        "name": _TEXT,
        "defaults": _object(defaults),
        "limits": _object({name: _limit_shape(name) for name in LIMIT_KEYS}),
        "jobs": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/job"}},
        "output_dir": _TEXT,
        "base_url": {"type": "string", "pattern": "^https?://"},
        "proxy": {"type": "string", "pattern": "^(env|https?://.+)$"},
        "callback": _object(
            {name: {"type": "string", "description": CALLBACK_KEYS[name]} for name in CALLBACK_KEYS}
        ),
        "prices": {"type": "object", "additionalProperties": _PRICES},
        "notify": _or_null(_object(_described(NOTIFY_KEYS, _NOTIFY))),
        "output": _or_null(_object(_described(OUTPUT_KEYS, _OUTPUT))),
    }
    properties = {name: {"description": ROOT_KEYS[name], **shapes[name]} for name in ROOT_KEYS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kling-batch manifest",
        **_object(properties),
        "required": ["jobs"],
        "patternProperties": {"^x-": {"description": "Ignored: a place for anchors."}},
        "$defs": {"job": _job_shape()},
    }


# Editors see some texts as the numbers and booleans that YAML makes of them.
_TEXT: JsonSchema = {"type": ["string", "number", "boolean"]}
_PRICE: JsonSchema = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": PRICE_PATTERN}]
}
_PRICES: JsonSchema = {
    "anyOf": [
        _PRICE,
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                mode: {"anyOf": [_PRICE, {"type": "object", "additionalProperties": MONEY_SHAPE}]}
                for mode in PRICED_MODES
            },
        },
    ]
}


_ADDRESS: JsonSchema = {"type": "string", "pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|https?://.+)$"}
_NOTIFY: dict[str, JsonSchema] = {
    "on": {"enum": list(NOTIFY_ON), "default": NOTIFY_ON[0]},
    "command": {"type": "array", "minItems": 1, "items": _TEXT},
    "webhook": _ADDRESS,
    "ping": {
        "anyOf": [
            _ADDRESS,
            {
                "type": "object",
                "additionalProperties": False,
                "properties": dict.fromkeys(PING_KEYS, _ADDRESS),
            },
        ]
    },
    "timeout": {**DURATION_SHAPE, "default": "10s"},
}
_OUTPUT: dict[str, JsonSchema] = {
    "sidecar": {"anyOf": [{"enum": list(SIDECARS)}, SWITCH_SHAPE], "default": False},
    "index": SWITCH_SHAPE,
    "keep_versions": {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {"type": "string", "pattern": "^(all|[0-9]+)$"},
        ]
    },
    "keep_within": DURATION_SHAPE,
    "target": {"type": "string", "pattern": TARGET_PATTERN},
    "local": {"enum": list(LOCAL), "default": LOCAL[0]},
    "verify_every": {**DURATION_SHAPE, "default": "7d"},
}


def _described(keys: dict[str, str], shapes: dict[str, JsonSchema]) -> dict[str, JsonSchema]:
    return {name: _or_null({"description": about, **shapes[name]}) for name, about in keys.items()}


def _object(properties: dict[str, JsonSchema]) -> JsonSchema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _limit_shape(name: str) -> JsonSchema:
    key = LIMIT_KEYS[name]
    default = getattr(DEFAULT_LIMITS, key.field)
    shape = {"description": key.about, **key.shape}
    if default is not None:
        shape["default"] = default if isinstance(default, int) else _written(default)
    return _or_null(shape)


def _written(default: Any) -> str:
    if isinstance(default, time):
        return f"{default:%H:%M}"
    return f"{default:g}s" if isinstance(default, float) else str(default)


def _job_properties() -> dict[str, JsonSchema]:
    shapes: dict[str, JsonSchema] = {
        "id": _TEXT,
        "prompt": _TEXT,
        "negative_prompt": _TEXT,
        **{name: _or_placeholder(name, option.shape) for name, option in OPTIONS.items()},
        "tags": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
        "count": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]},
        "matrix": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "array",
                "minItems": 1,
                "items": {"type": ["string", "number", "boolean", "null"]},
            },
        },
        "from": {
            "type": "string",
            "pattern": r"\.([cC][sS][vV]|[jJ][sS][oO][nN][lL]|[tT][xX][tT])$",
        },
    }
    properties = {
        name: _or_null({"description": about, **shapes[name]}) for name, about in JOB_KEYS.items()
    }
    properties["model_name"] = {**properties["model"], "description": "The same as model."}
    return properties


def _or_placeholder(name: str, shape: JsonSchema) -> JsonSchema:
    """Return *shape* or `"{axis}"`, for an option that a matrix can fill."""
    if name in ("camera_control", "extra"):
        return dict(shape)
    outside: JsonSchema = {"default": shape["default"]} if "default" in shape else {}
    inside = {key: value for key, value in shape.items() if key != "default"}
    return {**outside, "anyOf": [inside, {"type": "string", "pattern": r"\{[^{}]+\}"}]}


def _or_null(shape: JsonSchema) -> JsonSchema:
    """Return *shape* or null; the description stays outside, where editors look."""
    outside: JsonSchema = {
        key: shape.pop(key) for key in ("description", "default") if key in shape
    }
    return {**outside, "anyOf": [shape, {"type": "null"}]}


def _job_shape() -> JsonSchema:
    return {
        **_object(_job_properties()),
        "not": {"required": ["model", "model_name"]},
        "$comment": f"Refused in a job: {', '.join(REFUSED_KEYS)}.",
    }
