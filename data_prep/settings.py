"""The settings of a build: everything that shapes the content of a corpus, and its output."""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.cleaning import CleaningSteps
from data_prep.dedup.settings import DedupSettings
from data_prep.inputs import ErrorPolicy, InputSettings
from data_prep.manifest import FORMAT

UNNAMED = ""
"""The name of the only corpus of a build, if the user gave it none."""

# Incremented when the same text would get other tokens, marks or another split than before. A
# corpus of older rules is then never mistaken for a corpus of the current ones.
RULES: Final = 2


class BuildSettings(BaseModel):
    """Everything that decides the bytes of a corpus, except the input and the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpora: dict[str, InputSettings] = Field(min_length=1, max_length=1 << 16)
    """The corpora that are built together, by name, and how each is read; in the order of their
    documents."""
    errors: ErrorPolicy = "stop"
    """What to do about a faulty record."""
    cleaning: CleaningSteps = ()
    """Cleaning steps that are applied to texts, in order."""
    deduplicate: DedupSettings = DedupSettings()
    """Which duplicates are dropped; the first in the input stays."""
    words: Literal["pieces", "jieba"] = "pieces"
    """Where words start in Chinese, Japanese and Korean text: at each "piece" of the tokenizer, or
    where the segmenter "jieba" says."""
    valid_fraction: float = Field(default=0.01, gt=0, lt=1)
    """Expected share of validation documents (or groups)."""
    seed: int = Field(default=0, ge=0, lt=1 << 64)
    """Seed of the split."""
    block_tokens: int = Field(default=1 << 17, gt=0, lt=1 << 32)
    """A block ends once it holds this many tokens."""
    shard_tokens: int = Field(default=1 << 27, gt=0, lt=1 << 62)
    """A shard ends once it holds this many tokens."""
    record_seconds: float = Field(default=60.0, gt=0, le=1e6)
    """Seconds that a document may take for each started MB of its size."""
    max_poisonous: int = Field(default=10, ge=0)
    """Largest number of documents that may be rejected because a step crashed or took too long;
    more stop the build."""
    rules: Literal[2] = RULES
    """Version of the rules for marks and splits."""
    format: Literal["megapt-shards/3"] = FORMAT
    """Version of the shard format."""

    @classmethod
    def of_files(cls, *paths: str | Path, **options: Any) -> "BuildSettings":
        """Create the settings for one corpus without a name.

        Args:
            paths: files, folders, globs and URLs.
            options: fields of `InputSettings` and of this class.
        """
        names = set(options) & set(InputSettings.model_fields)
        reading = {name: options.pop(name) for name in names}
        corpus = InputSettings(paths=tuple(map(str, paths)), **reading)
        return cls(corpora={UNNAMED: corpus}, **options)

    @property
    def names(self) -> list[str]:
        """Names of the corpora; empty if there is one corpus without a name."""
        return [] if list(self.corpora) == [UNNAMED] else list(self.corpora)

    @property
    def keeps_ids(self) -> bool:
        """Whether the shards hold the documents' ids: True if any corpus has an `id_field`."""
        return any(corpus.id_field for corpus in self.corpora.values())


class BuildConfig(BuildSettings):
    """A config file of `megapt-prep build`, with the options of the command line."""

    tokenizer: Path | None = None
    """A tokenizer's file, or a folder that holds one."""
    output: str | None = None
    """The corpus folder, or a URL."""

    @property
    def settings(self) -> BuildSettings:
        """The settings that shape the content."""
        return BuildSettings(**{name: getattr(self, name) for name in BuildSettings.model_fields})
