"""Keys of earlier versions: refused in a user's file, migrated in stored runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MASKING = {"ngram_longest": "max_ngram", "span_longest": "max_span_length"}
_BY_OBJECTIVE: dict[str, dict[str, str]] = {
    "bert": {**_MASKING, "reading": "pooling"},
    "electra": {**_MASKING, "detection_weight": "detection_loss_weight"},
    "infilling": {"permute": "permute_sentences", "span_mean": "mean_span_length"},
    "mgm": _MASKING,
    "mlm": _MASKING,
    "msc": {
        **_MASKING,
        "balance": "balance_classes",
        "class_weight": "class_loss_weight",
        "unlabelled": "unlabeled",
    },
    "nsp": {"reading": "pooling"},
    "sop": {"reading": "pooling"},
    "span_corruption": {"mean_span": "mean_span_length", "noise_rate": "noise_density"},
}

RENAMED: dict[str, str] = {
    "model.feedforward": "model.intermediate_size",
    "model.heads": "model.num_heads",
    "model.hidden": "model.hidden_size",
    "model.layers": "model.num_layers",
    "model.rotary_base": "model.rope_theta",
    "model.segments": "model.num_segments",
    "model.tied": "model.tie_word_embeddings",
    "optimizer.average": "optimizer.ema_decay",
    "optimizer.clip": "optimizer.max_grad_norm",
    "optimizer.undecayed": "optimizer.no_decay",
    "schedule.batches": "schedule.batch_size_rampup",
    "schedule.batch_size_rampup.global_batch": "schedule.batch_size_rampup.global_batch_size",
    "schedule.decay": "schedule.decay_ratio",
    "schedule.final": "schedule.min_lr_ratio",
    "schedule.warmup": "schedule.warmup_ratio",
    "schedule.windows": "schedule.window_rampup",
    "training.global_batch": "training.global_batch_size",
    "training.micro_batch": "training.micro_batch_size",
    "parallel.offload_parameters": "parallel.offload_param",
    "parallel.quantized_gradients": "parallel.zero_quantized_gradients",
    "parallel.quantized_weights": "parallel.zero_quantized_weights",
    "parallel.secondary_partition": "parallel.zero_hpz_partition_size",
    "parallel.sequence": "parallel.sequence_parallel_size",
    "checkpoint.asynchronous": "checkpoint.async_save",
    "faults.replicas_every": "faults.check_replicas_every",
    "faults.rollbacks": "faults.max_rollbacks",
    "faults.skipped_limit": "faults.max_skipped_updates",
    "faults.spike": "faults.spike_threshold",
    "monitor.groups": "monitor.norms_by_group",
    "monitor.prometheus": "monitor.trackers",
    "monitor.sample_tokens": "monitor.max_new_tokens",
    "monitor.samples": "monitor.num_samples",
    "data.policy": "data.window_policy",
    "data.shuffle_span": "data.shuffle_shards",
    "data.workers": "data.num_workers",
    "data.reading.cache": "data.reading.cache_dir",
    "data.reading.retries": "data.reading.max_retries",
    "heldout_windows": "validation_windows",
    "sample_tokens": "max_new_tokens",
    "samples": "num_samples",
    "measures.probe.heldout_documents": "measures.probe.validation_documents",
    "measures.probe.inverse_regularisation": "measures.probe.C",
    "measures.repetition.max_tokens": "measures.repetition.max_new_tokens",
    "measures.repetition.texts": "measures.repetition.num_samples",
    "device.utilisation": "device.utilization",
    **{
        f"objective.{name}.{old}": f"objective.{name}.{new}"
        for name, keys in _BY_OBJECTIVE.items()
        for old, new in keys.items()
    },
}
"""Path of a key in earlier versions -> its path now, in the order of the table in CHANGELOG.md.
Keys of a part follow the part's name; items of a list have no number."""

_MEMBERS = re.compile(r"^(objective\.)?(members\.[^.]+\.)+")
_NUMBER = re.compile(r"\.\d+(?=\.)")


def new_keys(path: str) -> set[str]:
    """Return what the key at `path` may be called today; empty if no earlier version had it.

    Args:
        path: of a configuration, such as `members.a.reading` or `measures.0.texts`.
    """
    plain = _NUMBER.sub("", _MEMBERS.sub("objective.", path))
    section, _, key = plain.rpartition(".")
    part = r"\w+\." if section in ("objective", "measures") else ""
    old = re.compile(
        rf"{re.escape(section)}\.{part}{re.escape(key)}" if section else re.escape(key)
    )
    return {new.rpartition(".")[2] for name, new in RENAMED.items() if old.fullmatch(name)}


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run as this version writes it.

    Args:
        values: of config.yaml in a run folder.
    """
    monitor = values.get("monitor")
    if isinstance(monitor, dict) and "prometheus" in monitor:
        monitor = dict(monitor)
        path = monitor.pop("prometheus")
        added = [] if path is None else [{"name": "prometheus", "path": path}]
        monitor["trackers"] = ["jsonl", "tensorboard", *added]
        values = {**values, "monitor": monitor}
    renamed = _renamed(values, "")
    assert isinstance(renamed, dict)
    return renamed


def _renamed(value: Any, path: str) -> Any:
    """Return what stands at `path` with the keys of today."""
    if isinstance(value, list):
        return [_renamed(item, path) for item in value]
    if not isinstance(value, Mapping):
        return value
    if path == "objective":
        # The settings of a user's own objective are its own.
        path = f"objective.{value.get('name')}" if value.get("file") is None else "-"
    new = {}
    for key, item in value.items():
        old = f"{path}.{key}" if path else key
        place = RENAMED.get(old, old)
        inner = "objective" if path.startswith("objective.") and key == "members" else place
        new[place.rpartition(".")[2]] = (
            {name: _renamed(member, inner) for name, member in item.items()}
            if inner != place and isinstance(item, Mapping)
            else _renamed(item, place)
        )
    return new
