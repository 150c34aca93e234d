"""Worker processes of a loader: what they find and outlive, and how their deaths are told."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import dataloader

from megapt.data import BatchMaker, Loader, LoaderState
from megapt.data.processes import LoaderProcesses
from megapt.errors import DamagedError, LostProcessError
from tests.data.loading import (
    GLOBAL_BATCH,
    Job,
    assert_same,
    describe_data,
    joined,
    open_maker,
    run,
)
from tests.patience import patience

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


@pytest.fixture(autouse=True)
def _torch_looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch looks after its processes every five seconds: whatever waits for that is told apart."""
    look = dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(look, "__defaults__", (100.0,))
    monkeypatch.setattr(dataloader._utils, "MP_STATUS_CHECK_INTERVAL", 100.0)


def assert_no_process_is_left() -> None:
    for child in multiprocessing.active_children():
        child.join(5)
    assert not multiprocessing.active_children()


def damaged_copy(corpus_folder: Path, folder: Path) -> tuple[Path, Path]:
    """A corpus of which one shard has a flipped bit; and that shard."""
    copied = shutil.copytree(corpus_folder, folder / "damaged")
    shard = sorted(copied.glob("train-*.tar"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return copied, shard


def test_damage_found_in_a_worker_arrives_as_the_same_line_at_the_same_step(
    corpus_folder: Path, tmp_path: Path
) -> None:
    copied, shard = damaged_copy(corpus_folder, tmp_path)
    found = []
    for workers in (0, 1, 3):
        data = describe_data(copied, reading={"verify": "use"}, lanes=1)
        with open_maker(data, "text") as maker:
            loader = Loader(maker, global_batch_size=2, micro_batch_size=1)
            steps = []
            with pytest.raises(DamagedError) as error:
                steps += [step for step, _ in loader.iterate(workers)]
            assert len(str(error.value).splitlines()) == 1
            assert shard.name in str(error.value)
            found.append((type(error.value), str(error.value), loader.state()))
    assert found[0][2].windows > 0
    assert found == [found[0]] * 3
    assert_no_process_is_left()


def test_a_shard_that_was_left_out_stays_so_after_a_resume_on_other_ranks(
    corpus_folder: Path, tmp_path: Path
) -> None:
    copied, shard = damaged_copy(corpus_folder, tmp_path)
    data = describe_data(copied, reading={"on_damage": "skip"})
    open_one = partial(open_maker, data, "text")
    whole, last = run(open_one, Job(), 9)
    assert list(last.skipped) == ["corpus"]
    assert list(last.skipped["corpus"]) == [1]
    assert shard.name in last.skipped["corpus"][1]
    found, state = run(open_one, Job(2, 1), 3)
    assert state.skipped == run(open_one, Job(), 3)[1].skipped == last.skipped
    shutil.copy(corpus_folder / shard.name, shard)
    state = LoaderState.from_json(json.loads(json.dumps(state.to_json())))
    assert run(open_one, Job(2), 0, state)[1] == state
    for job in (Job(3, 0, 2), Job(4, 1)):
        more, state = run(open_one, job, 3, state)
        found.update(more)
    assert state == last
    for step, batches in found.items():
        assert_same(joined(batches), joined(whole[step]))
    repaired, healthy = run(open_one, Job(), 9)
    assert healthy.skipped == {}
    assert healthy.digest == last.digest, "the digest is of windows, not of what is left of them"
    texts = [sum(len(joined(read[step])["tokens"]) for step in read) for read in (whole, repaired)]
    assert texts[0] < texts[1] == 9 * GLOBAL_BATCH * 32 - short_windows(open_one, 9)


def short_windows(open_one: Any, steps: int) -> int:
    """Tokens by which the last window of each epoch that was read to its end is short of W."""
    with open_one() as maker:
        epochs, rest = divmod(steps * GLOBAL_BATCH, maker.stream.count)
        assert rest
        return int(epochs * (-maker.stream.split.info.tokens % 32))


def test_worker_processes_outlive_the_signals_that_end_a_job(corpus_folder: Path) -> None:
    """The rank saves first; Ctrl-C and a batch system's SIGTERM reach its workers as well."""
    with open_maker(describe_data(corpus_folder), "mlm") as maker:
        assert isinstance(maker, BatchMaker)
        loader = Loader(maker, global_batch_size=GLOBAL_BATCH)
        with closing(loader.iterate(2)) as iterator:
            next(iterator)
            workers = [child.pid for child in multiprocessing.active_children()]
            assert len(workers) == 2
            for pid in workers:
                os.kill(pid or 0, signal.SIGINT)
                os.kill(pid or 0, signal.SIGTERM)
            assert [step for step, _ in islice(iterator, 12)] == list(range(1, 13))
    assert_no_process_is_left()


def assert_tells_of_the_death(iterator: Any) -> None:
    began = time.monotonic()
    with pytest.raises(
        LostProcessError, match=r"a loader process has died \(killed by signal 9\); "
    ):
        next(iterator)
    assert time.monotonic() - began < patience(4)
    assert_no_process_is_left()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_who_dies_within_a_message_does_not_keep_its_reader_waiting(
    corpus_folder: Path, when: str
) -> None:
    """A message of this size does not fit in a pipe: the process writes until it is read."""
    with open_maker(describe_data(corpus_folder), "text") as maker:
        loader = Loader(maker, global_batch_size=500 * GLOBAL_BATCH)
        with closing(loader.iterate(1)) as iterator:
            next(iterator)
            state = loader.state()
            time.sleep(0.5)
            [child] = multiprocessing.active_children()
            os.kill(child.pid or 0, signal.SIGSTOP)
            if when == "before":
                child.kill()
                child.join()
            else:
                threading.Timer(0.5, os.kill, (child.pid, signal.SIGKILL)).start()
            assert_tells_of_the_death(iterator)
        assert loader.state() == state


def test_who_dies_with_a_lock_does_not_keep_the_loader_from_ending(
    corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch asks for this lock before it lets go of its processes."""
    started: list[Any] = []
    start = LoaderProcesses.start

    def remembered(self: LoaderProcesses, loader: Any) -> Any:
        started.append(start(self, loader))
        return started[-1]

    monkeypatch.setattr(LoaderProcesses, "start", remembered)
    with open_maker(describe_data(corpus_folder), "text") as maker:
        iterator = Loader(maker, global_batch_size=GLOBAL_BATCH).iterate(2)
        next(iterator)
        lock = started.pop()._workers_done_event._cond
        taker = multiprocessing.get_context("fork").Process(
            target=lambda: (lock.acquire(), os._exit(0))
        )
        taker.start()
        taker.join()
        began = time.monotonic()
        iterator.close()
        gc.collect()
        assert time.monotonic() - began < patience(4)
    assert_no_process_is_left()


def test_the_death_of_a_process_is_told_in_a_thread_too(corpus_folder: Path) -> None:
    with (
        open_maker(describe_data(corpus_folder), "text") as maker,
        closing(Loader(maker, global_batch_size=GLOBAL_BATCH).iterate(1)) as iterator,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(next, iterator).result()
        multiprocessing.active_children()[0].kill()
        time.sleep(0.2)
        pool.submit(assert_tells_of_the_death, iterator).result()


def test_a_handler_of_child_processes_is_left_to_its_script(corpus_folder: Path) -> None:
    """It hears of its own children, and no error of the loader comes up in other places."""
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGCHLD, hear)
    try:
        with open_maker(describe_data(corpus_folder), "text") as maker:
            for _ in range(2):
                with closing(Loader(maker, global_batch_size=GLOBAL_BATCH).iterate(1)) as iterator:
                    next(iterator)
                    assert signal.getsignal(signal.SIGCHLD) is hear
                    heard.clear()
                    subprocess.run(["true"], check=True)
                    assert heard
                    multiprocessing.active_children()[0].kill()
                    time.sleep(0.2)
                    assert_tells_of_the_death(iterator)
                assert signal.getsignal(signal.SIGCHLD) is hear
    finally:
        signal.signal(signal.SIGCHLD, before)


SCRIPT = """
import sys
from tests.data.loading import GLOBAL_BATCH, describe_data, open_maker
from megapt.data import Loader

with open_maker(describe_data(sys.argv[1], reading={"verify": "use"}), "text") as maker:
    iterator = Loader(maker, global_batch_size=GLOBAL_BATCH).iterate(2)
    for step, _ in iterator:
        if step == int(sys.argv[2]):
            raise SystemExit(3)
"""


@pytest.mark.parametrize(("stop", "code"), [(0, 3), (-1, 1)])
def test_a_script_that_closes_nothing_ends_all_the_same(
    corpus_folder: Path, tmp_path: Path, stop: int, code: int
) -> None:
    """It stops in the middle, or at a damaged shard; its workers ignore Python's SIGTERM."""
    where = corpus_folder if stop == 0 else damaged_copy(corpus_folder, tmp_path)[0]
    command = [sys.executable, "-c", SCRIPT, str(where), str(stop)]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(command, cwd=root, timeout=patience(60), capture_output=True, text=True)
    assert ended.returncode == code
    assert ("DamagedFile" in ended.stderr) == (code == 1)
