"""What a driver holds does not grow with the archive, only with a wave of it."""

from pathlib import Path

import pytest

from pipeline.bench.planning import measured


@pytest.mark.slow
def test_an_archive_in_many_waves_takes_less_memory_than_in_one(tmp_path: Path) -> None:
    """Peaks of real processes. 60,000 items are some 55 MiB, 3,000 are three."""
    one, several = (measured(tmp_path, 60_000, waves) for waves in (1, 20))
    counted = ("items", "todo")
    assert [one[name] for name in counted] == [several[name] for name in counted] == [60_000, 60_000]
    assert (one["waves"], several["waves"]) == (1, 20)
    assert (one["disk_mib"], several["disk_mib"] > 5) == (0, True)
    assert several["mib"] < one["mib"] - 20
