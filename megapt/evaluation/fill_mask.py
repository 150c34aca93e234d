"""Filling of the masks of a text with the most likely tokens of a bidirectional trunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data_prep.tokenizers import Tokenizer
from megapt.data.example import Ints
from megapt.errors import ConfigError
from megapt.evaluation.loading import LoadedRun
from megapt.evaluation.unmasking import mask_logits, unmask

MASK = "[MASK]"


@dataclass(frozen=True)
class Filling:
    """The most likely tokens of every mask."""

    candidates: list[list[tuple[str, float]]]
    """For each mask, (piece, probability), the most likely first."""
    text: str
    """The text with every mask filled; see `unmask`."""


def encode_masked(tokenizer: Tokenizer, text: str) -> Ints:
    """Return the ids of a text in which each [MASK] is one mask token, int64 [n].

    A mask replaces a piece with its leading space, so the space before the mask is removed. The
    text is encoded with a tab in place of each mask: a tab that is always a separate piece keeps
    the texts before and after it apart. The order of the tabs distinguishes masks from tabs of
    the text. If the tokenizer has no such piece, the texts between the masks are encoded
    separately.
    """
    parts = [part.removesuffix(" ") for part in text.split(MASK)[:-1]] + [text.split(MASK)[-1]]
    is_mask: list[bool] = []
    for number, part in enumerate(parts):
        is_mask += [False] * part.count("\t") + [True] * (number < len(parts) - 1)
    ids = tokenizer.encode("\t".join(parts)).astype(np.int64)
    mask = tokenizer.vocabulary.mask
    tab = tokenizer.surfaces.index(b"\t") if b"\t" in tokenizer.surfaces else -1
    starts_with_mask = len(parts) > 1 and not parts[0] and tokenizer.surfaces[int(ids[0])] == b" "
    if starts_with_mask and not parts[1][:1].isalpha():
        # The space that begins every text is part of the mask's piece. Before a letter the mask
        # is a part of a word, as in Chinese, and the space stays.
        ids = ids[1:]
    tabs = np.flatnonzero(ids == tab)
    if len(tabs) != len(is_mask):
        encoded = [tokenizer.encode(part).astype(np.int64) for part in parts]
        return np.concatenate([encoded[0], *(np.append(mask, part) for part in encoded[1:])])
    ids[tabs[np.array(is_mask, dtype=np.bool_)]] = mask
    return ids


def fill_mask(run: LoadedRun, text: str, top: int = 5, rounds: int | None = None) -> Filling:
    """Return the most likely tokens of each [MASK] of `text`, and the text with all masks filled.

    The candidates of all masks are predicted at once.

    Args:
        run: a run whose objective predicts masked tokens.
        text: a text with masks.
        top: number of candidates for each mask.
        rounds: number of rounds in which the text's masks are filled; see `unmask`.

    Raises:
        ConfigError: as `unmask`, or if the text has no mask.
    """
    ids = encode_masked(run.tokenizer, text)
    logits = mask_logits(run, ids)
    if not len(logits):
        raise ConfigError(f"the text holds no {MASK}")
    ordinary = len(run.tokenizer.vocabulary.ordinary)
    best = torch.softmax(logits, dim=-1).topk(min(top, ordinary))
    candidates = [
        [
            (run.tokenizer.piece(token), probability)
            for token, probability in zip(row, shares, strict=True)
        ]
        for row, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return Filling(candidates, run.tokenizer.decode(unmask(run, ids, rounds)))
