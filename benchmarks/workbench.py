"""Inputs of the cases of `preparation.py`: parts of the corpus, models, and commands."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import Case, Finished, Sample, cut_corpus, run

PEERS = (str(Path(__file__).with_name("peers.py")),)
PARTS = 4  # Files of the small part: datatrove assigns whole files to tasks.


class Cut(NamedTuple):
    """A part of the corpus, and its bytes of text."""

    path: Path
    text_bytes: int


class Bench:
    """The inputs, the models and the commands of one run.

    Args:
        text: a .jsonl file of the benchmark corpus.
        work: folder for everything that is written.
        prep: the `megapt-prep` command.
        peer_python: an interpreter that has datatrove.
        small_mb: text of the part for slow tokenizers, in MB.
    """

    def __init__(
        self, text: Path, work: Path, prep: list[str], peer_python: str, small_mb: float
    ) -> None:
        self.work = work
        self.prep = prep
        self.peer_python = peer_python
        self.full = Cut(text, sum(len(document.encode()) for document in _texts(text)))
        work.mkdir(parents=True, exist_ok=True)
        self.tiny = self._cut("tiny", self.full.text_bytes // 100)
        self.tenth = self._cut("tenth", self.full.text_bytes // 10)
        self.small = self._cut("small", int(small_mb * 1e6))
        self.parts = Cut(work / "parts", self.small.text_bytes)
        self._deal()

    def _cut(self, name: str, text_bytes: int) -> Cut:
        """Write the first lines of the corpus, up to a size."""
        path = self.work / f"{name}.jsonl"
        return Cut(path, cut_corpus(self.full.path, path, text_bytes))

    def _deal(self) -> None:
        """Distribute the small part over several files."""
        shutil.rmtree(self.parts.path, ignore_errors=True)
        self.parts.path.mkdir()
        with open(self.small.path, encoding="utf-8") as file:
            lines = file.readlines()
        for part in range(PARTS):
            (self.parts.path / f"{part}.jsonl").write_text("".join(lines[part::PARTS]), "utf-8")

    def model(self, kind: str) -> Path:
        """Return a SentencePiece model of 32,000 pieces, "unigram" or "bpe"; it is trained once."""
        folder = self.work / kind
        if not (folder / "tokenizer.model").exists():
            command = [*self.prep, "tokenizer", "--input", str(self.full.path)]
            command += ["--output", str(folder), "--vocab-size", "32000", "--model", kind]
            run([*command, "--sample-mb", "20"])
        return folder / "tokenizer.model"

    def json_tokenizer(self) -> Path:
        """Return a byte-level BPE tokenizer.json of 32,000 pieces; it is trained once."""
        path = self.work / "tokenizer.json"
        if not path.exists():
            command = [self.peer_python, *PEERS, "train", "--output", str(path)]
            run([*command, "--input", str(self.small.path)])
        return path

    def output(self) -> Path:
        """Return a corpus folder; it and its work folder do not exist."""
        path = self.work / "corpus"
        for folder in (path, partial_folder(path)):
            shutil.rmtree(folder, ignore_errors=True)
        return path

    def build_command(self, cut: Cut, tokenizer: Path, workers: int, output: Path) -> list[str]:
        """Return the command `megapt-prep build`."""
        command = [*self.prep, "build", "--input", str(cut.path), "--tokenizer", str(tokenizer)]
        return [*command, "--output", str(output), "--workers", str(workers)]

    def build(self, name: str, cut: Cut, tokenizer: Path, workers: int) -> Case:
        """Return a case: the whole command on as many cores as it has workers."""

        def measure() -> Sample:
            command = self.build_command(cut, tokenizer, workers, self.output())
            return _sample(run(command, workers))

        return Case(name, cut.text_bytes, measure)

    def peer(self, peer: str, cut: Cut, tokenizer: Path, workers: int, python: str) -> Case:
        """Return a case: the whole command of a peer on as many cores as it has workers."""
        command = [python, *PEERS, peer, "--input", str(cut.path), "--tokenizer", str(tokenizer)]
        command += ["--output", str(self.work / "corpus"), "--workers", str(workers)]

        def measure() -> Sample:
            self.output()
            finished = run(command, workers)
            return _sample(finished, json.loads(finished.output.splitlines()[-1])["tokens"])

        return Case(f"{peer}, {workers}", cut.text_bytes, measure)

    def bare(self, model: Path) -> Case:
        """Return a case: the loop over texts in memory, without start and reading."""
        command = [sys.executable, *PEERS, "bare", "--input", str(self.full.path)]

        def measure() -> Sample:
            finished = run([*command, "--tokenizer", str(model)], 1)
            said = json.loads(finished.output)
            return Sample(said["seconds"], said["cpu_seconds"], finished.peak_bytes, said["tokens"])

        return Case("bare encode", self.full.text_bytes, measure)


def partial_folder(output: Path) -> Path:
    """Return the folder where a build keeps finished work."""
    return output.with_name(output.name + ".partial")


def _sample(finished: Finished, tokens: int = 0) -> Sample:
    return Sample(finished.seconds, finished.cpu_seconds, finished.peak_bytes, tokens)


def _texts(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
