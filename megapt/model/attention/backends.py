"""Finds the attention backend that a configuration names."""

from __future__ import annotations

from megapt.config import ModelConfig, Origins, RunConfig, Section
from megapt.model.attention.backend import Backend
from megapt.registry import Registry, part_settings

BACKENDS = Registry("attention backend", Backend, "megapt.model.attention", "megapt.attention")  # type: ignore[type-abstract]


def find_backend(config: RunConfig, origins: Origins) -> type[Backend]:
    """Return the backend that `training.attention` names.

    Raises:
        ConfigError: for an unknown name, or a user-defined file that defines no backend.
    """
    section, path = config.training.attention, "training.attention"
    part_settings(section, Section, origins, path)  # Backends have no settings.
    return BACKENDS.find(section.name, section.file, origins, path)


def check_dropout(backend: type[Backend], config: ModelConfig, origins: Origins) -> None:
    """Refuse a model with dropout if the backend does not support it.

    Raises:
        ConfigError: names the backends that support dropout.
    """
    if config.dropout and not backend.drops:
        able = " or ".join(f"'{name}'" for name in sorted(BACKENDS) if BACKENDS[name].drops)
        raise origins.error(
            "model.dropout",
            f"{config.dropout}, but attention '{backend.name}' cannot drop weights; set it to 0, "
            f"or training.attention to {able}",
        )
