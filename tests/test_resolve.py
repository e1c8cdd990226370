"""A catalog row becomes an item with every setting decided, or an error that names what to mend."""

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import kernels
from pipeline.data.catalog import COLUMNS
from pipeline.errors import ItemError
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Item
from pipeline.resolve import KERNEL_ENDINGS, Defaults, Limits, item_id_of, resolve, uri_of

ROOT = "s3://bucket/archive"
DEFAULTS = Defaults(kernel="gaussian(1.6)", sigma=2.55, scale=2, phase="corner")
LIMITS = Limits(scale=16, kernel=64, lr_pixels=10_000, bytes=1_000_000)


def item(*, defaults: Defaults = DEFAULTS, root: str = ROOT, key_template: str | None = None, **row: Any) -> Item:
    whole = {**dict.fromkeys(COLUMNS), "uri": "a/b.jpg", **row}
    return resolve(whole, defaults=defaults, root=root, limits=LIMITS, key_template=key_template)


def changed(name: str, value: Any) -> Defaults:
    return replace(DEFAULTS, **{name: value})


def refusal(**row: Any) -> ItemError:
    with pytest.raises(ItemError) as error:
        item(**row)
    return error.value


def test_what_the_row_says_wins_over_the_defaults_and_is_remembered() -> None:
    mine = item(scale=3, sigma=7, kernel=" disk( 2.50 )", phase="center")
    assert (mine.scale, mine.sigma, mine.kernel, mine.phase) == (3, 7.0, "disk(2.5)", "center")
    assert {mine.scale_source, mine.sigma_source, mine.kernel_source, mine.phase_source} == {"catalog"}


def test_what_the_row_leaves_out_comes_from_the_defaults_and_is_remembered() -> None:
    mine = item()
    assert (mine.scale, mine.sigma, mine.kernel, mine.phase) == (2, 2.55, "gaussian(1.6)", "corner")
    assert {mine.scale_source, mine.sigma_source, mine.kernel_source, mine.phase_source} == {"default"}


def test_every_column_reaches_the_item() -> None:
    mine = item(id="x", page=2, width=8, height=6.0, etag="e", size=0, hr_uri="../hr/b.png", root="/data/lr")
    assert mine == Item(
        item_id="x",
        uri="/data/lr/a/b.jpg",
        key="a/b.jpg",
        scale=2,
        sigma=2.55,
        kernel="gaussian(1.6)",
        phase="corner",
        page=2,
        width=8,
        height=6,
        etag="e",
        size=0,
        hr_uri="/data/hr/b.png",
        scale_source="default",
        sigma_source="default",
        kernel_source="default",
    )


@pytest.mark.parametrize(
    ("uri", "root", "absolute", "key"),
    [
        ("a/b.jpg", "s3://bucket/archive", "s3://bucket/archive/a/b.jpg", "a/b.jpg"),
        ("s3://bucket/archive/b.jpg", "s3://bucket/archive", "s3://bucket/archive/b.jpg", "b.jpg"),
        ("s3://other/b.jpg", "s3://bucket/archive", "s3://other/b.jpg", "s3/other/b.jpg"),
        ("file:///data/b.jpg", "/data", "/data/b.jpg", "b.jpg"),
        ("./x/../b.jpg", "/data", "/data/b.jpg", "b.jpg"),
        ("../b.jpg", "/data/lr", "/data/b.jpg", "file/data/b.jpg"),
        ("日本 1.jpg", "memory://m", "memory://m/日本 1.jpg", "日本 1.jpg"),
    ],
)
def test_the_id_is_the_one_spelling_of_the_uri(uri: str, root: str, absolute: str, key: str) -> None:
    mine = item(uri=uri, root=root)
    assert (mine.item_id, mine.uri, mine.key) == (absolute, absolute, key)


def test_pages_of_one_file_have_ids_of_their_own() -> None:
    assert [item(page=page).item_id.removeprefix(f"{ROOT}/a/b.jpg") for page in (None, 0, 0.0, 1, 2.0)] == [
        "", "", "", "#page=1", "#page=2",
    ]  # fmt: skip


def test_a_whole_number_may_be_an_id() -> None:
    assert item(id=17).item_id == "17"


@pytest.mark.parametrize(
    ("template", "key"),
    [
        (None, "a/b.jpg"),
        ("{key}", "a/b.jpg"),
        ("x{scale}/{dir}/{stem}-{page:03d}.sr", "x2/a/b-001.sr"),
        ("{item_id}", "s3/bucket/archive/a/b.jpg#page=1"),
    ],
)
def test_a_template_decides_the_output_key(template: str | None, key: str) -> None:
    assert item(page=1, key_template=template).key == key


def test_an_empty_folder_leaves_no_slash_in_the_key() -> None:
    assert item(uri="b.jpg", key_template="{dir}/{stem}").key == "b"


def test_a_key_that_climbs_out_of_the_output_is_refused() -> None:
    assert refusal(id="../../etc/b", key_template="{item_id}").code == "bad-metadata"


def test_a_kernel_in_the_row_wins_over_every_specification() -> None:
    mine = item(kernel="disk(3)", kernel_values=[[0, 1], [2.5, 0]])
    assert mine.kernel_values == [[0.0, 1.0], [2.5, 0.0]]
    assert (mine.kernel, mine.kernel_source) == ("values", "catalog")


@pytest.mark.parametrize("source", ["catalog", "default"])
@pytest.mark.parametrize(
    ("kernel", "absolute"),
    [
        ("kernels/k.npz#name[3]", f"{ROOT}/kernels/k.npz#name[3]"),
        ("K.PNG", f"{ROOT}/K.PNG"),
        ("s3://other/k.npy", "s3://other/k.npy"),
        ("file:///k/../k.mat#k", "/k.mat#k"),
    ],
)
def test_a_kernel_file_is_named_by_its_absolute_uri(source: str, kernel: str, absolute: str) -> None:
    mine = item(kernel=kernel) if source == "catalog" else item(defaults=replace(DEFAULTS, kernel=kernel))
    assert (mine.kernel, mine.kernel_source) == (absolute, source)


def test_a_kernel_file_may_be_named_if_and_only_if_it_can_be_read() -> None:
    assert {f".{ending}" for ending in kernels._READERS} == set(KERNEL_ENDINGS)


WRONG = [
    # row, code, words of the message
    ({"uri": None}, "missing-metadata", ["`uri`", "give the image's URI"]),
    ({"uri": ["a.png"]}, "bad-metadata", ["`uri`", "text", "['a.png']"]),
    ({"uri": 7}, "bad-metadata", ["`uri`", "text", "7"]),
    ({"uri": "  "}, "bad-metadata", ["`uri`", "blank"]),
    ({"uri": "a\0b"}, "bad-metadata", ["`uri`", r"'a\x00b'"]),
    ({"uri": "a\ud800"}, "bad-metadata", ["`uri`", "Unicode", r"'a\ud800'"]),
    ({"uri": "s3://b//a.png"}, "bad-metadata", ["`uri`", "s3://b//a.png", "empty segment"]),
    ({"uri": "s3://a:hunter2@b/c.png"}, "bad-metadata", ["`uri`", "credential", "environment"]),
    ({"uri": "https://a/b?X-Amz-Signature=hunter2"}, "bad-metadata", ["`uri`", "credential"]),
    ({"hr_uri": "https://a/b?sig=hunter2"}, "bad-metadata", ["`hr_uri`", "credential"]),
    ({"hr_uri": 3}, "bad-metadata", ["`hr_uri`", "text"]),
    ({"id": ["x"]}, "bad-metadata", ["`id`", "text"]),
    ({"id": True}, "bad-metadata", ["`id`", "text", "True"]),
    ({"id": "s3://a:hunter2@b/c.png"}, "bad-metadata", ["`id`", "credential"]),
    ({"etag": 5}, "bad-metadata", ["`etag`", "text", "5"]),
    ({"page": -1}, "bad-metadata", ["`page`", "whole number >= 0", "-1"]),
    ({"page": 1.5}, "bad-metadata", ["`page`", "1.5"]),
    ({"page": True}, "bad-metadata", ["`page`", "True"]),
    ({"page": "1"}, "bad-metadata", ["`page`", "'1'"]),
    ({"page": 2**63}, "bad-metadata", ["`page`", str(2**63)]),
    ({"width": -4}, "bad-metadata", ["`width`", "whole number >= 1", "-4"]),
    ({"height": 0}, "bad-metadata", ["`height`", "0"]),
    ({"width": math.nan}, "bad-metadata", ["`width`", "nan"]),
    ({"size": -1}, "bad-metadata", ["`size`", "whole number >= 0"]),
    ({"phase": "middle"}, "bad-metadata", ["`phase`", "center or corner", "'middle'"]),
    ({"phase": 1}, "bad-metadata", ["`phase`", "1"]),
    ({"phase": ["center"]}, "bad-metadata", ["`phase`", "['center']"]),
    ({"scale": True}, "bad-scale", ["`scale`", "whole number >= 1", "True"]),
    ({"scale": 0}, "bad-scale", ["`scale`", "0"]),
    ({"scale": 1.5}, "bad-scale", ["`scale`", "1.5"]),
    ({"scale": "two"}, "bad-scale", ["`scale`", "'two'"]),
    ({"scale": math.inf}, "bad-scale", ["`scale`", "inf"]),
    ({"scale": 17}, "over-limit", ["`scale`", "17", "`limits.scale` allows 16"]),
    ({"scale": 10**5000}, "over-limit", ["`scale`", "a huge number", "`limits.scale`"]),
    ({"sigma": math.nan}, "bad-sigma", ["`sigma`", "0 to 255", "nan"]),
    ({"sigma": -1}, "bad-sigma", ["`sigma`", "-1"]),
    ({"sigma": 256.0}, "bad-sigma", ["`sigma`", "256"]),
    ({"sigma": "low"}, "bad-sigma", ["`sigma`", "'low'"]),
    ({"sigma": False}, "bad-sigma", ["`sigma`", "False"]),
    ({"kernel": "gausian(2)"}, "bad-kernel", ["`kernel`", "'gausian(2)'", "gaussian(sd)", ".npz"]),
    ({"kernel": "gaussian(1, 2)"}, "bad-kernel", ["`kernel`", "2 numbers"]),
    ({"kernel": "gaussian(x)"}, "bad-kernel", ["`kernel`", "'x' is not"]),
    ({"kernel": "disk(-3)"}, "bad-kernel", ["`kernel`", "disk(-3)", "lengths"]),
    ({"kernel": "motion(nan, 2)"}, "bad-kernel", ["`kernel`", "not finite"]),
    ({"kernel": "kernel.txt"}, "bad-kernel", ["`kernel`", "'kernel.txt'", ".npy"]),
    ({"kernel": 2}, "bad-kernel", ["`kernel`", "text", "2"]),
    ({"kernel": " "}, "bad-kernel", ["`kernel`", "blank"]),
    ({"kernel": "k\ud800.npy"}, "bad-kernel", ["`kernel`", "Unicode"]),
    ({"kernel": "s3://a:hunter2@b/k.npy"}, "bad-kernel", ["`kernel`", "credential"]),
    ({"kernel": "s3://b//k.npy"}, "bad-kernel", ["`kernel`", "empty segment"]),
    ({"kernel": "gaussian(9)"}, "over-limit", ["`kernel`", "72", "`limits.kernel` allows 64"]),
    ({"kernel": "disk(33)"}, "over-limit", ["`kernel`", "66"]),
    ({"kernel": "motion(65, 0)"}, "over-limit", ["`kernel`", "65"]),
    ({"kernel_values": [1, 2]}, "bad-kernel", ["`kernel_values`", "list of lists", "[1, 2]"]),
    ({"kernel_values": "[[1,"}, "bad-kernel", ["`kernel_values`", "list of lists", "'[[1,'"]),
    ({"kernel_values": [[1, "2"]]}, "bad-kernel", ["`kernel_values`", "numbers", "'2'"]),
    ({"kernel_values": [[1, None]]}, "bad-kernel", ["`kernel_values`", "numbers", "None"]),
    ({"kernel_values": [[1], [1, 2]]}, "bad-kernel", ["`kernel_values`"]),
    ({"kernel_values": []}, "bad-kernel", ["`kernel_values`", "2-D"]),
    ({"kernel_values": [[]]}, "bad-kernel", ["`kernel_values`", "2-D"]),
    ({"kernel_values": [[0, 0]]}, "bad-kernel", ["`kernel_values`", "sums to zero"]),
    ({"kernel_values": [[1, math.nan]]}, "bad-kernel", ["`kernel_values`", "NaN"]),
    ({"kernel_values": [[10**400]]}, "bad-kernel", ["`kernel_values`", "range"]),
    ({"kernel_values": [[1] * 65]}, "over-limit", ["`kernel_values`", "65", "`limits.kernel`"]),
    ({"width": 101, "height": 100}, "over-limit", ["101 x 100", "`limits.lr_pixels` allows 10000"]),
    ({"width": 10_001}, "over-limit", ["10001 x ?", "`limits.lr_pixels`"]),
    ({"size": 1_000_001}, "over-limit", ["1000001 bytes", "`limits.bytes`"]),
]


@pytest.mark.parametrize(("row", "code", "words"), WRONG, ids=[f"{c[1]} {c[2]}" for c in WRONG])
def test_a_wrong_value_is_named_with_its_column(row: dict[str, Any], code: str, words: list[str]) -> None:
    error = refusal(**row)
    assert error.code == code
    assert [word for word in words if word not in str(error)] == [], error
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("name", ["scale", "sigma", "kernel"])
def test_a_value_that_nobody_gives_names_the_column_and_the_default(name: str) -> None:
    error = refusal(defaults=changed(name, None))
    assert error.code == "missing-metadata"
    assert str(error) == (
        f"there is no `{name}`: add it to the catalog, or set `defaults.{name}` for all items without one"
    )


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("scale", 99, "over-limit"),
        ("sigma", -1, "bad-sigma"),
        ("kernel", "box", "bad-kernel"),
        ("phase", "x", "bad-metadata"),
    ],
)
def test_a_wrong_default_is_not_blamed_on_the_catalog(name: str, value: object, code: str) -> None:
    error = refusal(defaults=changed(name, value))
    assert error.code == code
    assert f"`defaults.{name}`" in str(error)
    assert "catalog" not in str(error)


@pytest.mark.parametrize(
    "kernel", ["delta", "gaussian(3)", "gaussian(0.5, 3, 20)", "disk(9.5)", "motion(20, 45)", "bicubic"]
)
@pytest.mark.parametrize("scale", [1, 4])
def test_no_analytic_kernel_within_the_limit_is_refused(kernel: str, scale: int) -> None:
    side = max(parse_kernel(kernel, scale).shape)
    row = {"uri": "a", "kernel": kernel, "scale": scale, "sigma": 0}
    tight = replace(LIMITS, kernel=side)
    assert resolve(row, defaults=Defaults(), root=ROOT, limits=tight).kernel.startswith(kernel[:4])


def test_limits_themselves_are_allowed() -> None:
    mine = item(scale=16, kernel_values=[[1] * 64], width=100, height=100, size=1_000_000)
    assert mine.width == 100


def test_a_failed_row_keeps_the_id_it_will_have_once_mended() -> None:
    for good in ({}, {"id": "x"}, {"id": 5}, {"page": 3}, {"uri": "./a.png"}):
        row = {"uri": "a.png", **good}
        expected = resolve(row, defaults=DEFAULTS, root="/data", limits=LIMITS)
        failing = {**row, "scale": "two", "kernel": 5, "width": -1}
        assert item_id_of(failing, "/data", 7) == expected.item_id
        assert uri_of(failing, "/data") == expected.uri


def test_a_row_that_names_no_image_is_known_by_its_number_or_its_own_id() -> None:
    for uri in (None, ["a"], "", "a\ud800", "s3://a:hunter2@b/c.png"):
        assert item_id_of({"uri": uri}, ROOT, 7) == "row-8"
        assert item_id_of({"uri": uri, "id": "x"}, ROOT, 7) == "x"
        assert uri_of({"uri": uri}, ROOT) == ""


@pytest.mark.parametrize("page", [-1, 1.5, "0", False, [1]])
def test_a_row_with_an_impossible_page_does_not_take_the_id_of_another_page(page: object) -> None:
    row = {"uri": "a.png", "page": page}
    sound = {item_id_of({"uri": "a.png", "page": n}, ROOT, 7) for n in range(3)}
    assert item_id_of(row, ROOT, 7) not in sound


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, anything)), st.sampled_from([ROOT, "/data", "/"]))
def test_whatever_a_row_holds_it_is_an_item_or_an_item_error(row: dict[str, object], root: str) -> None:
    identity = item_id_of(row, root, 1)
    identity.encode()
    uri_of(row, root).encode()
    with suppress(ItemError):
        mine = resolve(row, defaults=DEFAULTS, root=root, limits=LIMITS, key_template="{dir}/{item_id}")
        assert mine.item_id == identity


@given(st.sampled_from(COLUMNS), anything)
def test_one_odd_value_in_a_sound_row_is_an_item_or_an_item_error(name: str, value: Any) -> None:
    with suppress(ItemError):
        assert item(**{name: value}).uri


# --- places


def allowed(uri: str, *roots: str, **row: Any) -> str:
    limits = replace(LIMITS, allowed_roots=roots)
    whole = {**dict.fromkeys(COLUMNS), "uri": uri, **row}
    return resolve(whole, defaults=DEFAULTS, root=ROOT, limits=limits).uri


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("a/b.png", ROOT),
        ("a/b.png", "s3://bucket"),
        ("a/b.png", "s3://bucket/archive/"),
        ("/data/x/../y.png", "file:///data"),
        ("s3://bucket/archive", "s3://bucket/archive"),
        ("https://host/a.png?x=1", "https://host"),
    ],
)
def test_what_lies_below_an_allowed_root_is_taken(uri: str, root: str) -> None:
    assert allowed(uri, "s3://elsewhere/x", root)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other/a.png",
        "s3://bucket/archive-of-others/a.png",
        "s3a://bucket/archive/a.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "memory://bucket/archive/a.png",
    ],
)
def test_what_lies_elsewhere_is_not_allowed_as_image_kernel_or_ground_truth(uri: str) -> None:
    for row in ({"uri": uri}, {"uri": "a.png", "hr_uri": uri}, {"uri": "a.png", "kernel": f"{uri}.npy"}):
        with pytest.raises(ItemError, match=r"`limits\.allowed_roots` has s3://bucket/archive") as caught:
            allowed(row.pop("uri"), "s3://bucket/archive", **row)
        assert caught.value.code == "not-allowed"


def test_climbing_out_of_an_allowed_root_is_refused() -> None:
    with pytest.raises(ItemError) as caught:
        allowed("../secret.png", "s3://bucket/archive")
    assert caught.value.code == "bad-metadata"
    with pytest.raises(ItemError) as caught:
        allowed("/data/archive/../secret.png", "/data/archive")
    assert caught.value.code == "not-allowed"


def test_sigma_auto_waits_for_the_image_and_says_so() -> None:
    for mine in (item(sigma="auto"), item(defaults=changed("sigma", "auto"))):
        assert (mine.sigma, mine.sigma_source) == (None, "estimated")
    assert item(sigma=3, defaults=changed("sigma", "auto")).sigma == 3.0
    assert refusal(sigma="automatic").code == "bad-sigma"


def test_a_catalog_may_know_where_its_values_came_from() -> None:
    mine = item(scale=3, scale_source="sidecar", kernel_values=[[1.0]], kernel_source="sidecar", phase="center")
    assert (mine.scale_source, mine.kernel_source, mine.phase_source) == ("sidecar", "sidecar", "catalog")
    assert item(scale=3, scale_source="hearsay").scale_source == "catalog"


def test_a_problem_of_the_catalog_is_the_items_failure() -> None:
    error = refusal(problem="the sidecar a.json is no JSON", scale=2)
    assert (error.code, str(error)) == ("bad-metadata", "the sidecar a.json is no JSON")
