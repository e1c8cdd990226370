"""Rows on local disk by bucket come back as they were put, and a full disk is said."""

import resource

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.spill import Spill
from pipeline.errors import StorageError


@given(st.lists(st.tuples(st.integers(0, 3), st.integers())))
def test_each_bucket_gives_what_was_put_into_it_in_order_and_again(put: list[tuple[int, int]]) -> None:
    spill = Spill()
    for bucket, thing in put:
        spill.put(bucket, thing)
    for bucket in (3, 0, 1, 2, 0):
        assert list(spill.get(bucket)) == [thing for other, thing in put if other == bucket]


@given(st.lists(st.text("abc", max_size=2), min_size=1))
def test_rows_of_a_table_go_to_the_bucket_of_their_item(ids: list[str]) -> None:
    spill = Spill()
    rows = pa.table({"item_id": ids, "number": list(range(len(ids)))})
    spill.put_rows(rows, len)
    found = {bucket: pa.concat_tables(spill.get(bucket)).to_pylist() for bucket in {len(name) for name in ids}}
    assert found == {bucket: [row for row in rows.to_pylist() if len(row["item_id"]) == bucket] for bucket in found}


def test_a_full_disk_is_out_of_scratch_and_names_the_mend() -> None:
    """Tried with a limit on the size of a file, which fails just where a full disk does."""
    spill = Spill()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(StorageError, match="TMPDIR") as told:
            spill.put(0, b"x" * 2**21)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.code == "out-of-scratch"
