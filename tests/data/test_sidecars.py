"""Images meet their sidecars in one pass, whatever lies between them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import storage
from pipeline.data.sidecars import paired, read_sidecar
from pipeline.data.storage import Entry, ObjectFacts
from pipeline.errors import ItemError


def pairs(*names: str) -> list[tuple[str, str | None]]:
    objects = [Entry(f"/r/{name}", ObjectFacts(1, "e")) for name in sorted(set(names))]
    found = paired(objects, lambda uri: uri.endswith((".png", ".jpg")))
    return [(p.image.uri[3:], p.sidecar.uri[3:] if p.sidecar else None) for p in found]


def test_both_spellings_are_found_and_the_longer_wins() -> None:
    assert pairs("a.png", "a.png.json", "b.png", "b.json") == [("a.png", "a.png.json"), ("b.png", "b.json")]
    assert pairs("a.png", "a.png.json", "a.json") == [("a.png", "a.png.json")]


def test_one_sidecar_may_serve_two_files_of_one_stem() -> None:
    assert pairs("a.jpg", "a.json", "a.png") == [("a.jpg", "a.json"), ("a.png", "a.json")]


def test_a_sidecar_of_another_image_is_not_taken() -> None:
    assert pairs("a.b.png", "a.json", "a.png.bak.json", "ab.json") == [("a.b.png", None)]


names = st.lists(st.text("ab.", min_size=1, max_size=3), max_size=6)


@given(names, names, names)
def test_streaming_finds_what_looking_everything_up_finds(
    first: list[str], second: list[str], third: list[str]
) -> None:
    there = {f"{n}.png" for n in first} | {f"{n}.json" for n in second} | {f"{n}.png.json" for n in third}
    expected = []
    for image in sorted(name for name in there if name.endswith(".png")):
        candidates = [f"{image}.json", f"{image.removesuffix('.png')}.json"]
        expected.append((image, next((c for c in candidates if c in there), None)))
    assert pairs(*there) == expected


def test_values_are_the_catalogs_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.json")
    storage.write_bytes(uri, json.dumps({"scale": 2, "sigma": None, "kernel": "delta", "artist": "x"}).encode())
    assert read_sidecar(uri) == {"scale": 2, "kernel": "delta"}


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_json_object_is_named(tmp_path: Path, data: bytes) -> None:
    uri = str(tmp_path / "a.json")
    storage.write_bytes(uri, data)
    with pytest.raises(ItemError, match=r"a\.json"):
        read_sidecar(uri)
