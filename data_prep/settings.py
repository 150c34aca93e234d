"""The settings of a build: what shapes the content of a corpus, and where it is written."""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.cleaning import CleaningSteps
from data_prep.dedup.settings import DedupSettings
from data_prep.inputs import ErrorPolicy, InputSettings
from data_prep.manifest import FORMAT

UNNAMED = ""
"""The name of a corpus that is the only one and was given none."""

# Raised when the same text would get other tokens, marks or another split than before, so
# that a corpus is never taken for the one that today's rules would build.
RULES: Final = 2


class BuildSettings(BaseModel):
    """Everything beside the input and the tokenizer that decides the bytes of a corpus.

    Attributes:
        corpora: by name, the corpora that are built together and how each is read; in the
            order of their documents.
        errors: what is done about a faulty record.
        cleaning: what is done to texts, step by step.
        deduplicate: which duplicates are dropped; the first in the input stays.
        words: where words start in Chinese, Japanese and Korean text: at each "piece" of the
            tokenizer, or where the segmenter "jieba" says.
        valid_fraction: expected share of validation documents (or groups).
        seed: of the split.
        block_tokens: a block is closed once it holds as many tokens.
        shard_tokens: a shard is closed once it holds as many tokens.
        record_seconds: time that a document may take for each started MB of it.
        max_poisonous: documents that may be left out because a step crashed or took too long;
            more stop the build.
        rules: version of the rules for marks and splits.
        format: version of the shard format.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpora: dict[str, InputSettings] = Field(min_length=1, max_length=1 << 16)
    errors: ErrorPolicy = "stop"
    cleaning: CleaningSteps = ()
    deduplicate: DedupSettings = DedupSettings()
    words: Literal["pieces", "jieba"] = "pieces"
    valid_fraction: float = Field(default=0.01, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=1 << 64)
    block_tokens: int = Field(default=1 << 17, gt=0, lt=1 << 32)
    shard_tokens: int = Field(default=1 << 27, gt=0, lt=1 << 62)
    record_seconds: float = Field(default=60.0, gt=0, le=1e6)
    max_poisonous: int = Field(default=10, ge=0)
    rules: Literal[2] = RULES
    format: Literal["megapt-shards/3"] = FORMAT

    @classmethod
    def of_files(cls, *paths: str | Path, **options: Any) -> "BuildSettings":
        """The settings for one corpus without a name.

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
        """Names of the corpora; empty if there is one without a name."""
        return [] if list(self.corpora) == [UNNAMED] else list(self.corpora)

    @property
    def keeps_ids(self) -> bool:
        """Whether shards hold the documents' ids: where a field is read for them."""
        return any(corpus.id_field for corpus in self.corpora.values())


class BuildConfig(BuildSettings):
    """A config file of `megapt-prep build`, with what the command line adds to it.

    Attributes:
        tokenizer: a tokenizer's file, or a folder that holds one.
        output: the corpus folder, or a URL.
    """

    tokenizer: Path | None = None
    output: str | None = None

    @property
    def settings(self) -> BuildSettings:
        """The part that shapes the content."""
        return BuildSettings(**{name: getattr(self, name) for name in BuildSettings.model_fields})
