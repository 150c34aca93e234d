"""What a run reads: one corpus or several, with one tokenizer, all labels and one sequence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.settings import BuildSettings
from data_prep.tokenizers.training import train_tokenizer
from megapt.config import DataConfig
from megapt.data import Corpus, MixedCorpus, WindowStream, derive_key, open_corpora, open_stream
from megapt.data.mixture import temperature_weights
from megapt.data.mixture_stream import MixtureStream
from megapt.errors import ConfigError
from tests.corpora import build_texts, make_documents

GLOBAL_BATCH = 10


@pytest.fixture(scope="session")
def farms_folder(build_another: Callable[..., Path]) -> Path:
    """A corpus with a label more, that sorts before the others, and one less."""
    documents = [
        {**document, "topic": "barn" if document["topic"] == "sea" else "field"}
        for document in make_documents(60, seed=2)
    ]
    return build_another(documents, label_field="topic")


@pytest.fixture
def mixed(corpus_folder: Path, farms_folder: Path) -> MixedCorpus:
    return MixedCorpus({"coast": Corpus(corpus_folder), "farms": Corpus(farms_folder)})


def test_labels_are_those_of_all_corpora_under_one_numbering(
    mixed: MixedCorpus, corpus_folder: Path, farms_folder: Path
) -> None:
    assert mixed.labels == ["barn", "field", "sea"]
    for name, folder in (("coast", corpus_folder), ("farms", farms_folder)):
        alone, together = Corpus(folder), mixed.corpora[name]
        for split in ("train", "valid"):
            for place in range(0, len(alone.splits[split]), 7):
                label = alone.labels[alone.splits[split].piece(place).label]
                assert mixed.labels[together.splits[split].piece(place).label] == label
            numbers = together.splits[split].labels.tolist()
            assert [mixed.labels[n] for n in numbers] == [
                alone.labels[n] for n in alone.splits[split].labels.tolist()
            ]


def test_windows_of_a_mixture_carry_the_common_labels(
    mixed: MixedCorpus, corpus_folder: Path, farms_folder: Path
) -> None:
    stream = open_stream(mixed, "train", mixture_of(corpus_folder, farms_folder), seed=1)
    alone = [Corpus(corpus_folder), Corpus(farms_folder)]
    named: list[dict[int, str]] = []
    for one in alone:
        pieces = (one.train.piece(place) for place in range(len(one.train)))
        named.append({piece.document: one.labels[piece.label] for piece in pieces})
    seen = set()
    for window in stream.windows(range(stream.count)):
        for piece in window.pieces:
            assert mixed.labels[piece.label] == named[window.corpus][piece.document]
            seen.add((window.corpus, mixed.labels[piece.label]))
    assert seen == {(0, "sea"), (0, "field"), (1, "barn"), (1, "field")}


def test_a_corpus_that_joins_another_mixture_has_its_labels_numbered_anew(
    mixed: MixedCorpus, small_folder: Path
) -> None:
    farms = mixed.corpora["farms"]
    assert farms.validation.classes.tolist() == [0, 1, -1]
    again = MixedCorpus({"farms": farms, "small": Corpus(small_folder)})
    assert again.labels == ["barn", "field", "sea"]
    assert farms.validation.classes.tolist() == [0, 1, -1]


def test_how_corpora_are_listed_does_not_change_the_order(
    corpus_folder: Path, farms_folder: Path
) -> None:
    data = mixture_of(corpus_folder, farms_folder, weights=(3.0, 1.0))
    assert data.mixture is not None
    values = data.mixture.model_dump()
    values["corpora"] = dict(reversed(values["corpora"].items()))
    turned = data.model_copy(update={"mixture": type(data.mixture).model_validate(values)})
    corpora = [open_corpora(data), open_corpora(turned)]
    by_hand = {"farms": Corpus(farms_folder), "coast": Corpus(corpus_folder)}
    corpora.append(MixedCorpus(by_hand))
    streams = [
        open_stream(corpus, "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
        for corpus in corpora
    ]
    assert streams[0].identity == streams[1].identity == streams[2].identity
    ids = [stream.ids(range(100)) for stream in streams]
    assert ids[0] == ids[1] == ids[2]


def test_documents_without_a_label_are_counted_over_all(
    corpus_folder: Path, build_another: Callable[..., Path]
) -> None:
    bare = Corpus(build_another(make_documents(30, seed=3)))
    mixed = MixedCorpus({"labeled": Corpus(corpus_folder), "bare": bare})
    assert mixed.unlabeled == len(bare.train)
    assert mixed.labels == ["field", "sea"]


def test_a_corpus_of_another_tokenizer_is_refused(corpus_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    source.write_text(
        "".join(json.dumps(document) + "\n" for document in make_documents(200, seed=9)), "utf-8"
    )
    train_tokenizer(BuildSettings.of_files(source), tmp_path / "tokenizer", 400, sentinels=8)
    other = build_texts(source, tmp_path / "tokenizer", tmp_path / "corpus", valid_fraction=0.2)
    with pytest.raises(ConfigError) as error:
        MixedCorpus({"usual": Corpus(corpus_folder), "other": Corpus(other)})
    text = str(error.value)
    assert len(text.splitlines()) == 1
    for part in (str(other), str(corpus_folder), "'other'", "'usual'", "tokenizer"):
        assert part in text


def test_a_corpus_twice_in_a_mixture_is_refused(corpus_folder: Path) -> None:
    """Its windows would come in pairs, masked alike."""
    with pytest.raises(ConfigError, match="both 'again' and 'once'") as error:
        MixedCorpus({"once": Corpus(corpus_folder), "again": Corpus(corpus_folder)})
    assert len(str(error.value).splitlines()) == 1


def test_the_fingerprint_is_of_names_and_contents(
    corpus_folder: Path, farms_folder: Path, small_folder: Path, mixed: MixedCorpus
) -> None:
    def fingerprint(**folders: Path) -> str:
        corpora = {name: Corpus(folder) for name, folder in folders.items()}
        return MixedCorpus(corpora).fingerprint

    usual = mixed.fingerprint
    assert len(usual) == 64
    assert fingerprint(coast=corpus_folder, farms=farms_folder) == usual
    assert fingerprint(farms=farms_folder, coast=corpus_folder) == usual
    others = [
        fingerprint(coast=corpus_folder, farms=small_folder),
        fingerprint(coast=farms_folder, farms=corpus_folder),
        fingerprint(coast=corpus_folder, land=farms_folder),
        fingerprint(coast=corpus_folder),
    ]
    assert len({usual, *others}) == 5


def mixture_of(first: Path, second: Path, **changes: Any) -> DataConfig:
    """Settings for two corpora, `coast` and `farms`; weights follow their sizes unless given."""
    weights = changes.pop("weights", (None, None))
    caps = changes.pop("max_epochs", (None, None))
    corpora = {
        name: {"path": str(path), "weight": weight, "max_epochs": cap}
        for name, path, weight, cap in zip(
            ("coast", "farms"), (first, second), weights, caps, strict=True
        )
    }
    values = {"window": 64, "shuffle_buffer_shards": 2, "shuffle_buffer_blocks": 3, "lanes": 4}
    return DataConfig.model_validate({**values, "mixture": {"corpora": corpora, **changes}})


Shares = Callable[..., list[list[int]]]


@pytest.fixture
def shares(corpus_folder: Path, farms_folder: Path) -> Shares:
    """Windows of each corpus in each of the first steps."""

    def count(steps: int, **changes: Any) -> list[list[int]]:
        data = mixture_of(corpus_folder, farms_folder, **changes)
        stream = open_stream(
            open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH
        )
        windows = stream.windows(range(steps * GLOBAL_BATCH))
        return [
            np.bincount(
                [w.corpus for w in windows[first : first + GLOBAL_BATCH]], minlength=2
            ).tolist()
            for first in range(0, len(windows), GLOBAL_BATCH)
        ]

    return count


def test_one_corpus_is_read_as_such(corpus_folder: Path) -> None:
    data = DataConfig(corpus=str(corpus_folder), window=64, lanes=3, shuffle_buffer_blocks=2)
    corpus = open_corpora(data)
    assert isinstance(corpus, Corpus)
    stream = open_stream(corpus, "valid", data, seed=9, global_batch_size=GLOBAL_BATCH)
    assert isinstance(stream, WindowStream)
    assert stream.total is None
    assert stream.keys == (derive_key(corpus.fingerprint),)
    assert stream.identity == {
        "split": "valid",
        "fingerprint": corpus.fingerprint,
        "seed": 9,
        "window": 64,
        "window_policy": "fill",
        "shuffle_buffer_shards": 8,
        "shuffle_buffer_blocks": 2,
        "lanes": 3,
    }


def test_each_corpus_keeps_the_order_it_has_alone(corpus_folder: Path, farms_folder: Path) -> None:
    data = mixture_of(corpus_folder, farms_folder)
    stream = open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
    found = stream.windows(range(200))
    for number, folder in enumerate((corpus_folder, farms_folder)):
        single = DataConfig(**{**data.model_dump(), "mixture": None, "corpus": str(folder)})
        alone = open_stream(open_corpora(single), "train", single, seed=1)
        mine = [window for window in found if window.corpus == number]
        assert len(mine) > 20
        for one, other in zip(mine, alone.windows(range(len(mine))), strict=True):
            assert (one.epoch, one.index) == (other.epoch, other.index)
            texts = [[piece.tokens.tolist() for piece in w.pieces] for w in (one, other)]
            assert texts[0] == texts[1]


def test_the_ways_to_read_a_mixture_agree(corpus_folder: Path, farms_folder: Path) -> None:
    data = mixture_of(corpus_folder, farms_folder, weights=(2.0, 1.0))
    streams = [
        open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
        for _ in range(2)
    ]
    numbers = np.random.default_rng(0).permutation(120).tolist()
    windows = streams[0].windows(numbers)
    tokens, starts = streams[1].text(numbers)
    pieces = [piece.tokens for window in windows for piece in window.pieces]
    assert tokens.tolist() == np.concatenate(pieces).tolist()
    assert starts.tolist() == np.cumsum([0, *map(len, pieces)]).tolist()
    assert streams[1].ids(numbers) == [
        (number, streams[1].keys[window.corpus], window.epoch, window.index)
        for number, window in zip(numbers, windows, strict=True)
    ]
    assert streams[0].windows([]) == streams[0].ids([]) == []
    assert [part.tolist() for part in streams[0].text([])] == [[], [0]]
    with pytest.raises(ValueError, match="numbered from 0"):
        streams[0].windows([-1])


def test_lanes_of_a_mixture_are_those_of_its_corpora(
    corpus_folder: Path, farms_folder: Path
) -> None:
    data = mixture_of(corpus_folder, farms_folder)
    stream = open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
    seen = [0, 0]
    for number, window in enumerate(stream.windows(range(50))):
        assert stream.lanes(np.array([number])).tolist() == [seen[window.corpus] % 4]
        seen[window.corpus] += 1


def test_weights_hold_within_a_window_in_every_step(shares: Shares) -> None:
    assert shares(6, weights=(3.0, 2.0)) == [[6, 4]] * 6


def test_the_schedule_counts_in_steps_of_the_global_batch(shares: Shares) -> None:
    schedule = [
        {"step": 2, "weights": {"farms": 3.0}},
        {"step": 3, "weights": {"coast": 0.0}},
        {"step": 5, "weights": {"coast": 7.0, "farms": 3.0}},
    ]
    found = shares(7, weights=(2.0, 0.0), schedule=schedule)
    assert found == [[10, 0], [10, 0], [4, 6], [0, 10], [0, 10], [7, 3], [7, 3]]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_without_weights_shares_follow_sizes_and_temperature(
    shares: Shares, corpus_folder: Path, farms_folder: Path, temperature: float
) -> None:
    tokens = [Corpus(folder).train.info.tokens for folder in (corpus_folder, farms_folder)]
    expected = temperature_weights(tokens, temperature)
    found = np.sum(shares(20, temperature=temperature), axis=0)
    assert found.tolist() == pytest.approx([200 * weight for weight in expected], abs=1)


def test_a_capped_corpus_gives_its_share_to_the_other(
    shares: Shares, farms_folder: Path, corpus_folder: Path
) -> None:
    data = mixture_of(corpus_folder, farms_folder, max_epochs=(None, 0.5))
    stream = open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
    assert isinstance(stream, MixtureStream)
    assert stream.total is None
    limit = -(-Corpus(farms_folder).train.info.tokens // 64) // 2
    found = np.array(shares(2 * limit // 5 + 5, weights=(1.0, 1.0), max_epochs=(None, 0.5)))
    assert found[:, 1].sum() == limit
    assert found[: 2 * limit // 10].tolist() == [[5, 5]] * (2 * limit // 10)
    assert found[-1].tolist() == [10, 0]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_held_out_windows_are_read_once_evenly_mixed_whatever_the_weights(
    corpus_folder: Path, farms_folder: Path, split: Any
) -> None:
    data = mixture_of(corpus_folder, farms_folder, weights=(0.0, 1.0), max_epochs=(0.2, None))
    corpus = open_corpora(data)
    assert isinstance(corpus, MixedCorpus)
    stream = open_stream(corpus, split, data, seed=1)
    sizes = [-(-one.splits[split].info.tokens // 64) for one in corpus.corpora.values()]
    assert stream.total == stream.count == sum(sizes)
    assert stream.epochs(stream.count) == {"epoch/coast": 1.0, "epoch/farms": 1.0}
    windows = stream.windows(range(stream.count))
    found = Counter((window.corpus, window.epoch, window.index) for window in windows)
    expected = {(number, 0, index) for number, size in enumerate(sizes) for index in range(size)}
    assert found == Counter(expected)
    tokens = sum(one.splits[split].info.tokens for one in corpus.corpora.values())
    assert sum(window.raw_tokens for window in windows) == tokens
    half = np.bincount([window.corpus for window in windows[: stream.count // 2]], minlength=2)
    assert half.tolist() == pytest.approx([size / 2 for size in sizes], abs=1)
    with pytest.raises(ConfigError, match="the mixture ends after"):
        stream.windows([stream.count])


def test_the_identity_of_a_mixture_names_all_that_its_order_depends_on(
    corpus_folder: Path, farms_folder: Path
) -> None:
    data = mixture_of(
        corpus_folder,
        farms_folder,
        weights=(2.0, 1.0),
        max_epochs=(None, 4.0),
        schedule=[{"step": 3, "weights": {"coast": 5.0}}],
    )
    corpus = open_corpora(data)
    assert isinstance(corpus, MixedCorpus)
    stream = open_stream(corpus, "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
    fingerprints = {name: one.fingerprint for name, one in corpus.corpora.items()}
    assert stream.identity == {
        "split": "train",
        "fingerprint": fingerprints,
        "seed": 1,
        "window": 64,
        "window_policy": "fill",
        "shuffle_buffer_shards": 2,
        "shuffle_buffer_blocks": 3,
        "lanes": 4,
        "mixture": {
            "max_epochs": {"coast": None, "farms": 4.0},
            "weights": {"0": ["2/3", "1/3"], "30": ["5/6", "1/6"]},
        },
    }
    assert json.loads(json.dumps(stream.identity)) == stream.identity
    assert stream.keys == tuple(map(derive_key, fingerprints.values()))


def test_left_out_shards_are_told_apart_by_the_name_of_their_corpus(
    corpus_folder: Path, farms_folder: Path
) -> None:
    data = mixture_of(corpus_folder, farms_folder)
    stream = open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
    assert stream.skipped == {}
    skipped = {"farms": {0: "nought"}, "coast": {1: "one", 3: "three"}}
    stream.skip(skipped)
    assert stream.skipped == skipped
    whole = open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
    tokens = [s.text(range(100))[0].size for s in (stream, whole)]
    assert tokens[0] < tokens[1]


def test_weights_that_give_nothing_to_read_are_refused(
    corpus_folder: Path, farms_folder: Path
) -> None:
    data = mixture_of(corpus_folder, farms_folder, weights=(0.0, 0.0))
    with pytest.raises(ConfigError, match="all of 'coast', 'farms' have weight 0"):
        open_stream(open_corpora(data), "train", data, seed=1, global_batch_size=GLOBAL_BATCH)
