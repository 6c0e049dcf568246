"""The documented limits of a text2video request, model by model.

Sources: Kling's API reference (limits, capability map, error codes) and CometAPI's page of the same
endpoint (seven aspect ratios). An option that a model is known to ignore is ignored here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batch.sandbox.video.clips import SIZES

DEFAULT_MODEL = "kling-v1"  # as the real one, where `model_name` is missing


class RefusalError(Exception):
    """The request is refused and nothing is created. Carries HTTP status, code and message."""

    def __init__(self, status: int, code: int | str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Model:
    """The options of a model. *pace* is its generation time relative to the others."""

    modes: tuple[str, ...] = ("std", "pro")
    durations: tuple[int, ...] = (5, 10)
    sound_modes: tuple[str, ...] = ()
    pace: float = 1.0


MODELS: dict[str, Model] = {
    "kling-v1": Model(pace=1.3),
    "kling-v1-6": Model(pace=1.3),
    "kling-v2-master": Model(pace=2.0),
    "kling-v2-1-master": Model(pace=2.0),
    "kling-v2-5-turbo": Model(pace=0.7),
    "kling-v2-6": Model(sound_modes=("pro",)),
    "kling-v3": Model(
        modes=("std", "pro", "4k"),
        durations=tuple(range(3, 16)),
        sound_modes=("std", "pro", "4k"),
        pace=1.5,
    ),
}
_IMAGE_ONLY = ("kling-v1-5", "kling-v2-1")
_MODELS_WITHOUT_MODE = ("kling-v2-master", "kling-v2-1-master")
_CAMERA_AXES = frozenset(("horizontal", "vertical", "pan", "tilt", "roll", "zoom"))
_CAMERA_PRESETS = ("down_back", "forward_up", "right_turn_forward", "left_turn_forward")

# In a prompt, each of these causes its refusal without a fault plan.
REFUSING_WORDS: dict[str, tuple[int, str]] = {
    "sandbox:invalid": (1200, "Invalid request parameters"),
    "sandbox:policy": (1300, "the request triggers the platform policy"),
    "sandbox:unsafe": (1301, "the content of the prompt violates the content security policy"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """A valid request."""

    prompt: str
    model: str
    mode: str
    duration_s: int
    aspect_ratio: str
    has_sound: bool
    external_task_id: str | None
    callback_url: str | None


def read_order(body: Any, *, max_prompt_chars: int, max_negative_prompt_chars: int) -> Order:
    """Check a decoded body against the documentation.

    Raises:
        RefusalError: the body is not valid; carries the answer of the real API.
    """
    if not isinstance(body, dict):
        raise RefusalError(400, 1200, "Invalid request parameters: the body must be an object")
    name = _text(body, "model_name", DEFAULT_MODEL)
    model = _model(name)
    mode = _one_of(body, "mode", model.modes, "std")
    if name in _MODELS_WITHOUT_MODE:
        mode = "pro"
    duration = _one_of(body, "duration", tuple(map(str, model.durations)), "5")
    prompt = _prompt(body, max_prompt_chars)
    _length("negative_prompt", _text(body, "negative_prompt", ""), max_negative_prompt_chars)
    sound = _one_of(body, "sound", ("on", "off"), "off")
    if sound == "on" and mode not in model.sound_modes:
        raise _bad_value("sound", f"'on' is not supported by {name} in mode {mode}")
    _check_cfg_scale(body.get("cfg_scale"))
    _check_camera(body.get("camera_control"))
    callback_url = _text(body, "callback_url", "") or None
    if callback_url and not callback_url.startswith(("http://", "https://")):
        raise _bad_value("callback_url", "must be an http(s) URL")
    return Order(
        prompt=prompt,
        model=name,
        mode=mode,
        duration_s=int(duration),
        aspect_ratio=_one_of(body, "aspect_ratio", tuple(SIZES), "16:9"),
        has_sound=sound == "on",
        external_task_id=_text(body, "external_task_id", "") or None,
        callback_url=callback_url,
    )


def _bad_value(name: str, what: str) -> RefusalError:
    return RefusalError(400, 1201, f"{name} is invalid: {what}")


def _text(body: Mapping[str, Any], name: str, default: str) -> str:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise _bad_value(name, "must be a string")
    return value


def _one_of(body: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> str:
    value = _text(body, name, default)
    if value not in choices:
        raise _bad_value(name, f"{value!r} is not one of {', '.join(choices)}")
    return value


def _length(name: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise _bad_value(name, f"length {len(value)} exceeds the limit of {limit}")


def _model(name: str) -> Model:
    if name in _IMAGE_ONLY:
        raise RefusalError(400, 1201, f"model is not supported: {name}")
    model = MODELS.get(name)
    if model is None:
        no_channel = f"no available channel for group default and model {name} (distributor)"
        raise RefusalError(503, "model_not_found", no_channel)
    return model


def _prompt(body: Mapping[str, Any], limit: int) -> str:
    prompt = _text(body, "prompt", "")
    is_multi_shot = body.get("multi_shot") is True
    if not prompt.strip() and not is_multi_shot:
        raise _bad_value("prompt", "must not be empty")
    _length("prompt", prompt, limit)
    if "sandbox:" in prompt:
        for word, (code, message) in REFUSING_WORDS.items():
            if word in prompt:
                raise RefusalError(400, code, message)
    return prompt


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_cfg_scale(value: Any) -> None:
    if value is not None and not (_is_number(value) and 0 <= value <= 1):
        raise _bad_value("cfg_scale", "must be a number from 0 to 1")


def _check_camera(value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _bad_value("camera_control", "must be an object")
    kind, config = value.get("type"), value.get("config")
    checks: dict[str, Callable[[Any], None]] = {"simple": _check_simple_camera}
    checks.update(dict.fromkeys(_CAMERA_PRESETS, _check_preset_camera))
    check = checks.get(kind) if isinstance(kind, str) else None
    if check is None:
        raise _bad_value("camera_control", f"type {kind!r} is unknown")
    check(config)


def _check_preset_camera(config: Any) -> None:
    if config is not None:
        raise _bad_value("camera_control", "config must be empty for a preset type")


def _check_simple_camera(config: Any) -> None:
    if not isinstance(config, dict) or not set(config) <= _CAMERA_AXES:
        raise _bad_value("camera_control", "config is required for type 'simple'")
    if not all(_is_number(value) and -10 <= value <= 10 for value in config.values()):
        raise _bad_value("camera_control", "values must be numbers from -10 to 10")
    if sum(value != 0 for value in config.values()) != 1:
        raise _bad_value("camera_control", "exactly one value must be other than 0")
