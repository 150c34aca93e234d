"""Marks: the tokens of a text at which words and sentences start."""

from data_prep.marks.marker import Marker

__all__ = ["Marker"]
