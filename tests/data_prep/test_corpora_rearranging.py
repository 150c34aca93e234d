from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prep_corpora import Made, edit_manifest, make_corpus, make_texts, run, tokenizer_model
from prep_support import Outcome, assert_lengths, files_of

from data_prep.corpora.reading import Corpus
from data_prep.corpora.rearranging import Sizes, merge_corpora, reshard_corpus
from data_prep.corpora.verifying import verify_corpus
from data_prep.errors import PrepError
from data_prep.execution import Executor, LocalExecutor
from data_prep.manifest import Manifest

RECORD = "build.json"
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with LocalExecutor(1, 60.0) as opened:
        yield opened


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Run:
    return lambda *arguments: run(capfd, *arguments)


def content(folder: Path) -> dict[str, bytes]:
    """All files but the record of where the corpus came from."""
    return {name: data for name, data in files_of(folder).items() if name != RECORD}


def documents(folder: Path) -> list[tuple[Any, ...]]:
    """Every document of a corpus: side, number, id, label, corpus, text, words, sentences."""
    corpus = Corpus(folder)
    found = []
    for name, split in corpus.splits.items():
        for place in range(split.info.documents):
            one = split.document(place)
            text = corpus.tokenizer.decode(one.data.tokens)
            marks = (one.data.words.tolist(), one.data.sentences.tolist())
            tags = (one.data.ids[0], corpus.label(one), corpus.corpus(one))
            found.append((name, one.number, *tags, text, *marks))
    return found


@given(
    st.integers(1, 24),
    st.integers(1, 200),
    st.integers(1, 600),
    st.integers(1, 200),
    st.integers(1, 600),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_reshard_is_a_build_with_other_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    executor: Executor,
    count: int,
    block: int,
    shard: int,
    other_block: int,
    other_shard: int,
) -> None:
    folder = tmp_path_factory.mktemp("reshard")
    texts = make_texts(count, count)
    make_corpus(folder / "one", texts, block_tokens=block, shard_tokens=shard)
    make_corpus(folder / "other", texts, block_tokens=other_block, shard_tokens=other_shard)
    before = files_of(folder / "one")
    made, written = reshard_corpus(
        folder / "one", folder / "made", Sizes(other_block, other_shard), executor
    )
    assert written
    assert made == Manifest.load(folder / "other")
    assert content(folder / "made") == content(folder / "other")
    reshard_corpus(folder / "made", folder / "back", Sizes(block, shard), executor)
    assert content(folder / "back") == content(folder / "one")
    assert files_of(folder / "one") == before
    assert_lengths(folder / "made")


def test_reshard_keeps_sizes_that_are_not_given(command: Run, tmp_path: Path) -> None:
    make_corpus(tmp_path / "a", make_texts(40), corpora=())
    done = command("reshard", tmp_path / "a", "--output", tmp_path / "b", "--shard-tokens", 10**6)
    assert (done.code, done.err) == (0, "")
    made = Manifest.load(tmp_path / "b")
    assert made.settings == {"block_tokens": 60, "shard_tokens": 10**6}
    assert [len(split.shards) for split in made.splits.values()] == [1, 1]
    assert documents(tmp_path / "b") == documents(tmp_path / "a")
    assert command("verify", tmp_path / "b", "--text").code == 0
    assert command("diff", tmp_path / "a", tmp_path / "b").code == 0


def test_reshard_of_one_side(command: Run, tmp_path: Path) -> None:
    original = make_corpus(tmp_path / "a", make_texts(40))
    assert (
        command("reshard", tmp_path / "a", "--output", tmp_path / "b", "--split", "valid").code == 0
    )
    made = Manifest.load(tmp_path / "b")
    assert list(made.splits) == ["valid"]
    assert made.rejected["other_split"] == original.splits["train"].documents
    assert command("verify", tmp_path / "b").code == 0
    expected = [one for one in documents(tmp_path / "a") if one[0] == "valid"]
    assert documents(tmp_path / "b") == expected
    done = command("reshard", tmp_path / "a", "--output", tmp_path / "c", "--split", "test")
    assert done.code == 2
    assert "no split 'test'; it has train, valid" in done.err


def test_second_run_finds_the_corpus_there(command: Run, tmp_path: Path) -> None:
    make_corpus(tmp_path / "a", make_texts(20))
    make_corpus(tmp_path / "b", make_texts(20, 1))
    for arguments in (
        ("reshard", tmp_path / "a", "--output", tmp_path / "r", "--block-tokens", 90),
        ("merge", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "m"),
    ):
        assert "already there" not in command(*arguments).out
        output = Path(str(arguments[arguments.index("--output") + 1]))
        before = output.stat().st_ino
        done = command(*arguments)
        assert done.code == 0
        assert "already there, fingerprint" in done.out
        assert output.stat().st_ino == before
        other = command(*arguments, "--shard-tokens", 999)
        assert other.code == 2
        assert "holds a corpus of another build (shard_tokens = 200, not 999)" in other.err
        assert command(*arguments, "--shard-tokens", 999, "--overwrite").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "m", "r"]


def test_output_that_is_something_else_is_left_alone(command: Run, tmp_path: Path) -> None:
    make_corpus(tmp_path / "a", make_texts(20))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep.txt").write_text("mine")
    for options in ((), ("--overwrite",)):
        done = command("reshard", tmp_path / "a", "--output", tmp_path / "mine", *options)
        assert done.code == 2
        assert "exists and is not a corpus" in done.err
        assert files_of(tmp_path / "mine") == {"keep.txt": b"mine"}
    before = files_of(tmp_path / "a")
    done = command("reshard", tmp_path / "a", "--output", tmp_path / "a", "--overwrite")
    assert done.code == 2
    assert "is the input corpus" in done.err
    assert files_of(tmp_path / "a") == before


def test_damaged_input_is_not_copied(command: Run, tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "a", make_texts(20))
    path = tmp_path / "a" / manifest.splits["train"].shards[0].file
    data = bytearray(path.read_bytes())
    data[2 * 512 + 140] ^= 1
    path.write_bytes(data)
    done = command("reshard", tmp_path / "a", "--output", tmp_path / "b", "--block-tokens", 9)
    assert done.code == 2
    assert "train-000000.tar: sha256 is" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def merged(first: list[Made], *others: list[Made]) -> list[Made]:
    """The documents of a union by definition: numbers go on where the input before ended."""
    found = list(first)
    for other in others:
        offset = found[-1].number + 1
        found += [replace(one, number=one.number + offset) for one in other]
    return found


def test_merge_is_the_corpus_of_all_documents(tmp_path: Path, executor: Executor) -> None:
    parts = [make_texts(30, 1), make_texts(25, 2, label=None), make_texts(31, 3)]
    folders = []
    for number, part in enumerate(parts):
        folders.append(tmp_path / str(number))
        make_corpus(folders[-1], part, block_tokens=50 + number)
    before = [files_of(folder) for folder in folders]
    made, _ = merge_corpora(folders, tmp_path / "merged", Sizes(), executor)
    whole = make_corpus(
        tmp_path / "whole",
        merged(*parts),
        block_tokens=50,
        merged=[
            {"fingerprint": one.fingerprint, "settings": one.settings}
            for one in map(Manifest.load, folders)
        ],
        rejected=made.rejected,
    )
    shards = {name: split.model_dump() for name, split in made.splits.items()}
    assert shards == {name: split.model_dump() for name, split in whole.splits.items()}
    assert made.source_documents == whole.source_documents
    assert made.labels == ["chinese", "english"]
    assert made.settings == whole.settings
    assert made.changed == {"nfc": 9}
    assert [files_of(folder) for folder in folders] == before
    assert not verify_corpus(tmp_path / "merged", executor, text=True).faults
    assert_lengths(tmp_path / "merged")


def test_merge_unites_labels_and_corpora(tmp_path: Path, executor: Executor) -> None:
    one = make_texts(20, 1, label="10", corpus="web") + [
        replace(two, number=two.number + 20, label="9", corpus="本") for two in make_texts(8, 2)
    ]
    other = make_texts(20, 3, label="-1", corpus="news")
    make_corpus(tmp_path / "a", one, labels=["9", "10"], corpora=["web", "本"])
    make_corpus(tmp_path / "b", other, corpora=["news"])
    folders = [tmp_path / "a", tmp_path / "b"]
    made, _ = merge_corpora(folders, tmp_path / "m", Sizes(), executor)
    assert made.labels == ["-1", "9", "10"]
    assert made.corpora == ["web", "本", "news"]
    found = {(label, corpus) for _, _, _, label, corpus, *_ in documents(tmp_path / "m")}
    assert found == {("10", "web"), ("9", "本"), ("-1", "news")}
    made, _ = merge_corpora(folders, tmp_path / "n", Sizes(), executor, names=["x", "y"])
    assert made.corpora == ["x/web", "x/本", "y/news"]
    assert not verify_corpus(tmp_path / "n", executor).faults


def test_merge_names_corpora_without_names(tmp_path: Path, executor: Executor) -> None:
    for number in range(2):
        make_corpus(tmp_path / str(number), make_texts(20, number), ids=False)
    folders = [tmp_path / "0", tmp_path / "1"]
    made, _ = merge_corpora(folders, tmp_path / "m", Sizes(), executor, names=["en", "zh"])
    assert made.corpora == ["en", "zh"]
    counts = [split.corpus_counts for split in made.splits.values()]
    assert [sum(side) for side in zip(*counts, strict=True)] == [17, 17]
    assert {one[4] for one in documents(tmp_path / "m") if one[1] < 20} == {"en"}
    assert not made.keeps_ids


Change = Callable[[Path], object]
REFUSALS: list[tuple[dict[str, Any], dict[str, Any], tuple[object, ...], str]] = [
    ({}, {"model": tokenizer_model(1)}, (), "its tokenizer has the checksum"),
    ({"made": make_texts(20)}, {"made": make_texts(20)}, (), "is the same corpus as"),
    ({"corpora": ["x"]}, {}, (), "names its corpora and"),
    ({"corpora": ["x"]}, {"corpora": ["x"]}, (), "two of the corpora are called 'x'"),
    ({}, {}, ("--name", "x"), "--name is given 1 times for 2 corpora"),
    ({}, {}, ("--name", "x", "--name", "x"), "two of the corpora are called 'x'"),
    ({}, {"ids": False}, (), "drop them with --drop-ids"),
    ({"made": make_texts(20, label="7")}, {}, (), "its labels are names, those of"),
]


@pytest.mark.parametrize(("a", "b", "options", "message"), REFUSALS, ids=[m for *_, m in REFUSALS])
def test_what_cannot_be_merged(
    command: Run,
    tmp_path: Path,
    a: dict[str, Any],
    b: dict[str, Any],
    options: tuple[object, ...],
    message: str,
) -> None:
    for name, fields in (("a", a), ("b", b)):
        corpus = fields.get("corpora", [""])[0]
        texts = fields.get("made", make_texts(20, ord(name)))
        fields = {"made": [replace(one, corpus=corpus) for one in texts]} | {
            key: value for key, value in fields.items() if key != "made"
        }
        make_corpus(tmp_path / name, **fields)
    paths = (tmp_path / "a", tmp_path / "b")
    done = command("merge", *paths, "--output", tmp_path / "m", *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_merge_can_drop_ids(command: Run, tmp_path: Path) -> None:
    make_corpus(tmp_path / "a", make_texts(20, 1))
    make_corpus(tmp_path / "b", make_texts(20, 2), ids=False)
    paths = (tmp_path / "a", tmp_path / "b", "--output", tmp_path / "m")
    assert command("merge", *paths, "--drop-ids").code == 0
    assert not Manifest.load(tmp_path / "m").keeps_ids


def test_corpus_that_does_not_tell_its_sizes(tmp_path: Path, executor: Executor) -> None:
    make_corpus(tmp_path / "a", make_texts(20))
    edit_manifest(tmp_path / "a", settings={})
    with pytest.raises(PrepError, match="its settings name no block_tokens; give --block-tokens"):
        reshard_corpus(tmp_path / "a", tmp_path / "b", Sizes(), executor)
