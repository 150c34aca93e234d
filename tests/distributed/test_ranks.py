"""What ranks tell each other goes over gloo, on the CPU, whatever else they have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed import ProcessGroup, distributed_c10d

from megapt.distributed.ranks import Ranks
from megapt.distributed.start import end_ranks, start_ranks
from megapt.errors import ConfigError
from tests.ranks import run_ranks

Said = tuple[list[float], bool, bool, list[str]]
EXPECTED: Said = ([2 / 3, 1.0], True, False, ["rank 0", "rank 1"])


def talk(ranks: Ranks) -> Said:
    """Decide together whatever ranks can."""
    with ranks.shared_errors():
        mine = ranks.rank == 1
    with pytest.raises(ConfigError, match=r"^of rank 1$"):
        ranks.raise_on_all(ConfigError("of rank 1") if mine else None)
    ranks.barrier()
    return (
        ranks.sum([1 / 3, float(mine)]),
        ranks.any(mine),
        ranks.any(False),
        ranks.gather(f"rank {ranks.rank}"),
    )


def talk_from_elsewhere(ranks: Ranks) -> tuple[Said, int]:
    """Talk as from a device whose tensors no backend takes; count the process groups."""
    assert ranks.group is None
    return talk(replace(ranks, device=torch.device("meta"))), len(distributed_c10d._world.pg_map)


def test_ranks_on_cpus_talk_over_the_default_group() -> None:
    assert run_ranks(2, talk_from_elsewhere) == [(EXPECTED, 1)] * 2


def limit_of(group: ProcessGroup) -> Any:
    return group._get_backend(torch.device("cpu")).options._timeout


def talk_beside_another_backend(ranks: Ranks) -> Said:
    """Start again where the default group passes for NCCL's, and talk."""
    used: list[ProcessGroup | None] = []
    backend_of = torch.distributed.get_backend
    end_ranks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "get_backend", lambda *_: "nccl")
        ranks = start_ranks().with_sequence_parallel(2)
        for name in ("all_reduce", "all_gather_object", "barrier"):

            def noted(*args: Any, call: Any = getattr(torch.distributed, name), **rest: Any) -> Any:
                used.append(rest.get("group"))
                return call(*args, **rest)

            patch.setattr(torch.distributed, name, noted)
        said = talk(ranks)
        default = torch.distributed.group.WORLD
        assert ranks.group is not None
        assert default is not None
        assert ranks.group is not default
        assert backend_of(ranks.group) == "gloo"
        assert limit_of(ranks.group) == limit_of(default)
        assert start_ranks().group is ranks.group
        end_ranks()
    assert set(used) == {ranks.group}
    assert not distributed_c10d._world.pg_map
    assert start_ranks().group is None
    return said


def test_beside_another_backend_ranks_talk_over_a_group_of_their_own() -> None:
    assert run_ranks(2, talk_beside_another_backend) == [EXPECTED] * 2
