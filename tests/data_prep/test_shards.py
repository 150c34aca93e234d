import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.blocks import BlockData
from data_prep.errors import PrepError
from data_prep.shard_writer import INDEX_MEMBER, Layout, ShardWriter, token_dtype
from data_prep.shards import Shard


def make_block(lens: list[int], seed: int = 0, vocabulary: int = 60_000) -> BlockData:
    rng = np.random.default_rng(seed)
    total = sum(lens)
    return BlockData(
        tokens=rng.integers(0, vocabulary, total).astype(token_dtype(vocabulary)),
        words=rng.random(total) < 0.6,
        sentences=rng.random(total) < 0.1,
        lens=np.array(lens, dtype=np.uint32),
        bytes=rng.integers(1, 9999, len(lens)).astype(np.uint32),
        labels=rng.integers(-1, 3, len(lens)).astype(np.int32),
        documents=np.sort(rng.choice(1000, len(lens), replace=False)).astype(np.int64),
        corpora=rng.integers(0, 3, len(lens)).astype(np.uint16),
        ids=np.array([f"编号 {n}" for n in range(len(lens))], dtype=object),
    )


def write(folder: Path, blocks: list[BlockData], vocabulary: int = 60_000, **kw: bool) -> Shard:
    """Write a shard with all members, but those that `kw` leaves out."""
    layout = Layout(vocabulary, **{"labels": True, "ids": True, "corpora": True, **kw})
    with ShardWriter(folder / "train-000000.tar", layout) as writer:
        for key, block in enumerate(blocks):
            writer.write(key, block)
    return Shard(folder, writer.info, np.array(writer.table, dtype=np.int64))


def assert_equal(found: BlockData, expected: BlockData) -> None:
    for name, array in expected.__dict__.items():
        assert getattr(found, name).dtype == array.dtype, name
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


@pytest.fixture
def blocks() -> list[BlockData]:
    return [make_block([5, 1, 30], 1), make_block([700], 2), make_block([8] * 40, 3)]


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_blocks_come_back(tmp_path_factory: pytest.TempPathFactory, lens: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("shard")
    blocks = [make_block(one, seed) for seed, one in enumerate(lens)]
    shard = write(folder, blocks)
    shard.verify()
    for index, block in enumerate(blocks):
        assert_equal(shard.block(index, with_ids=True), block)
    assert shard.lens().tolist() == [length for one in lens for length in one]
    np.testing.assert_array_equal(shard.labels(), np.concatenate([b.labels for b in blocks]))


def test_large_vocabulary_is_stored_in_32_bits(tmp_path: Path) -> None:
    block = make_block([9], vocabulary=100_000)
    shard = write(tmp_path, [block], 100_000)
    assert shard.block(0).tokens.dtype == np.uint32
    assert_equal(shard.block(0, with_ids=True), block)


def test_tokens_are_a_read_only_view(tmp_path: Path, blocks: list[BlockData]) -> None:
    tokens = write(tmp_path, blocks).block(0).tokens
    assert tokens.base is not None
    assert not tokens.flags.writeable


def test_members_that_a_corpus_does_not_have(tmp_path: Path, blocks: list[BlockData]) -> None:
    shard = write(tmp_path, blocks, labels=False, ids=False, corpora=False)
    found = shard.block(2, with_ids=True)
    assert set(shard.labels().tolist()) == set(found.labels.tolist()) == {-1}
    assert set(found.corpora.tolist()) == {0}
    assert set(found.ids.tolist()) == {""}
    with tarfile.open(shard.path) as tar:
        kinds = {name.partition(".")[2] for name in tar.getnames()}
    assert not kinds & {"labels.npy", "ids.json", "corpora.npy"}


def test_bytes_are_reproducible_and_plain_ustar(tmp_path: Path, blocks: list[BlockData]) -> None:
    infos = []
    for name in "ab":
        (tmp_path / name).mkdir()
        infos.append(write(tmp_path / name, blocks).info)
    assert infos[0] == infos[1]
    with tarfile.open(tmp_path / "a" / infos[0].file) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names[:-1] == sorted(names[:-1])
    assert names[-1] == INDEX_MEMBER
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert (member.uname, member.gname, member.pax_headers) == ("", "", {})


def test_plain_webdataset_reads_blocks(tmp_path: Path, blocks: list[BlockData]) -> None:
    info = write(tmp_path, blocks).info
    samples = list(webdataset.WebDataset(str(tmp_path / info.file), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["00000000", "00000001", "00000002"]
    for sample, block in zip(samples, blocks, strict=True):
        np.testing.assert_array_equal(sample["tokens.npy"], block.tokens)
        np.testing.assert_array_equal(sample["lens.npy"], block.lens)
        words = np.unpackbits(sample["words.npy"], count=len(block.tokens))
        np.testing.assert_array_equal(words, block.words)
        assert sample["ids.json"] == block.ids.tolist()


def test_nothing_is_left_of_a_failed_shard(tmp_path: Path, blocks: list[BlockData]) -> None:
    empty = make_block([])
    with pytest.raises(ValueError, match="block 1"):
        write(tmp_path, [blocks[0], empty])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lens", [[], [3, 3]])
def test_empty_or_inconsistent_block_is_refused(tmp_path: Path, lens: list[int]) -> None:
    block = make_block([5])
    wrong = BlockData(**{**block.__dict__, "lens": np.array(lens, dtype=np.uint32)})
    with pytest.raises(ValueError, match="block 0"):
        write(tmp_path, [wrong])


def test_shard_survives_pickling(tmp_path: Path, blocks: list[BlockData]) -> None:
    shard = write(tmp_path, blocks)
    shard.block(0)
    assert_equal(pickle.loads(pickle.dumps(shard)).block(1, with_ids=True), blocks[1])


def test_flipped_byte_is_found_by_verify(tmp_path: Path, blocks: list[BlockData]) -> None:
    shard = write(tmp_path, blocks)
    data = bytearray(shard.path.read_bytes())
    data[2000] ^= 1
    shard.path.write_bytes(data)
    with pytest.raises(PrepError, match=r"train-000000\.tar: sha256 is .* changed or damaged"):
        shard.verify()


def test_cut_shard_is_found_on_opening(tmp_path: Path, blocks: list[BlockData]) -> None:
    shard = write(tmp_path, blocks)
    shard.path.write_bytes(shard.path.read_bytes()[:-512])
    with pytest.raises(PrepError, match="bytes long, the manifest says"):
        Shard(tmp_path, shard.info, shard.table)
    shard.path.unlink()
    with pytest.raises(PrepError, match="no such file"):
        Shard(tmp_path, shard.info, shard.table)


def test_zeroed_page_is_found_on_reading(tmp_path: Path, blocks: list[BlockData]) -> None:
    shard = write(tmp_path, blocks)
    shard.path.write_bytes(bytes(shard.info.bytes))
    with pytest.raises(PrepError, match="no member header of block 0"):
        shard.lens()


def test_table_of_another_shard_is_found_on_reading(
    tmp_path: Path, blocks: list[BlockData]
) -> None:
    shard = write(tmp_path, blocks)
    wrong = shard.table.copy()
    wrong[0, 1] = 9
    with pytest.raises(PrepError, match="3 lens in block 0, the manifest says 9"):
        Shard(tmp_path, shard.info, wrong).lens()
