import json
import xml.etree.ElementTree
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_corpora import Made, make_corpus, make_texts, run

from data_prep.corpora import reading
from data_prep.corpora.reading import Corpus
from data_prep.corpora.showing import sample
from data_prep.corpora.statistics import LengthCounts, corpus_summary
from data_prep.tokenizers import load_tokenizer

NAMES = ("web", "书")


def make_named(count: int) -> list[Made]:
    """Documents of two corpora, English ones first, with the change in the midst of a block."""
    return [replace(one, corpus=NAMES[one.number >= count // 2]) for one in make_texts(count)]


@pytest.fixture(scope="module")
def made() -> list[Made]:
    return make_named(120)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, made: list[Made]) -> Path:
    folder = tmp_path_factory.mktemp("looking") / "corpus"
    rejected = {"empty": 5, "length": 120 - len(made) - 6}
    make_corpus(folder, made, corpora=NAMES, rejected=rejected, block_tokens=100)
    return folder


LENGTHS = st.lists(st.integers(1, 70_000), min_size=1, max_size=60)


@given(LENGTHS, LENGTHS)
def test_lengths_are_counted_exactly(one: list[int], other: list[int]) -> None:
    counts, second = LengthCounts(), LengthCounts()
    counts.add(np.array(one, dtype=np.uint32))
    second.add(np.array(other, dtype=np.uint32))
    counts.update(second)
    every = sorted(one + other)
    shares = (0.0, 0.3, 0.5, 0.99, 1.0)
    for share, value in zip(shares, counts.quantiles(shares), strict=True):
        assert sum(length <= value for length in every) >= share * len(every)
        assert value == every[0] or sum(length < value for length in every) < share * len(every)
    octaves = counts.octaves()
    expected = Counter(1 << (length.bit_length() - 1) for length in every)
    assert {least: count for least, count in octaves.items() if count} == expected
    assert min(octaves) == min(expected)
    assert max(octaves) == max(expected)


def test_inspect_counts_what_is_there(corpus: Path, made: list[Made]) -> None:
    tokenizer = load_tokenizer(corpus / "tokenizer.model")
    summary = corpus_summary(Corpus(corpus), tokens=True)
    assert list(summary["rejected"]) == ["length", "empty"]
    vouched = Corpus(corpus).manifest.files - {"manifest.json"}
    assert summary["disk_bytes"] == sum((corpus / name).stat().st_size for name in vouched)
    for side, figures in summary["splits"].items():
        texts = [one for one in made if one.split == side]
        lens = [len(tokenizer.encode(one.text)) for one in texts]
        assert figures["documents"] == len(texts)
        assert figures["tokens"] == sum(lens)
        assert figures["text_bytes"] == sum(len(one.text.encode()) for one in texts)
        assert figures["characters"] == sum(len(one.text) for one in texts)
        assert figures["document_tokens"]["100%"] == max(lens)
        assert figures["labels"]["english"] == sum(one.label == "english" for one in texts)
        assert sum(figures["length_histogram"].values()) == len(texts)
        every = Corpus(corpus).splits[side]
        blocks = [shard.block(index) for shard, index in every.blocks()]
        assert figures["words"] == sum(int(block.words.sum()) for block in blocks)
        assert figures["sentences"] == sum(int(block.sentences.sum()) for block in blocks)
        for name in NAMES:
            of_it = [one for one in texts if one.corpus == name]
            found = figures["corpora"][name]
            assert found["documents"] == len(of_it)
            assert found["tokens"] == sum(len(tokenizer.encode(one.text)) for one in of_it)
            assert found["text_bytes"] == sum(len(one.text.encode()) for one in of_it)
        for field in ("words", "sentences", "tokens"):
            assert sum(part[field] for part in figures["corpora"].values()) == figures[field]


def test_words_of_a_block_of_two_corpora(tmp_path: Path) -> None:
    texts = make_named(40)
    make_corpus(tmp_path / "together", texts, corpora=NAMES, block_tokens=10**6)
    make_corpus(tmp_path / "apart", texts, corpora=NAMES, block_tokens=1)
    found = [
        corpus_summary(Corpus(tmp_path / name))["splits"]["train"]["corpora"]
        for name in ("together", "apart")
    ]
    assert found[0] == found[1]


def test_inspect_prints_a_table(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = run(capfd, "inspect", corpus, "--tokens")
    assert (done.code, done.err) == (0, "")
    for part in ("bytes per token", "rejected: ", "(no label)", "16 – 31", "█", "by corpus", "书"):
        assert part in done.out
    assert done.out.index("length") < done.out.index(" empty")
    summary = json.loads(run(capfd, "inspect", corpus, "--json").out)
    assert "characters" not in summary["splits"]["train"]


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_figure(
    corpus: Path, tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    figures = []
    for name in "ab":
        path = tmp_path / (name + suffix)
        done = run(capfd, "inspect", corpus, "--plot", path)
        assert (done.code, done.err) == (0, "")
        figures.append(path.read_bytes())
    assert figures[0] == figures[1], "the same figures give the same bytes"
    if suffix == ".svg":
        drawn = "".join(xml.etree.ElementTree.fromstring(figures[0]).itertext())
        for part in ("corpus: ", "Document lengths", "Tokens of a document", "书", "chinese"):
            assert part in drawn
    else:
        assert figures[0].startswith(b"\x89PNG")


def test_figure_that_cannot_be_written(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run(capfd, "inspect", corpus, "--plot", tmp_path / "a.pdf")
    assert done.code == 2
    assert "the name must end in .svg or .png" in done.err
    done = run(capfd, "inspect", corpus, "--plot", tmp_path / "none" / "a.svg")
    assert done.code == 2
    assert "no folder" in done.err


def shown(capfd: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    done = run(capfd, "show", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def test_show_gives_the_document(
    corpus: Path, made: list[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    for one in made[::5]:
        (found,) = shown(capfd, corpus, "--document", one.number)
        assert found["text"] == one.text
        assert found["marked"].replace("‖", "").replace("|", "") == one.text
        assert found["marked"].count("‖") == found["sentences"]
        assert found["marked"].count("|") == found["words"] - found["sentences"]
        tags = (found["split"], found["id"], found["corpus"], found["label"])
        assert tags == (one.split, one.id, one.corpus, one.label)
        assert found["text_bytes"] == len(one.text.encode())


def test_every_number_is_found_and_no_other(corpus: Path, made: list[Made]) -> None:
    opened = Corpus(corpus)
    sides = {one.number: one.split for one in made}
    for number in range(-1, 125):
        found = [split.find(number) for split in opened.splits.values()]
        assert [one.split for one in found if one] == ([sides[number]] if number in sides else [])
        assert all(one.number == number for one in found if one)


def test_show_prints_the_marked_text(
    corpus: Path, made: list[Made], capfd: pytest.CaptureFixture[str]
) -> None:
    heading, *lines = run(capfd, "show", corpus, "--document", 8).out.splitlines()
    assert heading.startswith("document 8 · train · id id-8 “文” · corpus web")
    text = next(one.text for one in made if one.number == 8)
    assert "\n".join(lines).replace("‖", "").replace("|", "") == text


def test_numbers_that_are_not_there(corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for options, reason in (
        (("--document", 3), "no document 3: it was rejected or removed as a duplicate"),
        (("--document", 500), "no document 500: numbers go from 0 to 119"),
        (("--document", 8, "--split", "valid"), "no document 8: it is not in valid"),
        (("--id", "none"), "no document with the id 'none'"),
        (("--split", "test", "--document", 8), "no split 'test'; it has train, valid"),
        ((), "show needs one of --document N, --id ID and --sample K"),
        (("--document", 1, "--id", "x"), "show needs one of"),
    ):
        done = run(capfd, "show", corpus, *options)
        assert done.code == 2
        assert reason in done.err


def test_show_by_id_gives_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = make_texts(60)
    texts = [replace(one, id='"a" 文\n') if one.number in (9, 24, 50) else one for one in texts]
    make_corpus(tmp_path / "a", texts)
    found = shown(capfd, tmp_path / "a", "--id", '"a" 文\n')
    assert sorted(one["document"] for one in found) == [9, 50]
    make_corpus(tmp_path / "b", texts, ids=False)
    done = run(capfd, "show", tmp_path / "b", "--id", "x")
    assert done.code == 2
    assert "keeps no ids" in done.err


def test_sample(corpus: Path, made: list[Made], capfd: pytest.CaptureFixture[str]) -> None:
    few = [one["document"] for one in shown(capfd, corpus, "--sample", 5, "--seed", 3)]
    more = [one["document"] for one in shown(capfd, corpus, "--sample", 30, "--seed", 3)]
    assert more[:5] == few
    assert len(set(more)) == 30
    assert few != [one["document"] for one in shown(capfd, corpus, "--sample", 5)]
    every = [one.number for one in sample(Corpus(corpus), 10**6, 0)]
    assert sorted(every) == [one.number for one in made]
    side = [one["split"] for one in shown(capfd, corpus, "--sample", 9, "--split", "valid")]
    assert side == ["valid"] * 9
    # Pinned: the draws may not depend on the machine or the version.
    assert few == [68, 105, 6, 61, 7]


def test_random_access_opens_few_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_corpus(tmp_path / "a", make_texts(450), block_tokens=1, shard_tokens=1)
    opened: list[object] = []

    class Watched(reading.StoredShard):
        def _bytes(self) -> Any:
            opened.append(self.info.file)
            return super()._bytes()

    monkeypatch.setattr(reading, "StoredShard", Watched)
    corpus = Corpus(tmp_path / "a")
    assert len(corpus.splits["train"].info.shards) > 300
    assert not opened
    assert corpus.find(200).number == 200
    assert len(set(opened)) <= 10
