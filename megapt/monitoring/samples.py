"""Texts that the model generates during training."""

from __future__ import annotations

from typing import Any

from megapt.config import RunConfig
from megapt.data import AnyCorpus, BatchMaker, CounterRng
from megapt.data.example import Ints
from megapt.distributed.engine import Engine
from megapt.distributed.ranks import Ranks
from megapt.model.decoding import write
from megapt.objectives import Objective

_TEXT_TOKENS = 48


class SampleWriter:
    """Continues the beginnings of validation windows, or rewrites them if they are masked.

    Args:
        config: configuration of the run.
        objective: objective of the run; one that cannot generate gives no samples.
        corpus: corpus whose tokenizer decodes the texts.
        validation: reads the validation windows.
        ranks: ranks of the job.
        in_rows: whether the attention backend needs batches in rows.
    """

    def __init__(
        self,
        config: RunConfig,
        objective: Objective,
        corpus: AnyCorpus,
        validation: BatchMaker,
        ranks: Ranks,
        *,
        in_rows: bool,
    ) -> None:
        self._config = config
        self._objective = objective
        self._corpus = corpus
        self._validation = validation
        self._ranks = ranks
        self._in_rows = in_rows

    def write(self, engine: Engine) -> list[str]:
        """Return the texts, each after its prompt unless it is rewritten. All ranks call together.

        Raises:
            MegaptError: on every rank, if one of them cannot read the windows.
        """
        count, head = self._config.monitor.num_samples, self._objective.next_token_head
        if not count or head is None or not self._objective.generates:
            return []
        with self._ranks.shared_errors():
            prompts = [self._prompt(number) for number in range(count)]
        examples = [self._objective.prompt(prompt) for prompt in prompts]
        module: Any = engine.module
        was_training = module.training
        module.eval()
        texts = write(
            module,
            [example for example in examples if example is not None],
            self._corpus.vocabulary,
            self._ranks.device,
            head=head.owner,
            positions=self._config.data.window,
            max_tokens=self._config.monitor.max_new_tokens,
            seed=self._config.seed,
            agreed=lambda tokens: self._ranks.gather(tokens)[0],
            in_rows=self._in_rows,
        )
        module.train(was_training)
        decode = self._corpus.tokenizer().decode
        if self._objective.rewrites:
            return [decode(text) for text in texts]
        return [f"{decode(a)} ‖ {decode(b)}" for a, b in zip(prompts, texts, strict=True)]

    def _prompt(self, number: int) -> Ints:
        """Return the beginning of a validation window, masked if the objective rewrites."""
        (window,) = self._validation.windows([number])
        text = window.pieces[0].tokens[:_TEXT_TOKENS]
        return self._objective.sample_prompt(text, CounterRng(0, "samples", number))
