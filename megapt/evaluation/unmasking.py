"""Filling of masks in rounds: tokens of earlier rounds are context for later rounds."""

from __future__ import annotations

import numpy as np
import torch

from megapt.data.example import Ints
from megapt.errors import ConfigError
from megapt.evaluation.loading import LoadedRun


def mask_logits(run: LoadedRun, ids: Ints) -> torch.Tensor:
    """Return the logits at every mask of a text, float32 [masks, vocabulary], special ids -inf.

    Raises:
        ConfigError: if the run's objective predicts no masked token, or the text is too long.
    """
    example, head = run.objective.masked(ids), run.objective.masked_token_head
    if example is None or head is None:
        raise ConfigError(
            f"{run.folder}: was trained with '{run.objective.name}', which does not predict masked "
            f"tokens at their positions; runs of mlm, msc, bert and diffusion can"
        )
    run.check_length(ids, "text")
    with torch.no_grad():
        logits = run.model.predict(run.batch([example]), head.owner)
    logits[:, run.tokenizer.vocabulary.reserved] = float("-inf")
    return logits.cpu()


def unmask(run: LoadedRun, ids: Ints, rounds: int | None = None) -> Ints:
    """Return `ids` with every mask replaced, the most probable predictions first.

    Each round predicts all masks that are left and keeps the most probable tokens. The numbers of
    tokens kept per round differ by at most one: of m masks, ceil(m r / rounds) are filled after
    round r. Kept tokens never change, as in Nie et al. 2025 (low-confidence remasking, section
    2.4); the mask-predict of Ghazvininejad et al. 2019 may also mask tokens of an earlier round
    again. The choice is greedy, without random draws; of equal probabilities the leftmost is kept.

    Args:
        run: a run whose objective predicts masked tokens.
        ids: a text with masks, any integer type [n].
        rounds: number of rounds, each one forward pass; by default the number of masks. 1 fills
            all masks at once.

    Raises:
        ConfigError: as for `mask_logits`, or for less than one round.
    """
    if rounds is not None and rounds < 1:
        raise ConfigError(f"{rounds} rounds fill no mask; it should be 1 or more")
    mask = run.tokenizer.vocabulary.mask
    filled: Ints = ids.copy()
    masks = int((ids == mask).sum())
    rounds = min(rounds or masks, masks)
    for finished in range(rounds):
        shares, tokens = torch.softmax(mask_logits(run, filled).double(), dim=-1).max(dim=-1)
        left = masks * (rounds - finished - 1) // rounds
        surest = shares.argsort(descending=True, stable=True)[: len(shares) - left].numpy()
        filled[np.flatnonzero(filled == mask)[surest]] = tokens.numpy()[surest]
    return filled
