"""Exact and near de-duplication with arrays and files only; see docs/deduplication.md.

Workers compute keys, one task per bucket matches them, and `resolve` decides which documents to
drop. The result depends only on the documents and their order, not on units, buckets, workers or
machines.
"""

from data_prep.dedup.keys import KEY_VERSION, band_key_table, text_key_table, text_keys
from data_prep.dedup.matching import (
    UnitArray,
    match_equal,
    match_near,
    merge_tables,
    plan_buckets,
)
from data_prep.dedup.minhash import signatures
from data_prep.dedup.resolving import Duplicates, Kind, combine, resolve
from data_prep.dedup.settings import DedupSettings, NearSettings

__all__ = [
    "KEY_VERSION",
    "DedupSettings",
    "Duplicates",
    "Kind",
    "NearSettings",
    "UnitArray",
    "band_key_table",
    "combine",
    "match_equal",
    "match_near",
    "merge_tables",
    "plan_buckets",
    "resolve",
    "signatures",
    "text_key_table",
    "text_keys",
]
