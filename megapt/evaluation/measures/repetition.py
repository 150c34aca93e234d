"""Repetition in the text that a model writes.

seq-rep-4 of Welleck et al. 2020 (arXiv 1908.04319), equation 9: the share of 4-grams, in tokens,
that occurred before in the same text; the mean over the texts.
"""

from __future__ import annotations

from megapt.config import Section
from megapt.config.section import PositiveInt
from megapt.evaluation.loading import LoadedRun
from megapt.evaluation.measures.base import Measure, MeasureContext, MeasureError
from megapt.evaluation.samples import sample_texts, write_samples
from megapt.evaluation.scores import Score
from megapt.objectives import Objective


class RepetitionConfig(Section):
    """Settings of `repetition`."""

    num_samples: PositiveInt = 4
    """Largest number of validation texts that are continued or rewritten."""
    max_new_tokens: PositiveInt = 64
    """Longest generated text, in tokens."""


class Repetition(Measure):
    """Share of repeated 4-grams.

    With as many texts as the report has samples, it scores these samples.
    """

    name = "repetition"
    title = "Repetition"
    about = "the share of 4-grams that occurred before in the same text, in texts of the model"
    better = "lower"
    untrained = False
    Config = RepetitionConfig

    def __init__(self, config: RepetitionConfig, context: MeasureContext) -> None:
        super().__init__(config, context)
        self.texts = sample_texts(context.corpus, config.num_samples, context.window)
        if not self.texts:
            raise MeasureError("needs a validation document")
        self.items = len(self.texts)
        self.material = (
            f"{self.items:,} validation texts, at most {config.max_new_tokens:,} tokens each"
        )

    def problem(self, objective: Objective) -> str:
        """Return a problem for objectives that do not generate text."""
        return "" if objective.generates else f"'{objective.name}' does not generate text"

    def score(self, run: LoadedRun) -> Score:
        """Return the mean; an item is a text, None if fewer than four tokens were written."""
        settings = {"max_tokens": self.config.max_new_tokens, "seed": self.context.seed}
        rates = self.on_main(
            lambda: [sample.repetition for sample in write_samples(run, self.texts, **settings)]
        )
        counted = [rate for rate in rates if rate is not None]
        if not counted:
            raise MeasureError("no text of four tokens was written")
        return Score(value=sum(counted) / len(counted), items=rates)
