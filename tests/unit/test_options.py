"""The options of each model: faults if documented as unsupported, warnings if likely ignored."""

from __future__ import annotations

from typing import Any

import pytest

from batch.manifest.models import MODELS, check_options
from batch.manifest.options import OPTIONS, request_body
from batch.manifest.values import number


@pytest.mark.parametrize(
    ("values", "option", "message"),
    [
        ({"model": "kling-v1-6"}, "model", "end of kling-v1-6 for 2026-09-15"),
        ({"model": "kling-v2-1"}, "model", "makes videos from images only"),
        ({"model": "kling-v2.6"}, "model", "unknown model 'kling-v2.6'"),
        ({"model": "kling-v2-5-turbo"}, "model", "in mode pro only"),
        ({"model": "kling-v2-5-turbo", "mode": "std"}, "mode", "in mode pro only"),
        ({"model": "kling-v2-master", "mode": "pro"}, "mode", "has no modes"),
        ({"model": "kling-v3", "mode": "4k"}, "mode", "does not document the mode 4k"),
        ({"cfg_scale": 0.5}, "cfg_scale", "kling-v2-6 does not take cfg_scale"),
        ({"sound": "on"}, "sound", "kling-v2-6 makes sound in mode pro only"),
        ({"model": "kling-v2-5-turbo", "mode": "pro", "sound": "on"}, "sound", "makes no sound"),
        ({"camera_control": {"type": "forward_up"}}, "camera_control", "not known to take"),
        (
            {"model": "kling-v1", "duration": "10", "camera_control": {}},
            "camera_control",
            "not kno",
        ),
        ({"aspect_ratio": "4:3"}, "aspect_ratio", "do not list the aspect ratio 4:3"),
    ],
)
def test_unlikely_option_is_a_warning(values: dict[str, Any], option: str, message: str) -> None:
    remarks = [remark for remark in check_options(values) if remark.option == option]

    assert any(message in remark.message for remark in remarks)
    assert not any(remark.is_fault for remark in remarks)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sound": "off"},
        {"mode": "pro", "sound": "on"},
        {"model": "kling-v3", "cfg_scale": 0.5, "sound": "on", "duration": "15"},
        {"model": "kling-v2-5-turbo", "mode": "pro", "duration": "10"},
    ],
)
def test_supported_options_give_no_remark(values: dict[str, Any]) -> None:
    assert list(check_options(values)) == []


@pytest.mark.parametrize(
    "values",
    [
        {"duration": "3"},
        {"model": "kling-v1", "duration": "7"},
        {"mode": "4k"},
        {"model": "kling-v2-5-turbo", "mode": "4k"},
    ],
)
def test_unsupported_option_is_a_fault(values: dict[str, Any]) -> None:
    assert any(remark.is_fault for remark in check_options(values))


def test_unknown_model_takes_anything_with_a_hint() -> None:
    values = {"model": "kling-v2-5turbo", "duration": "7", "mode": "4k", "sound": "on"}
    (remark,) = check_options(values)

    assert remark.advice == "did you mean kling-v2-5-turbo?"


def test_model_without_modes_gets_no_default_mode() -> None:
    assert "mode" not in request_body({"model": "kling-v2-master"})
    assert request_body({"model": "kling-v2-master", "mode": "pro"})["mode"] == "pro"
    assert request_body({"model": "kling-v9"})["mode"] == "std"


def test_extra_fields_are_merged_into_the_request() -> None:
    body = request_body({"extra": {"watermark_info": {"enabled": False}}})

    assert body["watermark_info"] == {"enabled": False}
    assert "extra" not in body


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("0x1f", 31),
        ("0o17", 15),
        ("0123", 123),
        ("1_0", None),
        ("", None),
        (".", None),
        ("five", None),
        ("1e999", None),
        ("9" * 301, None),
        ("٣", None),
    ],
)
def test_numbers_follow_yaml_1_2(text: str, value: float | None) -> None:
    assert number(text) == value


def test_every_option_has_a_help_text() -> None:
    assert all(option.about.endswith(".") for option in OPTIONS.values())
    assert all(model.seconds for model in MODELS.values())
