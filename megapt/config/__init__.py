"""Configuration: strict schemas, composition from YAML files, errors with file and line."""

from megapt.config.cluster import ClusterConfig, DeviceConfig, load_cluster
from megapt.config.data import CorpusConfig, DataConfig, MixtureConfig, ReadingConfig
from megapt.config.divisibility import check_batches, check_groups
from megapt.config.errors import Origins, validate
from megapt.config.load import load_config
from megapt.config.model import LossConfig, ModelConfig
from megapt.config.run import (
    CompareConfig,
    ObjectiveSection,
    RunConfig,
    SharedConfig,
)
from megapt.config.section import PartSection, Section, is_due
from megapt.config.system import (
    BranchConfig,
    CheckpointConfig,
    FaultsConfig,
    MonitorConfig,
    ParallelConfig,
)
from megapt.config.training import (
    BudgetConfig,
    OptimizerConfig,
    Precision,
    ScheduleConfig,
    TrainingConfig,
)

__all__ = [
    "BranchConfig",
    "BudgetConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "CompareConfig",
    "CorpusConfig",
    "DataConfig",
    "DeviceConfig",
    "FaultsConfig",
    "LossConfig",
    "MixtureConfig",
    "ModelConfig",
    "MonitorConfig",
    "ObjectiveSection",
    "OptimizerConfig",
    "Origins",
    "ParallelConfig",
    "PartSection",
    "Precision",
    "ReadingConfig",
    "RunConfig",
    "ScheduleConfig",
    "Section",
    "SharedConfig",
    "TrainingConfig",
    "check_batches",
    "check_groups",
    "is_due",
    "load_cluster",
    "load_config",
    "validate",
]
