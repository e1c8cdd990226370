"""One order on every storage, page by page."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import uris
from pipeline.data import listing, storage
from pipeline.data.listing import order, walk
from pipeline.data.storage import Entry, ObjectFacts
from pipeline.errors import CatalogError

NAMES = ["b.png", "a/z.png", "a/b/c.png", "a.png", "a-1.png", "a/.hidden", "é/ü.png", "a b/c#d.png"]
EXPECTED = ["a-1.png", "a.png", "b.png", "a/.hidden", "a/z.png", "a/b/c.png", "a b/c#d.png", "é/ü.png"]


@pytest.mark.parametrize("kind", ["file", "s3", "memory"])
def test_files_of_a_folder_come_first_then_its_folders(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    roots = {"file": lambda: str(tmp_path), "s3": lambda: request.getfixturevalue("s3_prefix")}
    root = roots.get(kind, lambda: "memory://listing")()
    for name in NAMES:
        storage.write_bytes(uris.join(root, name), name.encode())
    found = list(walk(root))
    assert [entry.uri[len(root) + 1 :] for entry in found] == EXPECTED
    assert [entry.facts and entry.facts.size for entry in found] == [len(name.encode()) for name in EXPECTED]
    if kind != "memory":  # whose listings leave the time out
        assert all(entry.facts == storage.stat(entry.uri) for entry in found)


def test_more_objects_than_a_page_holds(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:04}.png" for n in range(25)]
    for name in names:
        storage.write_bytes(uris.join(s3_prefix, name), b"x")
    pages, real = [], storage.persistently

    def short(uri, action):  # type: ignore[no-untyped-def]
        filesystem = storage._filesystem(uri)[0]
        call = filesystem.call_s3
        monkeypatch.setattr(filesystem, "call_s3", lambda *a, **k: call(*a, **k, MaxKeys=10))
        try:
            pages.append(real(uri, action))
            return pages[-1]
        finally:
            monkeypatch.setattr(filesystem, "call_s3", call)

    monkeypatch.setattr(storage, "persistently", short)
    assert [entry.uri.rsplit("/", 1)[-1] for entry in walk(s3_prefix)] == names
    assert [len(page["Contents"]) for page in pages] == [10, 10, 5]


paths = st.lists(st.text("ab.-é", min_size=1, max_size=3).filter(lambda t: t.strip(".")), min_size=1, max_size=3)


@given(st.lists(paths, max_size=12))
def test_the_key_sorts_as_the_walk_goes(found: list[list[str]]) -> None:
    tree: dict[str, object] = {}
    for path in found:
        node = tree
        for folder in path[:-1]:
            node = node.setdefault(folder + "/", {})  # type: ignore[assignment]
        node[path[-1]] = None

    def names(node: dict[str, object], above: str) -> list[str]:
        files = sorted(name for name, below in node.items() if below is None)
        folders = sorted(name[:-1] for name, below in node.items() if below is not None)
        walked = [above + name for name in files]
        return walked + [uri for name in folders for uri in names(node[name + "/"], f"{above}{name}/")]  # type: ignore[arg-type]

    walked = names(tree, "/root/")
    assert sorted(walked, key=lambda uri: order(uri, "/root")) == walked


def test_a_storage_that_lists_in_no_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ObjectFacts(1, "e")
    monkeypatch.setattr(listing, "folder_pages", lambda _: iter([[Entry("/r/b", facts)], [Entry("/r/a", facts)]]))
    with pytest.raises(CatalogError, match="order"):
        list(walk("/r"))


def test_an_empty_prefix_has_no_objects(tmp_path: Path, s3_prefix: str) -> None:
    assert list(walk(str(tmp_path))) == list(walk(s3_prefix)) == list(walk(str(tmp_path / "gone"))) == []


def test_keys_that_no_uri_can_name_are_left_out_and_never_walked_in_circles(
    s3_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS keeps `a//b`; SeaweedFS does not, so its answer is changed here."""
    storage.write_bytes(f"{s3_prefix}/a.png", b"x")
    filesystem, told = storage._filesystem(s3_prefix)[0], []
    call = filesystem.call_s3

    def answer(*args, **options):  # type: ignore[no-untyped-def]
        found = call(*args, **options)
        extra = [{"Prefix": options["Prefix"] + name} for name in ("/", "../", "tab\t/")]
        return {**found, "CommonPrefixes": [*found.get("CommonPrefixes", ()), *extra]}

    monkeypatch.setattr(filesystem, "call_s3", answer)
    assert [entry.uri for entry in walk(s3_prefix, told.append)] == [f"{s3_prefix}/a.png"]
    assert len(told) == 2
