"""The stage that holds the others up is named."""

import pytest

from pipeline.measure.stages import Stages
from pipeline.records import Outcome


def outcome(read: float | None, restore: float | None, write: float | None) -> Outcome:
    return Outcome("a", seconds_read=read, seconds_restore=restore, seconds_write=write)


def test_each_stages_rate_is_what_its_workers_could_do() -> None:
    stages = Stages({"read": 4, "restore": 2, "write": 1})
    stages.add([outcome(0.5, 1.0, 0.25), outcome(1.5, 3.0, 0.25)])
    assert stages.rates() == {"read": pytest.approx(4.0), "restore": pytest.approx(1.0), "write": pytest.approx(4.0)}
    assert stages.bottleneck() == "restore"
    assert stages.words() == "read 4/s  restore 1/s (bottleneck)  write 4/s"


def test_more_workers_move_the_bottleneck() -> None:
    stages = Stages({"read": 4, "restore": 20, "write": 1})
    stages.add([outcome(0.5, 1.0, 1.0)])
    assert stages.bottleneck() == "write"


def test_nothing_is_said_before_every_stage_has_worked() -> None:
    stages = Stages()
    assert (stages.bottleneck(), stages.words()) == (None, "")
    stages.add([outcome(0.5, None, None)])
    assert (stages.bottleneck(), stages.words()) == (None, "")
