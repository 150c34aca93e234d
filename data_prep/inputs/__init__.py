"""Input: local and remote files of many formats, read as a stream of documents."""

from data_prep.inputs.documents import Document, Tally, read_documents
from data_prep.inputs.fields import Label
from data_prep.inputs.places import Place, SourceFile
from data_prep.inputs.settings import ErrorPolicy, InputFormat, InputSettings, TextSplit
from data_prep.inputs.sources import find_files
from data_prep.inputs.units import UNIT_BYTES, Unit, plan_units

__all__ = [
    "UNIT_BYTES",
    "Document",
    "ErrorPolicy",
    "InputFormat",
    "InputSettings",
    "Label",
    "Place",
    "SourceFile",
    "Tally",
    "TextSplit",
    "Unit",
    "find_files",
    "plan_units",
    "read_documents",
]
