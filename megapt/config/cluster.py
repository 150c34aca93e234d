"""What a job asks of a cluster, and what its machines can do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from megapt.config.errors import Origins, validate
from megapt.config.section import NonNegativeFloat, PositiveFloat, Section
from megapt.errors import ConfigError

_SIGNAL_EARLY = 60
"""SLURM may send the signal of `--signal` so many seconds before it is due."""

# SLURM reads the values of #SBATCH lines with quoting rules of its own, so nothing that would need
# quotes is let in. Commands and environment are shell and may hold anything.
Word = Annotated[str, Field(pattern=r"^[^\s'\"\\#]+$")]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Count = Annotated[int, Field(gt=0)]


class DeviceConfig(Section):
    """The device of one rank, what joins it to the others, and what it costs: for `megapt plan`."""

    name: str
    memory: PositiveFloat
    """Bytes."""
    usable: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the memory that may be planned with. The rest is for the context of CUDA, the
    buffers of NCCL, and what the allocator loses to fragmentation."""
    peak_flops: dict[Literal["fp32", "bf16", "fp16"], PositiveFloat]
    """Precision -> dense FLOPs a second on its data sheet."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the peak that a run's model FLOPs are expected to reach (Chowdhery et al. 2022,
    appendix B); MosaicML's llm-foundry publishes 0.41 to 0.46 for 1B to 70B on H100."""
    interconnect: PositiveFloat
    """Bytes a second from one device to another of its node, in one direction."""
    network: PositiveFloat | None = None
    """Bytes a second of one device to another node, in one direction. None: a single node."""
    price: NonNegativeFloat = 0.0
    """Of a device-hour, in any currency."""
    mtbf_hours: PositiveFloat = 50_000.0
    """Mean time between faults that end a job, of one device with its share of the rest. Llama 3
    (Grattafiori et al. 2024, section 3.3.4): 419 in 54 days on 16,384 H100."""
    storage: PositiveFloat = 1e9
    """Bytes a second that one node writes to where checkpoints lie."""


class ClusterConfig(Section):
    """What a job asks of the cluster, and what its nodes need before megapt starts."""

    nodes: Count = 1
    gpus_per_node: Annotated[int, Field(ge=0)]
    """GPUs and ranks of a node. 0 for a job on CPUs."""
    cpu_ranks_per_node: Count = 1
    """Ranks of a node where gpus_per_node is 0."""
    cpus_per_node: Count
    """Cores of a node that the ranks share."""
    time: str
    """Limit of the job's run time, `HH:MM:SS` or `D-HH:MM:SS`, in quotes."""
    requeue_seconds: Annotated[int, Field(ge=0, validate_default=True)] = 180
    """So long before the limit the run saves and the job is queued again. 0: it is not."""
    exclusive: bool = True
    """No other job on the nodes. DeepSpeed counts GPUs from 0, whichever the job was given."""
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    log: Word = "%x-%j.log"
    """The job's log, in SLURM's pattern; its folder must exist."""
    sbatch: tuple[Annotated[str, Field(pattern=r"^--[^\r\n]+$")], ...] = Field((), strict=False)
    """Further options of sbatch, such as `--constraint=h100`."""
    venv: Annotated[str, Field(pattern=r"^/[^\r\n]*$")] | None = None
    """Virtual environment that holds megapt, on every node. None: the one on PATH."""
    interface: Word | None = None
    """Network interface for NCCL and gloo, such as `ib0`. None: their own choice."""
    setup: tuple[Line, ...] = Field((), strict=False)
    """Shell lines that run first, such as `module load cuda`."""
    environment: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables of every rank."""
    device: DeviceConfig | None = None
    """What `megapt plan` reckons with."""

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError("should stand in quotes, or YAML reads HH:MM:SS as a number")
        if not re.fullmatch(r"(\d+-)?\d+:[0-5]\d:[0-5]\d", str(value)):
            raise ValueError("should read HH:MM:SS or D-HH:MM:SS")
        return value

    @field_validator("requeue_seconds")
    @classmethod
    def _requeue_seconds(cls, value: int, info: ValidationInfo) -> int:
        time = info.data.get("time")
        if value and time and _seconds(time) < 2 * (value + _SIGNAL_EARLY):
            raise ValueError(f"leaves a job of {time} no time to train; 0 turns it off")
        return value

    @field_validator("device")
    @classmethod
    def _network(cls, value: DeviceConfig | None, info: ValidationInfo) -> DeviceConfig | None:
        if value is not None and value.network is None and info.data.get("nodes", 1) > 1:
            raise ValueError("needs its network, since there are several nodes")
        return value

    @property
    def ranks_per_node(self) -> int:
        """Processes that train on a node."""
        return self.gpus_per_node or self.cpu_ranks_per_node

    @property
    def ranks(self) -> int:
        """Processes that train."""
        return self.nodes * self.ranks_per_node


def _seconds(time: str) -> int:
    days, _, clock = time.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


class _Loader(yaml.SafeLoader):
    """Reads 8e10 as a number, too; YAML 1.1 asks for 8.0e+10."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_cluster(file: str | Path) -> ClusterConfig:
    """Read a cluster file.

    Raises:
        ConfigError: for a missing file, an unknown or misspelt key, a wrong type or value.
    """
    origins = Origins(default=str(file))
    try:
        text = Path(file).read_text(encoding="utf-8")
        values, node = yaml.load(text, _Loader), yaml.compose(text)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 (byte {error.start})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}: should hold 'key: value' lines")
    for key, value in node.value:
        origins.places[key.value] = f"{file}:{key.start_mark.line + 1}"
        for inner, _ in value.value if isinstance(value, yaml.MappingNode) else ():
            place = f"{file}:{inner.start_mark.line + 1}"
            origins.places[f"{key.value}.{inner.value}"] = place
    return validate(ClusterConfig, {str(key): value for key, value in values.items()}, origins)
