"""Templates of output keys. What is wrong with one is told by `tests/test_config.py`'s table as well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ItemError
from pipeline.keys import FIELDS, checked_template, fill_template


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_the_table_can_be_used(field: str) -> None:
    assert checked_template(f"{{key}}-{{{field}}}")


@pytest.mark.parametrize("template", ["", "one", "{dir}", "{scale}/{page}", "{{key}}"])
def test_a_template_that_gives_many_items_one_key_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="tell items apart"):
        checked_template(template)


@pytest.mark.parametrize("template", ["{}", "{0}", "{key.x}", "{key[0]}", "{Key}", "{key}{stem:{width}}"])
def test_a_field_nobody_fills_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="must"):
        checked_template(template)


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{key}", "a/b.c/d.tar.gz"),
        ("{dir}|{stem}", "a/b.c|d.tar"),
        ("{item_id}", "s3/bucket/x"),
        ("/{dir}//{stem}_x{scale}.{page:02d}", "a/b.c/d.tar_x4.03"),
    ],
)
def test_fields_are_parts_of_the_mirrored_key(template: str, key: str) -> None:
    assert fill_template(template, mirrored="a/b.c/d.tar.gz", item_id="s3://bucket/x", scale=4, page=3) == key


@pytest.mark.parametrize("item_id", ["..", "a/../b", "./a", "a/", "/", "a\0b"])
def test_an_id_cannot_make_a_key_that_is_no_plain_path(item_id: str) -> None:
    with pytest.raises(ItemError, match=r"encode\.key"):
        fill_template("{item_id}", mirrored="a", item_id=item_id, scale=1, page=0)


PARTS = st.text("ab./ \\{}:é\0", min_size=1, max_size=9)
TEMPLATES = st.lists(st.sampled_from([*(f"{{{field}}}" for field in FIELDS), "/", "..", "x", "{page:03}"]), max_size=6)


@given(TEMPLATES.map("".join), PARTS, PARTS, st.integers(1, 16), st.integers(0, 9))
def test_a_filled_template_is_a_plain_relative_path_or_an_item_error(
    template: str, mirrored: str, item_id: str, scale: int, page: int
) -> None:
    try:
        key = fill_template(checked_template(template), mirrored=mirrored, item_id=item_id, scale=scale, page=page)
    except (ValueError, ItemError):
        return
    parts = key.split("/")
    assert all(parts)
    assert not {".", ".."} & set(parts)
    assert "\0" not in key
    assert fill_template("{key}", mirrored=key, item_id="x", scale=1, page=0) == key
