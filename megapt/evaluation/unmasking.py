"""Fills the masks of a text in rounds: what is filled in early is context for what comes later."""

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
            f"{run.folder}: was trained with '{run.objective.name}', which does not predict single "
            f"masked tokens where they stand; runs of mlm, msc, bert and diffusion can"
        )
    run.check_length(ids, "text")
    with torch.no_grad():
        logits = run.model.predict(run.batch([example]), head.owner)
    logits[:, run.tokenizer.vocabulary.reserved] = float("-inf")
    return logits.cpu()


def unmask(run: LoadedRun, ids: Ints, rounds: int | None = None) -> Ints:
    """Return `ids` with every mask replaced, the surest predictions first.

    In each round all masks are predicted and the most probable tokens are kept, as many in every
    round as in any other, or one more: of m masks, ceil(m r / rounds) are filled after round r.
    What is kept stays, as in Nie et al. 2025 (low-confidence remasking, section 2.4); the mask-
    predict of Ghazvininejad et al. 2019 may also take back what it kept in an earlier round.
    Greedy: nothing is drawn, and of equal probabilities the one on the left is kept.

    Args:
        run: of an objective that predicts masked tokens.
        ids: a text with masks, any integer type [n].
        rounds: how often the model is asked; by default once a mask. 1 fills all masks at once.

    Raises:
        ConfigError: as `mask_logits`, or for less than one round.
    """
    if rounds is not None and rounds < 1:
        raise ConfigError(f"{rounds} rounds fill no mask; it should be 1 or more")
    mask = run.tokenizer.vocabulary.mask
    filled: Ints = ids.copy()
    masks = int((ids == mask).sum())
    rounds = min(rounds or masks, masks)
    for asked in range(rounds):
        shares, tokens = torch.softmax(mask_logits(run, filled).double(), dim=-1).max(dim=-1)
        left = masks * (rounds - asked - 1) // rounds
        surest = shares.argsort(descending=True, stable=True)[: len(shares) - left].numpy()
        filled[np.flatnonzero(filled == mask)[surest]] = tokens.numpy()[surest]
    return filled
