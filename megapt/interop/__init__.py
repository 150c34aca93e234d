"""Export of runs to the formats of other tools."""

from megapt.interop.export import EXPORTERS, export_run
from megapt.interop.exporters.base import Exporter

__all__ = ["EXPORTERS", "Exporter", "export_run"]
