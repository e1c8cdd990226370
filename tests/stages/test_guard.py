"""An item's exception becomes its failed row."""

import pytest

from pipeline.errors import ItemError, StorageError
from pipeline.records import DONE, FAILED, Item, Outcome, Work
from pipeline.stages.guard import guarded

WORK = Work(Item("a", "/a.png", "a.png", 2, 0.0, "delta", "center"), Outcome("a"))


def raising(error: Exception) -> Work:
    def step(work: Work) -> Work:
        raise error

    return guarded("read", step, WORK)


@pytest.mark.parametrize(
    ("error", "code", "error_class"),
    [
        (ItemError("corrupt-image", "cut short"), "corrupt-image", "permanent"),
        (StorageError("storage-transient", "503"), "storage-transient", "transient"),
        (MemoryError(), "out-of-memory", "transient"),
        (ZeroDivisionError("by zero"), "internal", "transient"),
    ],
)
def test_an_exception_becomes_a_failed_outcome(error: Exception, code: str, error_class: str) -> None:
    outcome = raising(error).outcome
    assert (outcome.status, outcome.error_code, outcome.error_class) == (FAILED, code, error_class)
    assert outcome.stage == "read"


def test_an_unforeseen_error_tells_its_type_and_place() -> None:
    assert "ZeroDivisionError: by zero at test_guard.py:" in (raising(ZeroDivisionError("by zero")).outcome.error or "")


def test_failed_work_passes_through_untouched() -> None:
    failed = raising(ItemError("input-missing", "gone"))
    assert guarded("write", lambda work: pytest.fail("must not run"), failed) is failed


def test_a_stop_by_a_person_is_not_swallowed() -> None:
    def step(work: Work) -> Work:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded("read", step, WORK)


def test_what_succeeds_is_passed_on() -> None:
    done = Work(WORK.item, Outcome("a", status=DONE))
    assert guarded("read", lambda work: done, WORK) is done
