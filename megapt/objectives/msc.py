"""Masked sequence classification: predict the masked tokens and the class of the text, at once.

L = L_mlm + w * -log P(class | x with M masked), the class read at [CLS]
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
    """The mask of `mlm`, and the classification beside it."""

    class_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight w of the classification loss."""
    unlabeled: bool = False
    """Accept documents without a class: they contribute their masked tokens alone."""
    balance_classes: bool = False
    """Weigh class c by N / (K N_c), with K classes and N_c of N labeled documents of this one."""


def _lack(context: Context) -> str:
    if not context.labels:
        return "the corpus has no classes; build it with --label-field"
    return (
        f"the corpus has one class alone, '{context.labels[0]}', and every answer would be the "
        f"same; build it with a --label-field of two classes or more, or choose 'mlm'"
    )


def _coverage(context: Context) -> str:
    bare, documents = context.unlabeled, context.documents
    if not documents:
        return f"{bare} training documents have none"
    share = (documents - bare) / documents
    return f"{bare} of {documents} training documents have none (coverage {share:.1%})"


def _balanced(context: Context) -> Floats:
    """Return the weight of each class, float64 [classes]: their mean over the documents is 1."""
    counts = dict(zip(context.labels, context.label_counts, strict=False))
    if len(counts) < len(context.labels):
        raise ObjectiveError(
            "objective.balance_classes weighs classes by their training documents, whose numbers "
            "this corpus does not tell; set it to false"
        )
    empty = [label for label, count in counts.items() if not count]
    if empty:
        raise ObjectiveError(
            f"objective.balance_classes weighs a class by 1 / its training documents, but "
            f"'{empty[0]}' has 0 of {sum(counts.values())} "
            f"({', '.join(f'{k}: {n}' for k, n in counts.items())}); "
            f"set it to false or leave the class out of the corpus"
        )
    numbers = np.array(list(counts.values()))
    weights: Floats = numbers.sum() / (len(numbers) * numbers)
    return weights


class Msc(Mlm):
    """The example of `mlm`, whose [CLS] also predicts the class of the document."""

    name = "msc"
    Config = MscConfig

    def __init__(self, config: MscConfig, context: Context) -> None:
        super().__init__(config, context)
        if len(context.labels) < 2:
            raise ObjectiveError(f"'msc' predicts the class of each document, but {_lack(context)}")
        if context.unlabeled and not config.unlabeled:
            raise ObjectiveError(
                f"'msc' predicts the class of each document, but {_coverage(context)}; "
                f"label them or set objective.unlabeled=true"
            )
        self._weights = _balanced(context) if config.balance_classes else None

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """A token head, and a sequence head over the corpus's classes."""
        labels = tuple(self.context.labels)
        weight = self.config.class_loss_weight
        return (
            HeadSpec("tokens", "token"),
            HeadSpec("class", "sequence", len(labels), weight, labels, role="class"),
        )

    def cost(self, tokens: int) -> Cost:
        """Return that of `mlm`, and the class."""
        masked = super().cost(tokens)
        return Cost(masked.positions, masked.targets + 1)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one example a piece."""
        examples = super().examples(window, rng)
        for i, piece in enumerate(window.pieces):
            if piece.label >= 0:
                weights = None if self._weights is None else self._weights[[piece.label]]
                anchor = Targets(np.zeros(1, dtype=np.int64), np.array([piece.label]), weights)
                examples[i] = replace(examples[i], targets={**examples[i].targets, "class": anchor})
        return examples
