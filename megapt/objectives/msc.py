"""Masked sequence classification: predict the masked tokens and the class of a text.

L = L_mlm + w * -log P(class | x with M masked), with the class predicted at [CLS]
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from megapt.data import CounterRng, Example, HeadSpec, Targets, Window
from megapt.data.example import Floats
from megapt.objectives.base import Context, Cost, ObjectiveError
from megapt.objectives.mlm import Mlm
from megapt.objectives.noise import MaskingConfig


class MscConfig(MaskingConfig):
    """Settings of the mask, as in `mlm`, and of the classification."""

    class_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight w of the classification loss."""
    unlabeled: bool = False
    """Accept documents without a class; they contribute only their masked tokens."""
    balance_classes: bool = False
    """Weigh class c of K by N / (K N_c), where N_c of the N labeled documents have class c."""


def _too_few_classes(context: Context) -> str:
    if not context.labels:
        return "the corpus has no classes; build it with --label-field"
    return (
        f"the corpus has only one class, '{context.labels[0]}', so every answer would be the "
        f"same; build it with a --label-field of at least two classes, or use 'mlm'"
    )


def _coverage(context: Context) -> str:
    unlabeled, documents = context.unlabeled, context.documents
    if not documents:
        return f"{unlabeled} training documents have none"
    share = (documents - unlabeled) / documents
    return f"{unlabeled} of {documents} training documents have none (coverage {share:.1%})"


def _class_weights(context: Context) -> Floats:
    """Return the weight of each class, float64 [classes]; the mean over the documents is 1."""
    counts = dict(zip(context.labels, context.label_counts, strict=False))
    if len(counts) < len(context.labels):
        raise ObjectiveError(
            "objective.balance_classes weighs classes by their numbers of training documents, "
            "which this corpus does not record; set it to false"
        )
    empty = [label for label, count in counts.items() if not count]
    if empty:
        raise ObjectiveError(
            f"objective.balance_classes weighs a class by 1 / its number of training documents, "
            f"but '{empty[0]}' has 0 of {sum(counts.values())} "
            f"({', '.join(f'{k}: {n}' for k, n in counts.items())}); "
            f"set it to false or remove the class from the corpus"
        )
    numbers = np.array(list(counts.values()))
    weights: Floats = numbers.sum() / (len(numbers) * numbers)
    return weights


class Msc(Mlm):
    """The example of `mlm`; [CLS] also predicts the class of the document."""

    name = "msc"
    Config = MscConfig

    def __init__(self, config: MscConfig, context: Context) -> None:
        super().__init__(config, context)
        if len(context.labels) < 2:
            raise ObjectiveError(
                f"'msc' predicts the class of each document, but {_too_few_classes(context)}"
            )
        if context.unlabeled and not config.unlabeled:
            raise ObjectiveError(
                f"'msc' predicts the class of each document, but {_coverage(context)}; "
                f"label them or set objective.unlabeled=true"
            )
        self._weights = _class_weights(context) if config.balance_classes else None

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """A token head, and a sequence head over the classes of the corpus."""
        labels = tuple(self.context.labels)
        weight = self.config.class_loss_weight
        return (
            HeadSpec("tokens", "token"),
            HeadSpec("class", "sequence", len(labels), weight, labels, role="class"),
        )

    def cost(self, tokens: int) -> Cost:
        """Return the cost of `mlm`, plus one target for the class."""
        masked = super().cost(tokens)
        return Cost(masked.positions, masked.targets + 1)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example per piece."""
        examples = super().examples(window, rng)
        for i, piece in enumerate(window.pieces):
            if piece.label >= 0:
                weights = None if self._weights is None else self._weights[[piece.label]]
                target = Targets(np.zeros(1, dtype=np.int64), np.array([piece.label]), weights)
                examples[i] = replace(examples[i], targets={**examples[i].targets, "class": target})
        return examples
