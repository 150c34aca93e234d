"""Masks in texts: how they are read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.tokenizers import Tokenizer
from megapt.data import Corpus
from megapt.errors import ConfigError
from megapt.evaluation import LoadedRun, fill_mask
from megapt.evaluation.fill_mask import MASK, encode_masked

Overfitted = Callable[[str], LoadedRun]


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> Tokenizer:
    return corpus.tokenizer()


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.piece(token) for token in encode_masked(tokenizer, text).tolist()]


def split_at_masks(tokenizer: Tokenizer, text: str) -> list[str]:
    """The texts between the masks, read back from the ids."""
    ids = encode_masked(tokenizer, text)
    cuts = np.flatnonzero(ids == tokenizer.vocabulary.mask)
    return [
        tokenizer.decode(part[part != tokenizer.vocabulary.mask]) for part in np.split(ids, cuts)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "The [MASK] ship and every sail.",
        "The old ship [MASK]",
        "[MASK]",
        "[MASK] [MASK] ship",
        "The[MASK] ship",
        "渔船在[MASK]看见灯塔。",
        "[MASK]渔船在港口[MASK]",
        "one\ttab, [MASK] and\tmore\t[MASK]\t",
        "\t[MASK]\t",
        "line\n[MASK]\nline",
        "no mask at all\t",
        "",
    ],
)
def test_every_mask_is_one_token_and_the_rest_is_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = encode_masked(tokenizer, text)
    mask = tokenizer.vocabulary.mask
    assert (ids == mask).sum() == text.count(MASK)
    between = [part.removesuffix(" ") for part in text.split(MASK)]
    between[-1] = text.split(MASK)[-1]
    assert [part.strip() for part in split_at_masks(tokenizer, text)] == [
        part.strip() for part in between
    ]
    assert set(ids.tolist()) & set(tokenizer.vocabulary.reserved) <= {mask}


def test_a_mask_stands_for_a_piece_of_the_text_as_it_was_trained(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    """Any English word of one piece, masked in the text, is masked in the tokens."""
    tried = 0
    for document in range(60):
        ids = corpus.train.piece(document).tokens
        found = [tokenizer.piece(token) for token in ids.tolist()]
        words = [place for place, piece in enumerate(found) if piece.startswith("▁")]
        text = tokenizer.decode(ids)
        if not text.isascii() or len(text.split(" ")) != len(words):
            continue
        for number, place in enumerate(words):
            stop = words[number + 1] if number + 1 < len(words) else len(ids)
            if stop - place > 1:
                continue  # A word of several pieces, or one with a full stop.
            parts = text.split(" ")
            parts[number] = MASK
            expected = ids.copy()
            expected[place] = tokenizer.vocabulary.mask
            assert encode_masked(tokenizer, " ".join(parts)).tolist() == expected.tolist(), parts
            tried += 1
    assert tried > 100


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4))
def test_any_text_with_masks_can_be_read(tokenizer: Tokenizer, parts: list[str]) -> None:
    text = MASK.join(parts)
    ids = encode_masked(tokenizer, text)
    assert (ids == tokenizer.vocabulary.mask).sum() == text.count(MASK)


def test_every_mask_has_its_own_candidates(overfitted: Overfitted) -> None:
    filling = fill_mask(overfitted("mlm"), "The [MASK] ship and [MASK] sail.", top=4)
    assert [len(candidates) for candidates in filling.candidates] == [4, 4]
    assert MASK not in filling.text


def test_no_special_token_is_a_candidate(overfitted: Overfitted) -> None:
    run = overfitted("mlm")
    vocabulary = run.tokenizer.vocabulary
    ordinary = len(vocabulary.ordinary)
    [candidates] = fill_mask(run, "The [MASK] ship", top=ordinary).candidates
    special = {run.tokenizer.piece(token) for token in vocabulary.reserved}
    assert not special & {piece for piece, _ in candidates}
    assert sum(share for _, share in candidates) == pytest.approx(1, abs=1e-4)


def test_more_candidates_than_pieces_are_all_pieces(overfitted: Overfitted) -> None:
    run = overfitted("mlm")
    vocabulary = run.tokenizer.vocabulary
    [candidates] = fill_mask(run, "The [MASK] ship", top=vocabulary.size + 1).candidates
    assert len(candidates) == len(vocabulary.ordinary)


@pytest.mark.parametrize("objective", ["mlm", "msc", "bert"])
def test_masked_models_fill_masks(overfitted: Overfitted, objective: str) -> None:
    assert len(fill_mask(overfitted(objective), "渔船在[MASK]", top=2).candidates) == 1


@pytest.mark.parametrize("objective", ["arlm", "mgm", "nsp"])
def test_other_models_say_that_they_cannot(overfitted: Overfitted, objective: str) -> None:
    run = overfitted(objective)
    with pytest.raises(ConfigError) as raised:
        fill_mask(run, "The [MASK] ship")
    assert str(raised.value).startswith(f"{run.folder}: was trained with '{objective}'")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["The old ship", "", "[mask] [ MASK ]"])
def test_a_text_without_a_mask_is_refused(overfitted: Overfitted, text: str) -> None:
    with pytest.raises(ConfigError, match=r"no \[MASK\]"):
        fill_mask(overfitted("mlm"), text)


def test_a_text_longer_than_the_window_is_refused(overfitted: Overfitted) -> None:
    run = overfitted("mlm")
    room = run.longest_text - len(run.tokenizer.encode("The old ship"))
    fill_mask(run, "The old ship" + MASK * room)
    with pytest.raises(ConfigError, match=f"{run.longest_text + 1} tokens") as raised:
        fill_mask(run, "The old ship" + MASK * (room + 1))
    assert "\n" not in str(raised.value)
