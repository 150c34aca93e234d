"""Classification of texts with the class head of a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from megapt.errors import ConfigError
from megapt.evaluation.loading import LoadedRun

_ROWS = 32


def classify(run: LoadedRun, texts: Sequence[str]) -> list[dict[str, float]]:
    """Return the probability of every class for each text, the most likely first.

    A text longer than the run's window is truncated at its end.

    Raises:
        ConfigError: if the run has no class head.
    """
    head = run.objective.class_head
    if head is None:
        raise ConfigError(
            f"{run.folder}: was trained with '{run.objective.name}', which has no class head; "
            f"runs of msc can classify"
        )
    results = []
    for first in range(0, len(texts), _ROWS):
        examples = []
        for text in texts[first : first + _ROWS]:
            ids = run.tokenizer.encode(text)[: run.longest_text]
            example = run.objective.classified(ids)
            assert example is not None  # it has the head
            examples.append(example)
        with torch.no_grad():
            shares = run.model.predict(run.batch(examples), head.owner).softmax(dim=-1)
        for row in shares.tolist():
            ranked = sorted(zip(head.labels, row, strict=True), key=lambda pair: -pair[1])
            results.append(dict(ranked))
    return results
