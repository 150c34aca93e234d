"""Keys of earlier versions. A config file with such a key is refused; stored runs are migrated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_MASKING = {
    "mask_share": "mask_replace_prob",
    "ngram_longest": "max_ngram",
    "random_share": "random_replace_prob",
    "span_longest": "max_span_length",
}
_BY_OBJECTIVE: dict[str, dict[str, str]] = {
    "bert": {**_MASKING, "nsp_weight": "pair_weight", "reading": "pooling"},
    "electra": {**_MASKING, "detection_weight": "detection_loss_weight"},
    "infilling": {
        "permute": "permute_sentences",
        "random_share": "random_replace_prob",
        "span_mean": "mean_span_length",
    },
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
    "training.checkpoint_every": "checkpoint.every",
    "training.keep_checkpoints": "checkpoint.keep_last",
    "training.zero_stage": "parallel.zero_stage",
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
    "faults.start_timeout": "faults.slow_phase_timeout",
    "monitor.groups": "monitor.norms_by_group",
    "monitor.prometheus": "monitor.trackers",
    "monitor.sample_tokens": "monitor.max_new_tokens",
    "monitor.samples": "monitor.num_samples",
    "data.policy": "data.window_policy",
    "data.shuffle_blocks": "data.shuffle_buffer_blocks",
    "data.shuffle_span": "data.shuffle_buffer_shards",
    "data.workers": "data.num_workers",
    "data.reading.cache": "data.reading.cache_dir",
    "data.reading.retries": "data.reading.max_retries",
    "heldout_windows": "validation_windows",
    "probe": "measures",
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
"""Path of a key in earlier versions -> its current path, in the order of the table in CHANGELOG.md.
Paths of a part's keys contain the part's name; items of a list have no number."""

_NEW = {
    old: new
    for old, new in RENAMED.items()
    if old.rpartition(".")[0] == new.rpartition(".")[0] and old != "monitor.prometheus"
}
_OLD = {new: old for old, new in _NEW.items()}
_MEMBERS = re.compile(r"^(objective\.)?(members\.[^.]+\.)+")
_NUMBER = re.compile(r"\.\d+(?=\.)")


def new_names(path: str) -> Iterator[str]:
    """Yield what the key at `path` of earlier versions may be called today.

    A key that is now in another section comes with its section.

    Args:
        path: of a configuration, such as `members.a.reading` or `measures.0.texts`.
    """
    plain = _NUMBER.sub("", _MEMBERS.sub("objective.", path))
    section, _, key = plain.rpartition(".")
    part = r"\w+\." if section in ("objective", "measures") else ""
    pattern = re.compile(
        rf"{re.escape(section)}\.{part}{re.escape(key)}" if section else re.escape(key)
    )
    for old, new in RENAMED.items():
        if pattern.fullmatch(old):
            kept, _, name = new.rpartition(".")
            yield name if kept == old.rpartition(".")[0] else new


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a stored run with the keys of this version.

    Args:
        values: content of config.yaml in a run folder.
    """
    monitor = values.get("monitor")
    if isinstance(monitor, dict) and "prometheus" in monitor:
        monitor = dict(monitor)
        path = monitor.pop("prometheus")
        added = [] if path is None else [{"name": "prometheus", "path": path}]
        monitor["trackers"] = ["jsonl", "tensorboard", *added]
        values = {**values, "monitor": monitor}
    return _with_keys(values, _NEW)


def original(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the keys that the first version had.

    A digest of it does not change when a key is renamed.

    Args:
        values: as this version writes them.
    """
    return _with_keys(values, _OLD)


def _with_keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    renamed = _renamed(values, "", names)
    assert isinstance(renamed, dict)
    return renamed


def _renamed(value: Any, path: str, names: Mapping[str, str]) -> Any:
    """Return the value at `path`, which has today's keys, with its own keys renamed."""
    if isinstance(value, list):
        return [_renamed(item, path, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    if path == "objective":
        if value.get("file") is not None:
            return dict(value)  # A custom objective names its settings itself.
        path = f"objective.{value.get('name')}"
    renamed = {}
    for key, item in value.items():
        place = f"{path}.{key}" if path else key
        new = names.get(place, place).rpartition(".")[2]
        if key == "members" and path.startswith("objective.") and isinstance(item, Mapping):
            members = item.items()
            renamed[new] = {name: _renamed(member, "objective", names) for name, member in members}
        else:
            renamed[new] = _renamed(item, RENAMED.get(place, place), names)
    return renamed
