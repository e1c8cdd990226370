"""Planning: what is to do, what is done, and how it is cut into work units."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ItemError
from pipeline.plan import (
    ENDINGS,
    SAME_ENDING,
    Plan,
    cut_units,
    halves,
    hr_pixels,
    invalid_outcome,
    make_plan,
    named_format,
    output_key,
    split_by_size,
    tapered,
    work_id,
)
from pipeline.records import DONE, FAILED, Item, Known, Outcome

ENCODE: dict[str, object] = {"format": "png"}


def item(name: str = "a.png", **changes: object) -> Item:
    made = Item(f"/in/{name}", f"/in/{name}", name, 2, 2.55, "gaussian(1.6)", "center", kernel_digest="k", size=7)
    made = replace(made, **changes)  # type: ignore[arg-type]
    return replace(made, work_id=work_id(made, model_id="m", encode=ENCODE))


def plan(items: list[Item | Outcome], current: dict[str, Known] | None = None, retry: str = "transient") -> Plan:
    return make_plan(enumerate(items), current or {}, output_ending=".png", retry_failed=retry)


def known(of: Item, status: str = DONE, code: str | None = None) -> dict[str, Known]:
    return {of.item_id: Known(of.work_id, status, code, 1)}


def test_what_is_done_is_not_done_again() -> None:
    a, b = item("a.png"), item("b.png")
    made = plan([a, b], known(a))
    assert made.todo == [b]
    assert made.done == 1
    assert made.items == 2


def test_a_changed_setting_makes_it_new_work() -> None:
    before = item()
    for change in (
        {"sigma": 5.0},
        {"scale": 3},
        {"kernel_digest": "other"},
        {"phase": "corner"},
        {"size": 8},
        {"etag": "e"},
    ):
        after = item(**change)
        assert plan([after], known(before)).todo == [after], change


def test_a_changed_model_or_format_makes_it_new_work() -> None:
    ids = {work_id(item(), model_id=m, encode={"format": f}) for m in ("m", "n") for f in ("png", "tiff")}
    assert len(ids) == 4


def test_a_renamed_kernel_of_equal_content_is_the_same_work() -> None:
    assert item(kernel="k1.npy").work_id == item(kernel="k2.npy").work_id


def test_transient_failures_are_tried_again_and_permanent_ones_wait() -> None:
    a = item()
    transient, permanent = known(a, FAILED, "storage-transient"), known(a, FAILED, "corrupt-image")
    assert [plan([a], transient, retry).waiting for retry in ("none", "transient", "all")] == [1, 0, 0]
    assert [plan([a], permanent, retry).waiting for retry in ("none", "transient", "all")] == [1, 1, 0]
    assert plan([a], transient).attempts == {a.item_id: 1}


def test_a_second_row_with_the_same_id_fails_under_a_name_of_its_own() -> None:
    made = plan([item(), item()])
    assert len(made.todo) == 1
    (double,) = made.invalid
    assert double.error_code == "duplicate-id"
    assert double.item_id != made.todo[0].item_id
    assert "row 2" in (double.error or "")


def test_two_items_never_share_an_output_key() -> None:
    first, second = item("a.png"), item("b.png", key="a.png")
    made = plan([first, second])
    assert made.todo == [first]
    assert made.invalid[0].error_code == "duplicate-output"
    assert first.item_id in (made.invalid[0].error or "")


@pytest.mark.parametrize("names", [("a.png", "a.png.tif"), ("scan.tif", "scan")])
def test_two_items_that_share_an_output_if_one_is_large_are_not_both_restored(names: tuple[str, str]) -> None:
    first, second = map(item, names)
    made = plan([first, second])
    assert made.todo == [first]
    assert made.invalid[0].error_code == "duplicate-output"
    assert "as a large image" in (made.invalid[0].error or "")


def test_output_keys_mirror_the_input_and_append_a_new_ending() -> None:
    assert output_key(item("x/a.png"), ".png") == "x/a.png"
    assert output_key(item("x/a.JPG"), ".png") == "x/a.JPG.png"
    assert output_key(item("a.tiff"), ".tif") == "a.tiff"
    assert output_key(item("a.tif", page=3), ".tif") == "a.tif.page-3.tif"


NAMES = [f"{letter}.png" for letter in "abcdef"]
ENTRIES = st.lists(
    st.builds(
        lambda name, key, sigma, bad: failing(name) if bad else item(name, key=key, sigma=sigma),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.sampled_from([0.0, 2.55]),
        st.booleans(),
    ),
    max_size=12,
)
STATES = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(
        st.sampled_from([0.0, 2.55]),
        st.sampled_from([None, "storage-transient", "corrupt-image", "an error of tomorrow"]),
        st.integers(1, 5),
    ),
)


def failing(name: str) -> Outcome:
    return invalid_outcome(ItemError("bad-scale", "no scale"), f"/in/{name}", uri=f"/in/{name}", work_id="w")


@given(ENTRIES, STATES, st.sampled_from(["none", "transient", "all"]))
def test_every_row_of_a_catalog_is_to_do_invalid_done_or_waiting_and_once_worked_off_nothing_is_to_do(
    entries: list[Item | Outcome], states: dict[str, tuple[float, str | None, int]], retry: str
) -> None:
    current = {
        f"/in/{name}": Known(item(name, sigma=sigma).work_id, FAILED if code else DONE, code, tries)
        for name, (sigma, code, tries) in states.items()
    }
    made = plan(entries, current, retry)
    assert made.items == len(entries)
    ids = [entry.item_id for entry in (*made.todo, *made.invalid)]
    assert len(set(ids)) == len(ids), "no two rows of the manifest are about one item"
    keys = [output_key(todo, ".png") for todo in made.todo]
    assert len(set(keys)) == len(keys), "no output is written twice"
    done = {(name, known.work_id) for name, known in current.items() if known.status == DONE}
    assert not done & {(todo.item_id, todo.work_id) for todo in made.todo}
    for of in made.todo:
        before = current.get(of.item_id)
        earlier = before.attempts if before and before.work_id == of.work_id else 0
        assert made.attempts.get(of.item_id, 0) == earlier

    after = {**current, **{of.item_id: Known(of.work_id, DONE, None, 1) for of in made.todo}}
    after |= {of.item_id: Known(of.work_id, FAILED, of.error_code, of.attempts) for of in made.invalid}
    second = plan(entries, after, "none")
    assert (second.todo, second.invalid) == ([], [])
    assert second.items == len(entries)


sizes = st.one_of(st.none(), st.integers(1, 3000))
items = st.lists(
    st.builds(
        lambda n, s, w, h, b: item(f"{n}.png", scale=s, width=w, height=h, size=b),
        st.integers(0, 10**6),
        st.integers(1, 4),
        sizes,
        sizes,
        st.integers(1, 10**7),
    ),
    max_size=60,
)


@given(items)
def test_units_hold_every_item_once_with_one_scale_within_the_limits(todo: list[Item]) -> None:
    units = list(cut_units(todo, megapixels=4, most_items=16))
    assert sorted(i.item_id for u in units for i in u) == sorted(i.item_id for i in todo)
    for unit in units:
        assert len({i.scale for i in unit}) == 1
        assert len(unit) <= 16
        assert len(unit) == 1 or sum(map(hr_pixels, unit)) <= 4e6


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 5))
def test_the_last_units_are_cut_finer_and_hold_the_same_items(sizes: list[int], workers: int) -> None:
    numbers = iter(range(sum(sizes)))
    units = [[item(f"{next(numbers)}.png") for _ in range(size)] for size in sizes]
    cut = tapered(units, workers, halves)
    assert [i for unit in cut for i in unit] == [i for unit in units for i in unit]
    assert all(cut)
    assert cut[: max(0, len(units) - 2 * workers)] == units[: -2 * workers]
    if min(sizes, default=0) >= 2:  # those of one item stay as they are, and take a place among the last
        assert all(len(unit) <= (max(sizes) + 3) // 4 for unit in cut[-2 * workers :])


def test_items_of_unknown_size_come_last_within_their_scale() -> None:
    unknown, sized = item("u.png", size=10), item("s.png", width=4000, height=3000)
    assert [i.item_id for unit in cut_units([unknown, sized], megapixels=4, most_items=9) for i in unit] == [
        sized.item_id,
        unknown.item_id,
    ]


SETTINGS = st.fixed_dictionaries(
    {
        "item_id": st.text(min_size=1, max_size=4),
        "etag": st.none() | st.text(min_size=1, max_size=4),
        "size": st.none() | st.integers(0, 99),
        "kernel_digest": st.text(max_size=4),
        "sigma": st.floats(0, 255, allow_nan=False),
        "scale": st.integers(1, 4),
        "phase": st.sampled_from(["center", "corner"]),
    }
)


def identity(settings: dict[str, Any], model_id: str = "m", **encode: object) -> str:
    plain = Item("a", "a", "a", 2, 0.0, "delta", "center")
    return work_id(replace(plain, **settings), model_id=model_id, encode=encode)


@given(SETTINGS, SETTINGS)
def test_work_ids_are_equal_just_where_what_decides_the_output_is(one: dict[str, Any], two: dict[str, Any]) -> None:
    def deciding(settings: dict[str, Any]) -> tuple[object, ...]:
        content = settings["etag"] or ("" if settings["size"] is None else str(settings["size"]))
        rest = (settings[name] for name in ("item_id", "kernel_digest", "scale", "phase"))
        return (content, repr(settings["sigma"]), *rest)

    assert (identity(one) == identity(two)) == (deciding(one) == deciding(two))


@given(SETTINGS, st.text(max_size=3), st.dictionaries(st.sampled_from(["format", "key"]), st.text(max_size=3)))
def test_a_work_id_depends_on_model_and_encoding_and_on_nothing_that_only_tells_where(
    settings: dict[str, Any], model: str, encode: dict[str, str]
) -> None:
    mine = identity(settings, model, **encode)
    moved = {**settings, "uri": "elsewhere", "key": "x", "width": 5, "kernel_source": "x"}
    assert identity(moved, model, **encode) == mine
    assert identity(settings, model + "x", **encode) != mine
    assert identity(settings, model, **encode, boundary="circular") != mine


def test_an_estimated_sigma_is_other_work_than_any_number() -> None:
    assert item(sigma=None).work_id not in {item(sigma=sigma).work_id for sigma in (0.0, 2.55)}


@pytest.mark.parametrize(
    ("key", "format", "output"),
    [
        ("a/b.jpg", "jpeg", "a/b.jpg"),
        ("a/b.JPEG", "jpeg", "a/b.JPEG"),
        ("a/b.tiff", "tiff", "a/b.tiff"),
        ("a/b.webp", "webp", "a/b.webp"),
        ("a/b.avif", "avif", "a/b.avif"),
        ("a/b.jp2", "png", "a/b.jp2.png"),
        ("a/b", "png", "a/b.png"),
    ],
)
def test_same_keeps_the_format_of_the_name(key: str, format: str, output: str) -> None:
    item = Item("a", "/x", key, 2, 0.0, "delta", "center")
    assert named_format(key) == format
    assert output_key(item, SAME_ENDING) == output_key(item, ENDINGS[format][0]) == output


def test_items_known_to_be_too_large_are_set_apart() -> None:
    sizes = {"small": (10, 10), "large": (100, 100), "unknown": (None, None)}
    items = [Item(name, name, name, 2, 0.0, "delta", "center", width=w, height=h) for name, (w, h) in sizes.items()]
    whole, large = split_by_size(items, 4 * 99)
    assert ([item.item_id for item in whole], [item.item_id for item in large]) == (["unknown"], ["small", "large"])
    assert [item.item_id for item in split_by_size(items, 4 * 100)[1]] == ["large"]
