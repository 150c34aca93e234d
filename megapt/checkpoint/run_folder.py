"""The folder of a run: its configuration, its environment, its corpus and its results."""

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
from megapt.config.migration import migrated, original
from megapt.data import AnyCorpus, TextFacts, Vocabulary
from megapt.errors import ConfigError, DamagedError
from megapt.files import write_json, write_text
from megapt.objectives import Context, Objective, build_objective
from megapt.registry import PartError, read_source

_MAY_CHANGE = (
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
"""Settings that may change when a run is resumed, because they do not change what it computes. A
corpus may move; its fingerprint is compared instead of its path."""
_MAY_CHANGE_PATTERNS = (
    "data.reading.*",
    "data.mixture.corpora.*.path",
    "parallel.*",
    "checkpoint.*",
    "faults.*",
    "monitor.*",
)
_FIRST_FILES = {"corpus.json", *TOKENIZER_NAMES, "environment.json", "config.yaml", "checkpoints"}
"""All that a run may leave if it is killed at its start, when it may have fetched copies of
checkpoints."""


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted path -> value, for all settings in the sections of a configuration."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json(file: Path, *keys: str) -> dict[str, Any]:
    """Return the JSON object in a file of a run, which must have these keys.

    Raises:
        DamagedError: the file is missing or corrupt.
    """
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not set(keys) <= values.keys():
            raise ValueError("a key is missing")
    except FileNotFoundError:
        raise DamagedError(f"{file}: missing from the run") from None
    except (ValueError, AttributeError):
        raise DamagedError(f"{file}: corrupt: not what megapt wrote") from None
    return values


def _sections(section: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted path, settings) of an objective and of all members of mixtures in it."""
    if not isinstance(section, dict):
        return
    yield path, section
    members = section.get("members")
    for name, member in members.items() if isinstance(members, dict) else ():
        yield from _sections(member, f"{path}.members.{name}")


def _parts(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (dotted path, settings) of all parts that a user's Python file may define."""
    yield from _sections(values.get("objective"), "objective")
    yield "optimizer", values["optimizer"]
    # A part without settings is only a name.
    if isinstance(values["training"]["attention"], dict):
        yield "training.attention", values["training"]["attention"]
    for tracker in values["monitor"]["trackers"]:
        if isinstance(tracker, dict):
            yield f"monitor.trackers.{tracker['name']}", tracker


def compared(values: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return the values that are compared when a run is resumed, by dotted path."""
    flat = flatten(values)
    flat["corpus fingerprint"] = fingerprint
    for path, section in _sections(values.get("objective"), "objective"):
        if isinstance(section.get("members"), dict):  # Draws depend on their order.
            flat[f"order of {path}.members"] = ", ".join(section["members"])
    return flat


def may_change(key: str) -> bool:
    """Return whether the setting at a dotted path may change when a run is resumed."""
    return key in _MAY_CHANGE or any(fnmatchcase(key, pattern) for pattern in _MAY_CHANGE_PATTERNS)


def objective_context(corpus: TextFacts, config: RunConfig) -> Context:
    """Return what objectives know of a corpus and of the run that reads it."""
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
    """Write the Python files of user-defined parts to a folder, named by their dotted paths."""
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
        """Whether the run has reached the end of its budget."""
        return self.summary_file.is_file()

    def summary(self) -> dict[str, Any]:
        """Return the final results of a finished run.

        Raises:
            DamagedError: the file is missing or corrupt.
        """
        summary = _read_json(self.summary_file)
        if "heldout" in summary:  # of an earlier version
            summary["validation"] = summary.pop("heldout")
        return summary

    def check(self, config: RunConfig, fingerprint: str) -> None:
        """Refuse a folder with a run of another configuration or corpus, or with other files.

        The Python files of user-defined parts are read here. `create` writes this content into the
        folder, even if the files have changed since.

        Raises:
            ConfigError: the folder is refused; the text names what differs.
            DamagedError: a file of the run is missing or corrupt.
        """
        now = compared(config.model_dump(), fingerprint)
        self._sources = self._read_sources(config)
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not existing.is_dir():
            raise ConfigError(f"{existing}: is a file; choose another folder for 'output'")
        if existing != self.folder:
            return
        if not self.config_file.is_file():
            # The folder is empty, or a run was killed while `create` wrote it.
            first = _FIRST_FILES | {self._source_file(path).name for path in self._sources}
            if {path.name.removesuffix(".partial") for path in self.folder.iterdir()} <= first:
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
            copy = self._source_file(path)
            if not copy.is_file():
                raise DamagedError(f"{copy}: missing from the run")
            if copy.read_bytes() != source:
                raise ConfigError(
                    f"{self.folder}: holds a run whose {file} was as in {copy}, and {now[file]} "
                    f"differs; choose another folder for 'output', or remove this one"
                )
            now[file] = before[file]  # The file may move; its content was compared.
        for key in sorted({*before, *now}):
            if not may_change(key) and before.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.folder}: holds a run with {key} = {before.get(key)}, not "
                    f"{now.get(key)}; choose another folder for 'output', or remove this one"
                )

    def identity(self, config: RunConfig, fingerprint: str) -> str:
        """Return a digest that identifies the run, wherever its files are."""
        values = config.model_dump()
        keys = compared(values, fingerprint)
        same = {
            first: value
            for (key, value), first in zip(
                keys.items(), compared(original(values), fingerprint), strict=True
            )
            if not (may_change(key) or key.endswith(".file") or key == "branch.run")
        }
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()

    def _source_file(self, path: str) -> Path:
        """Return the path of the kept Python file of the part at a dotted path."""
        return self.folder / f"{path}.py"

    def _read_sources(self, config: RunConfig) -> dict[str, bytes]:
        """Return dotted path of each user-defined part -> content of its Python file."""
        sources = {}
        for path, section in _parts(config.model_dump()):
            if section.get("file") is not None:
                with suppress(PartError):  # reported when the part is built
                    sources[path] = read_source(section["file"])
        return sources

    def create(self, config: RunConfig, corpus: AnyCorpus, world: int) -> None:
        """Write the configuration, the versions and what later commands need of the corpus.

        Also write the Python files of user-defined parts, as `check` has read them.

        Args:
            config: configuration of the run.
            corpus: corpus that the run is trained on.
            world: number of ranks.
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
        """Read the configuration of the run.

        Raises:
            ConfigError: the folder holds no run, or a run of another version of megapt.
            DamagedError: the file is corrupt.
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
            raise DamagedError(f"{self.config_file}: corrupt: not the YAML that megapt wrote")
        return migrated(values)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the corpus that the run was trained on.

        Raises:
            DamagedError: the file that records it is missing or corrupt.
        """
        return str(self._corpus()["fingerprint"])

    @property
    def ranks(self) -> int:
        """Number of ranks that trained the run.

        Raises:
            DamagedError: the file that records it is missing or corrupt.
        """
        return int(_read_json(self.environment_file, "ranks")["ranks"])

    def _corpus(self) -> dict[str, Any]:
        keys = ("fingerprint", "labels", "label_counts", "vocabulary")
        return _read_json(self.corpus_file, *keys)

    def objective(self, config: RunConfig) -> Objective:
        """Build the run's objective without its corpus, from the Python files in the run folder."""
        values = config.objective.model_dump()
        for path, section in _sections(values, "objective"):
            if section.get("file") is not None:
                section["file"] = str(self._source_file(path))
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
