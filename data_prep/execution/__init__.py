"""Executors: apply one function to many tasks, in local processes or on MPI ranks.

A worker that dies or hangs does not stop the run: its task is retried. A record at which workers
die repeatedly is skipped and reported.
"""

from data_prep.execution.context import Context
from data_prep.execution.executor import Executor, Work
from data_prep.execution.local import LocalExecutor, default_workers
from data_prep.execution.opening import ExecutorKind, open_executor

__all__ = [
    "Context",
    "Executor",
    "ExecutorKind",
    "LocalExecutor",
    "Work",
    "default_workers",
    "open_executor",
]
