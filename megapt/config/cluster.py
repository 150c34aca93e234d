"""The resources that a job requests from a cluster, and the hardware of its machines."""

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
"""Seconds by which SLURM may send the signal of `--signal` too early."""

# SLURM parses the values of #SBATCH lines by its own quoting rules. Therefore values that need
# quotes are refused. Commands and environment are shell text and may hold anything.
Word = Annotated[str, Field(pattern=r"^[^\s'\"\\#]+$")]
Line = Annotated[str, Field(pattern=r"^[^\r\n]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Count = Annotated[int, Field(gt=0)]


class DeviceConfig(Section):
    """The device of one rank, its links to others, and its price: only for `megapt plan`."""

    name: str
    """Name that the plan shows."""
    memory: PositiveFloat
    """Memory of the device in bytes."""
    usable: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the memory that the plan may use. The rest is for the CUDA context, the buffers of
    NCCL, and fragmentation in the allocator."""
    peak_flops: dict[Literal["fp32", "bf16", "fp16"], PositiveFloat]
    """Precision -> dense peak in FLOPs per second, from the data sheet."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Expected model-FLOPs utilization, a share of the peak (Chowdhery et al. 2022, appendix B).
    MosaicML's llm-foundry publishes 0.41 to 0.46 for 1B to 70B on H100."""
    interconnect: PositiveFloat
    """Bytes per second to another device of the same node, in one direction."""
    network: PositiveFloat | None = None
    """Bytes per second of one device to another node, in one direction. None: there is only one
    node."""
    price: NonNegativeFloat = 0.0
    """Price of one device-hour, in any currency."""
    mtbf_hours: PositiveFloat = 50_000.0
    """Mean time between faults that end a job, in hours, for one device with its share of the node
    and network. Llama 3 (Grattafiori et al. 2024, section 3.3.4): 419 in 54 days on 16,384 H100."""
    storage: PositiveFloat = 1e9
    """Bytes per second that one node writes to the storage of checkpoints."""


class ClusterConfig(Section):
    """The resources that a job requests, and the setup of its nodes before megapt starts."""

    nodes: Count = 1
    """Number of nodes."""
    gpus_per_node: Annotated[int, Field(ge=0)]
    """GPUs of a node; each gets one rank. 0: the job runs on CPUs."""
    cpu_ranks_per_node: Count = 1
    """Ranks of a node if gpus_per_node is 0."""
    cpus_per_node: Count
    """CPU cores of a node, shared by its ranks."""
    time: str
    """Time limit of the job, `HH:MM:SS` or `D-HH:MM:SS`, in quotes."""
    requeue_seconds: Annotated[int, Field(ge=0, validate_default=True)] = 180
    """Seconds before the time limit at which the run saves and the job is requeued. 0: never."""
    exclusive: bool = True
    """Whether the job gets whole nodes. DeepSpeed numbers GPUs from 0, even if SLURM has given the
    job others."""
    partition: Word | None = None
    """`--partition` of sbatch."""
    account: Word | None = None
    """`--account` of sbatch."""
    qos: Word | None = None
    """`--qos` of sbatch."""
    log: Word = "%x-%j.log"
    """Log file of the job, a filename pattern of SLURM. Its folder must exist."""
    sbatch: tuple[Annotated[str, Field(pattern=r"^--[^\r\n]+$")], ...] = Field((), strict=False)
    """Further options of sbatch, such as `--constraint=h100`."""
    venv: Annotated[str, Field(pattern=r"^/[^\r\n]*$")] | None = None
    """Absolute path of the virtual environment with megapt, the same on every node. None: the one
    on PATH."""
    interface: Word | None = None
    """Network interface for NCCL and gloo, such as `ib0`. None: they choose."""
    setup: tuple[Line, ...] = Field((), strict=False)
    """Shell lines that run before megapt, such as `module load cuda`."""
    environment: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables of every rank."""
    device: DeviceConfig | None = None
    """Hardware of one rank, for `megapt plan`."""

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError("should be in quotes; YAML reads HH:MM:SS as a number")
        if not re.fullmatch(r"(\d+-)?\d+:[0-5]\d:[0-5]\d", str(value)):
            raise ValueError("should have the form HH:MM:SS or D-HH:MM:SS")
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
            raise ValueError("needs the key network, because there are several nodes")
        return value

    @property
    def ranks_per_node(self) -> int:
        """Number of ranks on each node."""
        return self.gpus_per_node or self.cpu_ranks_per_node

    @property
    def ranks(self) -> int:
        """Number of ranks of the job."""
        return self.nodes * self.ranks_per_node


def _seconds(time: str) -> int:
    days, _, clock = time.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


class _Loader(yaml.SafeLoader):
    """Also reads 8e10 as a number; YAML 1.1 accepts only 8.0e+10."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_cluster(file: str | Path) -> ClusterConfig:
    """Read a cluster file.

    Raises:
        ConfigError: for a missing file, an unknown or misspelled key, a wrong type or value.
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
