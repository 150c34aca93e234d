"""Where a loader starts, stops and refuses to go on."""

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

from megapt.data import BatchMaker, Loader, LoaderState
from megapt.data.processes import LoaderProcesses
from megapt.errors import ConfigError, DamagedError, LostProcessError
from tests.data.loading import (
    GLOBAL_BATCH,
    Job,
    assert_same,
    describe_data,
    joined,
    open_maker,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


@pytest.mark.parametrize(
    ("micro", "world"), [(5, 1), (GLOBAL_BATCH + 1, 1), (7, 2), (None, 5), (24, 4), (1, 96)]
)
def test_sizes_that_do_not_divide_are_refused(
    corpus_folder: Path, micro: int | None, world: int
) -> None:
    with (
        open_maker(describe_data(corpus_folder), "text") as maker,
        pytest.raises(ValueError, match=f"{GLOBAL_BATCH} windows does not divide by {world} ranks"),
    ):
        Loader(maker, global_batch=GLOBAL_BATCH, micro_batch=micro, world=world)


def begun_by(data: Any, **changes: Any) -> LoaderState:
    """The state of a run with these settings after one step, as a checkpoint holds it."""
    _, state = run(partial(open_maker, data, "text", **changes), Job(), 1)
    return LoaderState.from_json(json.loads(json.dumps(state.to_json())))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 33),
        ("policy", "whole"),
        ("lanes", 8),
        ("shuffle_span", 1),
        ("shuffle_blocks", 2),
        ("seed", 6),
        ("split", "valid"),
    ],
)
def test_a_resume_in_another_order_is_refused_by_the_name_of_what_differs(
    corpus_folder: Path, name: str, value: Any
) -> None:
    state = begun_by(describe_data(corpus_folder))
    of_maker = {name: value} if name in ("seed", "split") else {}
    data = describe_data(corpus_folder, **({} if of_maker else {name: value}))
    with open_maker(data, "text", **of_maker) as maker:
        loader = Loader(maker, global_batch=GLOBAL_BATCH)
        with pytest.raises(ConfigError) as error:
            loader.resume(state)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert f"{name} = {state.order[name]}, not {value}" in text


def test_a_resume_on_another_corpus_is_refused(corpus_folder: Path, small_folder: Path) -> None:
    state = begun_by(describe_data(corpus_folder))
    for where in ((small_folder,), (corpus_folder, small_folder)):
        with open_maker(describe_data(*where), "text") as maker:
            loader = Loader(maker, global_batch=GLOBAL_BATCH)
            with pytest.raises(ConfigError, match="read data with fingerprint = "):
                loader.resume(state)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": []},
        {"schedule": [{"step": 8, "weights": {"small": 4.5}}]},
        {"temperature": 1.0, "schedule": [{"step": 7, "weights": {"small": 4.25}}]},
    ],
)
def test_a_resume_with_other_weights_is_refused(
    corpus_folder: Path, small_folder: Path, change: dict[str, Any]
) -> None:
    usual = describe_data(corpus_folder, small_folder)
    state = begun_by(usual)
    assert usual.mixture is not None
    mixture = {**usual.mixture.model_dump(), **change}
    with open_maker(describe_data(corpus_folder, small_folder, mixture=mixture), "text") as maker:
        loader = Loader(maker, global_batch=GLOBAL_BATCH)
        with pytest.raises(ConfigError, match="read data with mixture = "):
            loader.resume(state)


def test_a_resume_within_a_global_batch_is_refused(corpus_folder: Path) -> None:
    with open_maker(describe_data(corpus_folder), "text") as maker:
        state = LoaderState(maker.stream.identity, 3 * GLOBAL_BATCH)
        loader = Loader(maker, global_batch=2 * GLOBAL_BATCH)
        with pytest.raises(ConfigError, match=f"{3 * GLOBAL_BATCH} windows are no whole number"):
            loader.resume(state)
        Loader(maker, global_batch=3 * GLOBAL_BATCH).resume(state)


def test_a_resume_with_another_global_batch_goes_on_with_the_same_windows(
    corpus_folder: Path,
) -> None:
    open_one = partial(open_maker, describe_data(corpus_folder), "text")
    _, whole = run(open_one, Job(), 4)
    _, half = run(open_one, Job(), 2)
    with open_one() as maker:
        loader = Loader(maker, global_batch=2 * GLOBAL_BATCH)
        loader.resume(half)
        ((step, _),) = islice(loader.iterate(), 1)
        assert step == 1
        assert loader.state() == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_iteration_goes_on_where_the_first_was_stopped(
    corpus_folder: Path, workers: int
) -> None:
    open_one = partial(open_maker, describe_data(corpus_folder), "text")
    whole, state = run(open_one, Job(), 5)
    with open_one() as maker:
        loader = Loader(maker, global_batch=GLOBAL_BATCH)
        read = []
        for steps in (2, 3):
            with closing(loader.iterate(workers)) as iterator:
                read += list(islice(iterator, steps))
        assert [step for step, _ in read] == list(range(5))
        for step, batches in read:
            assert_same(joined(batches), joined(whole[step]))
        assert loader.state() == state


def test_a_loader_that_has_read_on_can_be_set_back(corpus_folder: Path) -> None:
    open_one = partial(open_maker, describe_data(corpus_folder), "text")
    _, early = run(open_one, Job(), 2)
    _, late = run(open_one, Job(), 5)
    with open_one() as maker:
        loader = Loader(maker, global_batch=GLOBAL_BATCH)
        list(islice(loader.iterate(), 4))
        loader.resume(early)
        assert loader.state() == early
        assert [step for step, _ in islice(loader.iterate(), 3)] == [2, 3, 4]
        assert loader.state() == late


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_iteration_ends_with_the_last_whole_batch_of_a_capped_mixture(
    corpus_folder: Path, small_folder: Path, workers: int
) -> None:
    corpora = {
        "large": {"path": str(corpus_folder), "weight": 1.0, "max_epochs": 0.5},
        "small": {"path": str(small_folder), "weight": 1.0, "max_epochs": 1.0},
    }
    data = describe_data(corpus_folder, small_folder, mixture={"corpora": corpora})
    with open_maker(data, "text") as maker:
        total = maker.stream.total
        assert total is not None
        loader = Loader(maker, global_batch=GLOBAL_BATCH)
        steps = [step for step, _ in loader.iterate(workers)]
        assert steps == list(range(total // GLOBAL_BATCH))
        assert total % GLOBAL_BATCH
        state = loader.state()
        assert state.windows == len(steps) * GLOBAL_BATCH
        assert list(loader.iterate(workers)) == []
        again = Loader(maker, global_batch=GLOBAL_BATCH)
        again.resume(state)
        assert list(again.iterate(workers)) == []
        assert again.state() == state


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
            loader = Loader(maker, global_batch=2, micro_batch=1)
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
        loader = Loader(maker, global_batch=GLOBAL_BATCH)
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
    assert time.monotonic() - began < 4, "torch looks every five seconds"
    assert_no_process_is_left()


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_who_dies_within_a_message_does_not_keep_its_reader_waiting(
    corpus_folder: Path, when: str
) -> None:
    """A message of this size does not fit in a pipe: the process writes until it is read."""
    with open_maker(describe_data(corpus_folder), "text") as maker:
        loader = Loader(maker, global_batch=500 * GLOBAL_BATCH)
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
        iterator = Loader(maker, global_batch=GLOBAL_BATCH).iterate(2)
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
        assert time.monotonic() - began < 4
    assert_no_process_is_left()


def test_the_death_of_a_process_is_told_in_a_thread_too(corpus_folder: Path) -> None:
    with (
        open_maker(describe_data(corpus_folder), "text") as maker,
        closing(Loader(maker, global_batch=GLOBAL_BATCH).iterate(1)) as iterator,
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
                with closing(Loader(maker, global_batch=GLOBAL_BATCH).iterate(1)) as iterator:
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
    iterator = Loader(maker, global_batch=GLOBAL_BATCH).iterate(2)
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
    ended = subprocess.run(command, cwd=root, timeout=60, capture_output=True, text=True)
    assert ended.returncode == code
    assert ("DamagedFile" in ended.stderr) == (code == 1)
