"""The exception tree and the table of failures that users read."""

import pickle

import pytest

from pipeline import errors
from pipeline.errors import ERROR_CODES, PERMANENT, TRANSIENT, ItemError, StorageError, UnfoldError

RAISED = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", RAISED)
def test_every_error_raised_on_purpose_can_be_caught_as_one(kind: type[Exception]) -> None:
    assert issubclass(kind, UnfoldError)


def test_the_tree_at_the_top_of_the_file_names_every_error() -> None:
    for kind in RAISED:
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("row", ERROR_CODES.values(), ids=ERROR_CODES)
def test_every_code_has_a_class_a_meaning_and_a_mend(row: errors.ErrorCode) -> None:
    assert ERROR_CODES[row.code] is row
    assert row.error_class in (TRANSIENT, PERMANENT)
    assert len(row.meaning) > 10
    assert len(row.mend) > 10


def test_an_item_error_says_its_message_and_keeps_its_code() -> None:
    error = ItemError("bad-kernel", "the kernel sums to zero")
    assert str(error) == "the kernel sums to zero"
    assert error.code == "bad-kernel"


def test_a_code_that_is_not_in_the_table_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        ItemError("bad-luck", "no such code")


@pytest.mark.parametrize("kind", [ItemError, StorageError])
def test_an_item_error_survives_the_way_between_processes(kind: type[ItemError]) -> None:
    error = pickle.loads(pickle.dumps(kind("storage-transient", "503 again and again")))
    assert type(error) is kind
    assert (error.code, str(error)) == ("storage-transient", "503 again and again")
