"""The section `deepspeed`: DeepSpeed settings for which megapt has no key.

DeepSpeed ignores unknown top-level keys, and some of its keys would override settings on which a
run relies. Here every key is either known and passed through, or refused with its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from megapt.config import Origins
from megapt.config.errors import nearest
from megapt.distributed.deepspeed_keys import (
    OWNED,
    PACKAGES,
    PASSED,
    REFUSED,
    SECTIONS,
    TYPES,
    VALUES,
)
from megapt.distributed.start import import_deepspeed


def _inner_keys(section: str) -> list[str]:
    """Return the keys that DeepSpeed knows in a section; none if DeepSpeed checks them itself."""
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.swap_tensor.aio_config import AIO_DEFAULT_DICT
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    models = {
        "bf16": DeepSpeedBF16Config,
        "fp16": DeepSpeedFP16Config,
        "zero_optimization": DeepSpeedZeroConfig,
    }
    if section in models:
        fields = models[section].model_fields
        return [*fields, *(field.alias for field in fields.values() if field.alias)]
    if section == "data_types":
        return ["grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules"]
    return list(AIO_DEFAULT_DICT) if section == "aio" else []


def _items(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every key, each section before its keys."""
    for key, value in section.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _items(value, f"{prefix}{key}.")


def _key_problem(path: str) -> str:
    if path in OWNED:
        return f"set by {OWNED[path]}"
    if path in REFUSED:
        return REFUSED[path]
    section, _, key = path.partition(".")
    if not key:
        known = [*PASSED, *OWNED, *REFUSED]
        return "" if path in PASSED else f"unknown key; {nearest(path, known)}"
    inner = _inner_keys(section)
    if inner and "." not in key and key not in inner:
        return f"unknown key; {nearest(key, inner)}"
    return ""


def _one_of(value: Any, choices: tuple[str | bool, ...]) -> str:
    listed = ", ".join(str(choice).lower() for choice in choices)
    return "" if value in choices else f"should be one of {listed}, not {value!r}"


def _value_problem(path: str, value: Any) -> str:
    """Return why DeepSpeed would fail on the value of a key that it knows, or ""."""
    if path in VALUES:
        return _one_of(value, VALUES[path])
    if path in SECTIONS and not isinstance(value, Mapping):
        return f"should be a section, not {value!r}"
    package = PACKAGES.get(path)
    if package and value.get("enabled") and find_spec(package) is None:
        return f"needs the Python package {package}"
    return ""


def _check_accumulation(settings: Mapping[str, Any], origins: Origins) -> None:
    """Refuse a gradient accumulation type for which DeepSpeed has no optimizer."""
    wanted = settings.get("data_types", {}).get("grad_accum_dtype")
    if wanted is None:
        return
    problem = _one_of(wanted, TYPES)
    if not problem and not (settings["bf16"]["enabled"] or settings["fp16"]["enabled"]):
        problem = "" if wanted == "fp32" else "gradients of fp32 are accumulated in fp32"
    elif not problem and settings["zero_optimization"]["stage"] < 2:
        problem = "needs parallel.zero_stage 2"
    if problem:
        raise origins.error("deepspeed.data_types.grad_accum_dtype", problem)


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merged(old, value)
        result[key] = value
    return result


def _check_values(section: Mapping[str, Any], settings: dict[str, Any], origins: Origins) -> None:
    """Let DeepSpeed validate the configuration, and raise its errors as configuration errors."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))  # inside its section
        path = next((path for path, _ in _items(section) if path.endswith(key)), key)
        raise origins.error(f"deepspeed.{path}", first["msg"]) from None
    except (AssertionError, ValueError, TypeError, DeepSpeedConfigError) as error:
        raise origins.error("deepspeed", str(error)) from None


def passed_through(
    section: Mapping[str, Any], settings: dict[str, Any], origins: Origins
) -> dict[str, Any]:
    """Return DeepSpeed's configuration merged with the section `deepspeed`.

    Args:
        section: the run's section `deepspeed`.
        settings: the settings of megapt.
        origins: origins of the run's configuration.

    Raises:
        ConfigError: for a key that megapt sets itself, that is incompatible with megapt, or that
            DeepSpeed does not know, and for a value that DeepSpeed does not accept.
    """
    import_deepspeed()
    items = dict(_items(section))
    for path, value in items.items():
        if problem := _key_problem(path) or _value_problem(path, value):
            raise origins.error(f"deepspeed.{path}", problem)
    for name in ("offload_optimizer", "offload_param"):
        path = f"zero_optimization.{name}"
        if path in items and name not in settings["zero_optimization"]:
            raise origins.error(f"deepspeed.{path}", f"set parallel.{name} first")
    merged = _merged(settings, section)
    _check_accumulation(merged, origins)
    if section:
        _check_values(section, merged, origins)
    return merged
