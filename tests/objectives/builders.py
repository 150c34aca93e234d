"""Objectives as users get them: by name, with the settings of their preset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from megapt.config import ObjectiveSection, Origins
from megapt.data import CounterRng, Example, Vocabulary, Window
from megapt.objectives import Context, Objective, build_objective
from tests.windows import VOCABULARY

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "objective"
LABELS = ("sea", "field")


def preset(name: str) -> dict[str, Any]:
    """The settings in configs/objective/`name`.yaml, members of a mixture included."""
    settings: dict[str, Any] = yaml.safe_load((PRESETS / f"{name}.yaml").read_text("utf-8"))
    if "members" in settings:
        members = settings["members"].items()
        settings["members"] = {n: preset(m) if isinstance(m, str) else m for n, m in members}
    return settings


def build(
    name: str,
    vocabulary: Vocabulary = VOCABULARY,
    labels: Sequence[str] = LABELS,
    unlabeled_documents: int = 0,
    window: int | None = None,
    **settings: Any,
) -> Objective:
    """The objective of configs/objective/`name`.yaml, `settings` changed."""
    section = ObjectiveSection(**{**preset(name), **settings})
    window = window or (110 if name == "ul2" else 300)  # for which the few sentinels suffice
    context = Context(vocabulary, window, labels, unlabeled_documents)
    return build_objective(section, context, Origins())


def examples_of(objective: Objective, window: Window, *key: int | str) -> list[Example]:
    """The examples of a window under the draws of `key`."""
    return objective.examples(window, CounterRng(*key))
