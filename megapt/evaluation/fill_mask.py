"""Fills the masks of a text with what a bidirectional trunk finds most likely."""

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
    """The best tokens of every mask."""

    candidates: list[list[tuple[str, float]]]
    """For each mask, (piece, probability), the best first."""
    text: str
    """The text with every mask replaced by its best token."""


def encode_masked(tokenizer: Tokenizer, text: str) -> Ints:
    """Return the ids of a text in which each [MASK] is one mask token, int64 [n].

    A mask stands for a piece with its leading space, as pieces do, so the space before it goes.
    Encoded is the text with a tab in each mask's place: where a tab is always a piece of its own
    it keeps the text around it apart. Tabs of the text itself are told apart by their order.
    A tokenizer without such a piece encodes the texts between the masks one by one.
    """
    parts = [part.removesuffix(" ") for part in text.split(MASK)[:-1]] + [text.split(MASK)[-1]]
    is_mask: list[bool] = []
    for number, part in enumerate(parts):
        is_mask += [False] * part.count("\t") + [True] * (number < len(parts) - 1)
    ids = tokenizer.encode("\t".join(parts)).astype(np.int64)
    mask = tokenizer.vocabulary.mask
    tab = tokenizer.surfaces.index(b"\t") if b"\t" in tokenizer.surfaces else -1
    lone = len(parts) > 1 and not parts[0] and tokenizer.surfaces[int(ids[0])] == b" "
    if lone and not parts[1][:1].isalpha():
        # The space that begins every text belongs to the mask's own piece; before a letter the
        # mask is a part of a word, as in Chinese, and the space stays.
        ids = ids[1:]
    tabs = np.flatnonzero(ids == tab)
    if len(tabs) != len(is_mask):
        encoded = [tokenizer.encode(part).astype(np.int64) for part in parts]
        return np.concatenate([encoded[0], *(np.append(mask, part) for part in encoded[1:])])
    ids[tabs[np.array(is_mask, dtype=np.bool_)]] = mask
    return ids


def fill_mask(run: LoadedRun, text: str, top: int = 5, rounds: int | None = None) -> Filling:
    """Return the most likely tokens at each [MASK] of `text`, all predicted at once, and the text.

    Args:
        run: of an objective that predicts masked tokens.
        text: with masks.
        top: candidates for each mask.
        rounds: in which the text's masks are filled; see `unmask`.

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
