"""A comparison takes the memory of one member, however many it has."""

from __future__ import annotations

from pathlib import Path

from megapt.comparison.compare import Comparison
from megapt.comparison.results import Member
from megapt.config import CompareConfig, Origins
from megapt.distributed.ranks import Ranks
from tests.comparison.comparing import probe
from tests.ranks import run_ranks
from tests.training.runs import run_config

MEMBERS = 5


def resident() -> int:
    """Bytes of this process that are in memory now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def memory_by_member(ranks: Ranks, config: CompareConfig) -> tuple[list[int], int]:
    """Return the memory after each member was measured, and the parameters of one."""
    comparison = Comparison(config, ranks, Origins())
    found: list[int] = []
    print_summary = comparison._print_summary

    def watched(member: Member) -> None:
        print_summary(member)
        found.append(resident())

    comparison._print_summary = watched  # type: ignore[method-assign]
    results = comparison.run()
    return found, results.members[0].parameters


def test_memory_does_not_grow_with_the_members(corpus_folder: Path, tmp_path: Path) -> None:
    large = {"num_layers": 2, "hidden_size": 448, "num_heads": 2, "intermediate_size": 448}
    run = run_config(
        corpus_folder, tmp_path / "out", model=large, training={"budget": {"amount": 800.0}}
    )
    values = run.model_dump(exclude={"objective", "branch"})
    members = {f"arlm{number}": {"name": "arlm"} for number in range(MEMBERS)}
    config = CompareConfig.model_validate(
        {
            **values,
            "title": "memory",
            "members": members,
            "measures": [probe(8, 8)],
            "validation_windows": 4,
        }
    )
    [(memory, parameters)] = run_ranks(1, memory_by_member, config, timeout=240.0)
    assert len(memory) == MEMBERS
    # Weights, gradients and two states of Adam. One member more would take all of it.
    of_one = 16 * parameters
    assert of_one > 40e6
    assert memory[-1] - memory[0] < of_one / 2, [round(each / 1e6) for each in memory]
