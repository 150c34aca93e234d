"""Fill in the middle (Bavarian et al. 2022): a causal model that also fills in gaps.

L = -sum_t log P(z_t | z_1 ... z_{t-1}),  z = [PRE] prefix [SUF] suffix [MID] middle [EOS]
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from megapt.data import CounterRng, Example, Targets, Window, make_example
from megapt.data.example import Ints, concatenate
from megapt.objectives.arlm import Arlm, ArlmConfig
from megapt.objectives.base import Context, Cost, ObjectiveError
from megapt.objectives.masking import Share
from megapt.objectives.ragged import Texts


class FimConfig(ArlmConfig):
    """How many texts are rearranged, and how. All defaults except `cut` are the paper's."""

    fim_rate: Share = 0.5
    """Probability that a piece is rearranged; otherwise its example is that of `arlm`."""
    spm_rate: Share = 0.5
    """Probability that the suffix of a rearranged piece comes before its prefix."""
    cut: Literal["token", "word"] = "word"
    """Where a text may be cut: before any token, or before a word."""


class Fim(Arlm):
    """[PRE] prefix [SUF] suffix [MID] middle [EOS]; each position predicts the next token.

    With the suffix first: [PRE] [SUF] suffix [MID] prefix middle [EOS]. The middle always ends
    with [EOS], even in a piece that does not end its document.

    Raises:
        ObjectiveError: if the tokenizer lacks [PRE], [SUF] or [MID].
    """

    name = "fim"
    Config = FimConfig

    def __init__(self, config: FimConfig, context: Context) -> None:
        super().__init__(config, context)
        ids = self.vocabulary.infilling
        missing = [f"[{name}]" for name in ("PRE", "SUF", "MID") if name not in ids]
        if missing:
            raise ObjectiveError(
                f"the tokenizer has no piece {', '.join(missing)}; "
                "`megapt-prep tokenizer --from` adds them"
            )
        self._pre, self._suf, self._mid = ids["PRE"], ids["SUF"], ids["MID"]

    def cost(self, tokens: int) -> Cost:
        """Return n + 1 positions and targets, plus 2 of each for a rearranged text."""
        expected = tokens + 1 + 2 * self.config.fim_rate
        return Cost(expected, expected)

    def _cuts(self, texts: Texts, rng: CounterRng) -> Ints:
        """Draw two cuts in each text, from 0 to n, sorted, int64 [texts, 2]."""
        places = np.arange(len(texts.tokens))
        if self.config.cut == "word":
            places = np.flatnonzero(texts.word_starts)
        first = np.searchsorted(places, texts.firsts)
        count = np.diff(first, append=len(places))
        u = rng.uniform(2 * len(count)).reshape(-1, 2)
        drawn = first[:, None] + (u * (count[:, None] + 1)).astype(np.int64)
        # The place after the last place of a text is the start of the next text, which is its end.
        cuts: Ints = np.append(places, len(texts.tokens))[drawn] - texts.firsts[:, None]
        cuts.sort(axis=1)
        return cuts

    def _rearranged(self, tokens: Ints, start: int, stop: int, suffix_first: bool) -> Ints:
        """Return `tokens` rearranged, with tokens[start:stop] as the middle."""
        prefix, middle, suffix = tokens[:start], tokens[start:stop], tokens[stop:]
        if suffix_first:
            return concatenate(self._pre, self._suf, suffix, self._mid, prefix, middle)
        return concatenate(self._pre, prefix, self._suf, suffix, self._mid, middle)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return one causal example per piece, rearranged or that of `arlm`."""
        if not window.pieces:
            return []
        shares = [[self.config.fim_rate], [self.config.spm_rate]]
        n = len(window.pieces)
        rearranged, suffix_first = (rng.uniform(2 * n).reshape(2, n) < shares).tolist()
        cuts = self._cuts(Texts.of(window.pieces), rng).tolist()
        examples = []
        for number, piece in enumerate(window.pieces):
            if not rearranged[number]:
                alone = Window(window.epoch, window.index, (piece,))
                examples += super().examples(alone, rng)
                continue
            start, stop = cuts[number]
            inputs = self._rearranged(piece.tokens, start, stop, suffix_first[number])
            labels = concatenate(inputs[1:], self.vocabulary.eos)
            targets = {"tokens": Targets(np.arange(len(labels)), labels)}
            examples.append(make_example(inputs, self.attention, targets, document=piece.document))
        return examples

    def prompt(self, tokens: Ints) -> Example:
        """Return [BOS] and the prompt; for a prompt with a [MASK], the example that fills it in.

        That example is [PRE] prefix [SUF] suffix [MID], with the text before and after the [MASK].

        Raises:
            ObjectiveError: if the prompt has several [MASK]s.
        """
        holes = np.flatnonzero(tokens == self.vocabulary.mask).tolist()
        if not holes:
            return super().prompt(tokens)
        if len(holes) > 1:
            raise ObjectiveError(f"the prompt has {len(holes)} [MASK]s; `fim` fills in one")
        [hole] = holes
        around = np.delete(tokens, hole)
        return make_example(self._rearranged(around, hole, hole, False), self.attention, {})
