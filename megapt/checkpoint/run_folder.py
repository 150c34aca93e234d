"""The folder of a run: what it was asked to do, with what, and what it left."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

import megapt
from data_prep.files import write_atomically
from data_prep.tokenizers import TOKENIZER_NAMES
from megapt.config import ObjectiveSection, Origins, RunConfig, validate
from megapt.config.migration import migrated
from megapt.data import AnyCorpus, TextFacts, Vocabulary
from megapt.errors import ConfigError, DamagedError
from megapt.files import write_json, write_text
from megapt.objectives import Context, Objective, build_objective
from megapt.registry import PartError, read_source

_FREE = (
    "output",
    "data.corpus",
    "data.num_workers",
    "training.validate_every",
    "training.validation_windows",
    "training.log_every",
    "training.micro_batch_size",
    "training.recompute",
    "training.recompute_every",
    "training.compile",
    "training.deterministic",
)
"""Settings that may change when a run is resumed: they do not touch what it computes. A corpus
may move; its fingerprint is what counts."""
_FREE_PATTERNS = (
    "data.reading.*",
    "data.mixture.corpora.*.path",
    "parallel.*",
    "checkpoint.*",
    "faults.*",
    "monitor.*",
)


_BEGUN = {"corpus.json", *TOKENIZER_NAMES, "environment.json", "config.yaml", "checkpoints"}
"""What a run that was killed at its very beginning leaves, at most; copies of checkpoints may have
been fetched."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted path -> value of a configuration's sections."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json(file: Path, *keys: str) -> dict[str, Any]:
    """Return the JSON object in a file of a run, which has these keys.

    Raises:
        DamagedError: it is missing or damaged.
    """
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not set(keys) <= values.keys():
            raise ValueError("a key is missing")
    except FileNotFoundError:
        raise DamagedError(f"{file}: missing from the run") from None
    except (ValueError, AttributeError):
        raise DamagedError(f"{file}: damaged: not what megapt wrote") from None
    return values


def _sections(section: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted path, settings) of an objective and of all that it is a mixture of."""
    if not isinstance(section, dict):
        return
    yield path, section
    members = section.get("members")
    for name, member in members.items() if isinstance(members, dict) else ():
        yield from _sections(member, f"{path}.members.{name}")


def _parts(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted path, settings) of all that may come from a Python file of the user's own."""
    yield from _sections(values.get("objective"), "objective")
    yield "optimizer", values["optimizer"]
    # A part without settings is a name alone.
    if isinstance(values["training"]["attention"], dict):
        yield "training.attention", values["training"]["attention"]
    for tracker in values["monitor"]["trackers"]:
        if isinstance(tracker, dict):
            yield f"monitor.trackers.{tracker['name']}", tracker


def compared(values: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return what is to be the same when a run is resumed, by dotted path."""
    flat = flatten(values)
    flat["corpus fingerprint"] = fingerprint
    for path, section in _sections(values.get("objective"), "objective"):
        if isinstance(section.get("members"), dict):  # A window's draw goes by their order.
            flat[f"order of {path}.members"] = ", ".join(section["members"])
    return flat


def is_free(key: str) -> bool:
    """Whether the setting at a dotted path may change when a run is resumed."""
    return key in _FREE or any(fnmatchcase(key, pattern) for pattern in _FREE_PATTERNS)


def objective_context(corpus: TextFacts, config: RunConfig) -> Context:
    """Return what objectives are told of a corpus and of the run that reads it."""
    return Context(
        corpus.vocabulary,
        config.data.window,
        tuple(corpus.labels),
        unlabeled=corpus.unlabeled,
        label_counts=tuple(corpus.label_counts),
        documents=corpus.documents,
        tokens=corpus.tokens,
        steps=config.planned_steps,
    )


def keep_sources(folder: Path, sources: Mapping[str, bytes]) -> None:
    """Write the Python files of the user's own parts into a folder, named by their dotted paths."""
    for path, source in sources.items():
        write_atomically(folder / f"{path}.py", source)


class RunFolder:
    """Paths and records of one run.

    Args:
        folder: the run folder; it need not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config_file = self.folder / "config.yaml"
        self.environment_file = self.folder / "environment.json"
        self.corpus_file = self.folder / "corpus.json"
        self.metrics_file = self.folder / "metrics.jsonl"
        self.summary_file = self.folder / "summary.json"
        self.checkpoints = self.folder / "checkpoints"
        self._sources: dict[str, bytes] = {}

    @property
    def finished(self) -> bool:
        """Whether the run reached the end of its budget."""
        return self.summary_file.is_file()

    def summary(self) -> dict[str, Any]:
        """Return the last figures of a finished run.

        Raises:
            DamagedError: if they are not what megapt wrote.
        """
        return _read_json(self.summary_file)

    def check(self, config: RunConfig, fingerprint: str) -> None:
        """Refuse a folder that holds a run of another configuration or corpus, or no run at all.

        The Python files of the user's own parts are read here, and `create` keeps them as
        they are now, however long it is until then.

        Raises:
            ConfigError: naming what differs.
            DamagedError: a file of the run is missing or damaged.
        """
        now = compared(config.model_dump(), fingerprint)
        self._sources = self._read_sources(config)
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not existing.is_dir():
            raise ConfigError(f"{existing}: is a file; choose another folder for 'output'")
        if existing != self.folder:
            return
        if not self.config_file.is_file():
            # Nothing, or what `create` had written when it was killed.
            begun = _BEGUN | {self._copy(path).name for path in self._sources}
            if {path.name.removesuffix(".partial") for path in self.folder.iterdir()} <= begun:
                return
            raise ConfigError(
                f"{self.folder}: holds files but no run; choose another folder for 'output'"
            )
        if config.checkpoint.resume == "never":
            raise ConfigError(
                f"{self.folder}: holds a run, and checkpoint.resume is 'never'; choose another "
                f"folder for 'output'"
            )
        before = compared(self._values(), self.fingerprint)
        for path, source in self._sources.items():
            file = f"{path}.file"
            if before.get(file) is None:
                continue
            copy = self._copy(path)
            if not copy.is_file():
                raise DamagedError(f"{copy}: missing from the run")
            if copy.read_bytes() != source:
                raise ConfigError(
                    f"{self.folder}: holds a run whose {file} was as in {copy}, and {now[file]} "
                    f"differs; choose another folder for 'output', or remove this one"
                )
            now[file] = before[file]  # It may move; its content is what counts.
        for key in sorted({*before, *now}):
            if not is_free(key) and before.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.folder}: holds a run with {key} = {before.get(key)}, not "
                    f"{now.get(key)}; choose another folder for 'output', or remove this one"
                )

    def identity(self, config: RunConfig, fingerprint: str) -> str:
        """Return a digest of what makes a run this one, wherever its files are."""
        same = {
            key: value
            for key, value in compared(config.model_dump(), fingerprint).items()
            if not (is_free(key) or key.endswith(".file") or key == "branch.run")
        }
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()

    def _copy(self, path: str) -> Path:
        """Return where the Python file of the part at a dotted path is kept."""
        return self.folder / f"{path}.py"

    def _read_sources(self, config: RunConfig) -> dict[str, bytes]:
        """Return dotted path of a part of the user's own -> content of its Python file."""
        sources = {}
        for path, section in _parts(config.model_dump()):
            if section.get("file") is not None:
                with suppress(PartError):  # told when the part is built
                    sources[path] = read_source(section["file"])
        return sources

    def create(self, config: RunConfig, corpus: AnyCorpus, world: int) -> None:
        """Write down the configuration, the versions and what later use needs of the corpus.

        Also the Python files of the user's own parts, as `check` read them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(
            self.corpus_file,
            {
                "fingerprint": corpus.fingerprint,
                "labels": list(corpus.labels),
                "label_counts": list(corpus.label_counts),
                "vocabulary": corpus.vocabulary.model_dump(),
            },
        )
        tokenizer = corpus.tokenizer_file()
        write_atomically(self.folder / tokenizer.name, tokenizer.read_bytes())
        keep_sources(self.folder, self._sources)
        packages = ("torch", "deepspeed", "numpy", "sentencepiece", "webdataset")
        write_json(
            self.environment_file,
            {
                "python": platform.python_version(),
                "megapt": megapt.__version__,
                **{package: version(package) for package in packages},
                "cuda": torch.version.cuda,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                "processor": platform.processor() or platform.machine(),
                "ranks": world,
            },
        )
        # Last, because its presence makes the folder a run.
        text = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
        write_text(self.config_file, text)

    def load_config(self) -> RunConfig:
        """Read the run's own configuration.

        Raises:
            ConfigError: if the folder holds no run, or one of another version of megapt.
            DamagedError: if what it holds is damaged.
        """
        if not self.config_file.is_file():
            raise ConfigError(f"{self.folder}: no run here (it has no config.yaml)")
        return validate(RunConfig, self._values(), Origins(default=str(self.config_file)))

    def _values(self) -> dict[str, Any]:
        try:
            values = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            values = None
        if not isinstance(values, dict):
            raise DamagedError(f"{self.config_file}: damaged: not the YAML that megapt wrote")
        return migrated(values)

    @property
    def fingerprint(self) -> str:
        """Of the corpus that the run was trained on.

        Raises:
            DamagedError: the file that tells is missing or damaged.
        """
        return str(self._corpus()["fingerprint"])

    @property
    def ranks(self) -> int:
        """How many ranks trained the run.

        Raises:
            DamagedError: the file that tells is missing or damaged.
        """
        return int(_read_json(self.environment_file, "ranks")["ranks"])

    def _corpus(self) -> dict[str, Any]:
        keys = ("fingerprint", "labels", "label_counts", "vocabulary")
        return _read_json(self.corpus_file, *keys)

    def objective(self, config: RunConfig) -> Objective:
        """Build the run's objective without its corpus, from the Python files that it keeps."""
        values = config.objective.model_dump()
        for path, section in _sections(values, "objective"):
            if section.get("file") is not None:
                section["file"] = str(self._copy(path))
        kept = ObjectiveSection.model_validate(values)
        corpus = self._corpus()
        vocabulary = Vocabulary.model_validate(corpus["vocabulary"])
        context = Context(
            vocabulary,
            config.data.window,
            tuple(corpus["labels"]),
            label_counts=tuple(corpus["label_counts"]),
            steps=config.planned_steps,
        )
        return build_objective(kept, context, Origins(default=str(self.config_file)))
