"""Settings of the input: which files, which format and which fields are read."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ErrorPolicy = Literal["stop", "skip", "replace"]
InputFormat = Literal["auto", "jsonl", "json", "text", "parquet", "csv", "tsv"]
TextSplit = Literal["file", "paragraph", "line", "separator"]

DEFAULT_LABEL_FIELD = "label"


class InputSettings(BaseModel):
    """The files of one corpus and how they are read.

    A field is a member of a JSON object or a column of a table. `meta.lang` names the field
    `lang` inside `meta`, unless there is a field with the dot in its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders, globs and URLs, in the order of their documents."""
    format: InputFormat = "auto"
    """Format of the files; "auto" decides by the suffix of each file."""
    text_field: str = Field(default="text", min_length=1)
    """Field that holds the text."""
    label_field: str | None = None
    """Field that holds the label; None uses "label" where it exists, "" ignores labels."""
    id_field: str | None = Field(default=None, min_length=1)
    """Field that holds the document's own id; None reads no ids."""
    group_field: str | None = Field(default=None, min_length=1)
    """Field whose value groups documents: those with the same value go to the same side of the
    train/valid split. None groups documents with the same text."""
    split_text: TextSplit = "file"
    """What a document is in a text file: the whole file; the lines between blank lines
    ("paragraph"); a line; or the lines between lines that equal `separator`."""
    separator: str | None = None
    """The separator line, without white space around it."""

    @model_validator(mode="after")
    def _check_separator(self) -> "InputSettings":
        if (self.split_text == "separator") != (self.separator is not None):
            raise ValueError("split_text: separator and a separator must be given together")
        if self.separator is not None and (
            self.separator.strip() != self.separator or len(self.separator.splitlines()) != 1
        ):
            raise ValueError(
                f"separator {self.separator!r}: must be one line, without white space around "
                'it; to split at blank lines, use split_text "paragraph"'
            )
        return self

    @property
    def label_name(self) -> str:
        """The field that is read for the label; "" for none."""
        return DEFAULT_LABEL_FIELD if self.label_field is None else self.label_field

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that are read, without repeats, the text field first."""
        names = (self.text_field, self.label_name, self.id_field, self.group_field)
        return tuple(dict.fromkeys(name for name in names if name))
