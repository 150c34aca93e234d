"""Models that know their texts by heartbeat show it, each in the way of its objective."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from megapt.data import Corpus, Piece
from megapt.evaluation import LoadedRun, classify, fill_mask, generate, unmask

Overfitted = Callable[[str], LoadedRun]


def test_arlm_goes_on_with_its_texts_to_the_last_token(
    overfitted: Overfitted, learnt: list[Piece]
) -> None:
    run = overfitted("arlm")
    prompts = [piece.tokens[:4] for piece in learnt]
    written = generate(run, prompts, max_tokens=100, temperature=0)
    for piece, tokens in zip(learnt, written, strict=True):
        assert run.tokenizer.decode(tokens) == run.tokenizer.decode(piece.tokens[4:])
        assert tokens.tolist() == piece.tokens[4:].tolist()


def test_mgm_rewrites_its_texts(overfitted: Overfitted, learnt: list[Piece]) -> None:
    run = overfitted("mgm")
    written = generate(run, [piece.tokens for piece in learnt], max_tokens=100, temperature=0)
    right = sum(np.array_equal(p.tokens, t) for p, t in zip(learnt, written, strict=True))
    assert right >= len(learnt) - 1


def test_mlm_fills_a_mask_at_any_place_of_its_texts(
    overfitted: Overfitted, learnt: list[Piece]
) -> None:
    run = overfitted("mlm")
    right = total = 0
    for piece in learnt:
        for place in range(len(piece.tokens)):
            masked = piece.tokens.copy()
            masked[place] = run.tokenizer.vocabulary.mask
            right += np.array_equal(unmask(run, masked), piece.tokens)
            total += 1
    assert right > 0.9 * total


def test_mlm_fills_a_mask_in_text(overfitted: Overfitted, learnt: list[Piece]) -> None:
    run = overfitted("mlm")
    texts = [run.tokenizer.decode(piece.tokens) for piece in learnt]
    text = next(text for text in texts if " the " in text)
    filling = fill_mask(run, text.replace(" the ", " [MASK] ", 1), top=3)
    [candidates] = filling.candidates
    assert candidates[0][0] == "▁the"
    assert [share for _, share in candidates] == sorted(
        (share for _, share in candidates), reverse=True
    )
    assert 0 < sum(share for _, share in candidates) <= 1 + 1e-6
    assert filling.text == text


def test_msc_classifies_its_texts(
    overfitted: Overfitted, learnt: list[Piece], few_texts: Corpus
) -> None:
    run = overfitted("msc")
    ranked = classify(run, [run.tokenizer.decode(piece.tokens) for piece in learnt])
    for piece, shares in zip(learnt, ranked, strict=True):
        assert next(iter(shares)) == few_texts.labels[piece.label]
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert abs(sum(shares.values()) - 1) < 1e-5
        assert set(shares) == {"sea", "field"}
