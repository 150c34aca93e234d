"""Our `compat` masks against the code of the references itself, on the same ids.

Both sides draw from streams of their own, so that distributions are compared: how many tokens of a
text are chosen, which ones, what becomes of them, and which random ids come.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from megapt.data import Piece, Window
from tests.chance import assert_fits
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, make_piece

V = VOCABULARY
TEXTS = 6000
IGNORED = -100
WORDS = (1, 2, 1, 3, 1, 1, 4, 2, 1, 6, 1, 1, 2, 3, 1)
"""Tokens of the words of the text, 30 in all."""
STARTS = np.cumsum((0, *WORDS[:-1]))
PIECE = make_piece(range(40, 40 + sum(WORDS)), words=STARTS.tolist())


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """200 words named by their ids, of which those of `VOCABULARY` are special."""
    named = Tokenizer(WordLevel({f"w{i}": i for i in range(V.size)}, unk_token=f"w{V.unk}"))
    special = {"pad": V.pad, "unk": V.unk, "cls": V.cls, "sep": V.sep, "mask": V.mask}
    names = {f"{name}_token": f"w{number}" for name, number in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=named, **names)


def theirs(
    tokenizer: PreTrainedTokenizerFast, tensors: str = "np", **settings: Any
) -> tuple[np.ndarray, np.ndarray]:
    """What the collator makes of the text `TEXTS` times: ids and labels, int64 [TEXTS, n + 2]."""
    ids = [V.cls, *PIECE.tokens.tolist(), V.sep]
    # Words of theirs are told apart by a gap between the characters of their tokens.
    word_of = np.cumsum(PIECE.word_starts)
    spans = [
        (3 * place + int(word), 3 * place + 3 + int(word)) for place, word in enumerate(word_of)
    ]
    example = {
        "input_ids": ids,
        "special_tokens_mask": [1, *[0] * len(PIECE.tokens), 1],
        "offset_mapping": [(0, 0), *spans, (0, 0)],
    }
    if not settings.get("whole_word_mask"):
        del example["offset_mapping"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that whole words are never replaced at random
        collator = DataCollatorForLanguageModeling(
            tokenizer, return_tensors=tensors, seed=11, **settings
        )
    batch = collator([dict(example) for _ in range(TEXTS)])
    return np.asarray(batch["input_ids"]), np.asarray(batch["labels"])


def ours(piece: Piece = PIECE, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same of our examples."""
    window = Window(0, 0, (piece,) * TEXTS)
    examples = examples_of(build("mlm", **settings), window, "references")
    ids = np.stack([example.tokens for example in examples])
    labels = np.full(ids.shape, IGNORED)
    for row, example in zip(labels, examples, strict=True):
        row[example.targets["tokens"].positions] = example.targets["tokens"].labels
    return ids, labels


def assert_alike(first: np.ndarray, second: np.ndarray) -> None:
    """Two samples of counts come from one distribution: chi-square within five deviations."""
    kept = first + second > 20
    pooled = np.stack([np.append(a[kept], a[~kept].sum()) for a in (first, second)])
    totals = pooled.sum(axis=1, keepdims=True)
    expected = totals * pooled.sum(axis=0) / totals.sum()
    parts = expected[0] > 0
    statistic = float(((pooled - expected) ** 2 / np.where(parts, expected, 1)).sum())
    freedom = int(parts.sum()) - 1
    assert abs(statistic - freedom) <= 5 * np.sqrt(2 * freedom), f"{statistic=} {freedom=}"


def assert_chosen_alike(first: np.ndarray, second: np.ndarray, places: np.ndarray) -> None:
    """How many tokens of a text are chosen, and how often each of some independent `places`."""
    one, other = first != IGNORED, second != IGNORED
    length = one.shape[1]
    assert_alike(*(np.bincount(chosen.sum(axis=1), minlength=length) for chosen in (one, other)))
    assert_alike(one[:, places].sum(axis=0), other[:, places].sum(axis=0))


def kinds(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many chosen tokens are [MASK], as they were, or another."""
    new, old = ids[labels != IGNORED], labels[labels != IGNORED]
    hidden, kept = (new == V.mask).sum(), (new == old).sum()
    return np.array([hidden, kept, len(new) - hidden - kept])


@pytest.mark.parametrize("tensors", ["np", "pt"])
def test_tokens_are_chosen_as_by_the_collator(
    tokenizer: PreTrainedTokenizerFast, tensors: str
) -> None:
    ids, labels = ours(compat="huggingface")
    their_ids, their_labels = theirs(tokenizer, tensors)
    assert_chosen_alike(labels, their_labels, np.arange(1, labels.shape[1] - 1))
    assert_alike(kinds(ids, labels), kinds(their_ids, their_labels))
    assert (labels[:, [0, -1]] == IGNORED).all()
    assert (their_labels[:, [0, -1]] == IGNORED).all()
    assert ((their_labels != IGNORED).sum(axis=1) == 0).any(), "a text without a masked token"


@pytest.mark.parametrize("shares", [(0.5, 0.4), (0.0, 1.0), (1.0, 0.0)])
def test_other_shares_mean_the_same(
    tokenizer: PreTrainedTokenizerFast, shares: tuple[float, float]
) -> None:
    ids, labels = ours(
        compat="huggingface", mask_replace_prob=shares[0], random_replace_prob=shares[1]
    )
    theirs_too = theirs(tokenizer, mask_replace_prob=shares[0], random_replace_prob=shares[1])
    assert_alike(kinds(ids, labels), kinds(*theirs_too))


def test_random_ids_come_from_the_whole_vocabulary(tokenizer: PreTrainedTokenizerFast) -> None:
    settings = {"mask_replace_prob": 0.0, "random_replace_prob": 1.0}
    drawn = [
        np.bincount(ids[labels != IGNORED], minlength=V.size)
        for ids, labels in (
            ours(compat="huggingface", mask_rate=0.3, **settings),
            theirs(tokenizer, mlm_probability=0.3, mask_replace_prob=0.0, random_replace_prob=1.0),
        )
    ]
    for counts in drawn:
        assert_fits(counts, np.ones(V.size))
    assert_alike(*drawn)


def test_whole_words_are_chosen_as_by_the_collator(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each word by a draw of its own; the collator leaves none as it is."""
    ids, labels = ours(
        compat="huggingface", unit="word", mask_replace_prob=1.0, random_replace_prob=0.0
    )
    their_ids, their_labels = theirs(tokenizer, whole_word_mask=True)
    assert_chosen_alike(labels, their_labels, STARTS + 1)
    for new, asked in ((ids, labels), (their_ids, their_labels)):
        words = np.split((asked != IGNORED)[:, 1:-1], STARTS[1:], axis=1)
        assert all((word == word[:, :1]).all() for word in words)
        assert (new[asked != IGNORED] == V.mask).all()


def test_our_own_rule_shares_the_mean_alone(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Of 4.5 tokens our rule makes four or five; the collator masks from none to many."""
    chosen, others = ours()[1] != IGNORED, theirs(tokenizer)[1] != IGNORED
    assert chosen.mean() == pytest.approx(others.mean(), rel=0.02)
    assert set(chosen.sum(axis=1)) == {4, 5}
    assert others.sum(axis=1).min() == 0
    assert others.sum(axis=1).max() > 8
