"""Opens the executor that the user chose."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

from data_prep.errors import PrepError
from data_prep.execution.executor import Executor
from data_prep.execution.local import LocalExecutor, default_workers

ExecutorKind: TypeAlias = Literal["local", "mpi"]


@contextmanager
def open_executor(
    kind: ExecutorKind, workers: int | None = None, preload: Sequence[str] = ()
) -> Iterator[Executor | None]:
    """Open an executor for a `with` block.

    In an MPI job every rank runs the same command and enters the block. All ranks except rank 0 get
    None, after all work is done:

        with open_executor("mpi") as executor:
            if executor is None:
                return
            for index, result in executor.map(make, arguments, tasks):
                ...

    Args:
        kind: "local" for processes on this machine, "mpi" for the ranks of `mpirun`.
        workers: number of processes, by default one per core. Not with "mpi", where `mpirun -n`
            sets it: each rank except rank 0 has one worker.
        preload: modules that the work needs; local workers import them in the background.

    Yields:
        The executor; None on a rank that has served.

    Raises:
        PrepError: mpi4py or an MPI library is missing, or `workers` is given with "mpi".
    """
    if kind == "local":
        with LocalExecutor(workers or default_workers(), preload=preload) as executor:
            yield executor
        return
    if workers is not None:
        raise PrepError(f"--workers {workers}: with --executor mpi set the number with `mpirun -n`")
    try:
        from data_prep.execution.mpi import open_ranks
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py found no MPI library
        reason = str(error).partition("\n")[0]
        raise PrepError(
            f"--executor mpi: {reason}; install mpi4py (pip install 'megapt[mpi]') and an MPI "
            "library, such as Open MPI"
        ) from None
    with open_ranks() as ranks:
        yield ranks
