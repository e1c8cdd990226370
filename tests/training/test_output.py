"""States are kept whole, the newest few of them, on local disk and behind a URI alike."""

from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.data.folder import StoredFolder
from pipeline.training.output import LocalFolder, States, Store


@pytest.fixture(params=["local", "uri", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalFolder(tmp_path / "out")
    return StoredFolder(str(tmp_path / "out") if request.param == "uri" else f"memory://{uuid4().hex}/out")


def test_the_newest_few_are_kept(store: Store) -> None:
    states = States(store, keep=2)
    assert list(states.newest_first()) == []
    store.write("state/notes.txt", b"a person's")
    for step in (5, 900, 90, 1000):
        states.save(step, str(step).encode())
    assert list(states.newest_first()) == [("state/00001000.pt", b"1000"), ("state/00000900.pt", b"900")]
    assert store.names("state") == ["state/00000900.pt", "state/00001000.pt", "state/notes.txt"]


def test_what_is_written_replaces_what_was_there_and_may_be_deleted_twice(store: Store) -> None:
    store.write("a.txt", b"one")
    store.write("a.txt", b"two")
    assert store.read("a.txt") == b"two"
    store.delete("a.txt")
    store.delete("a.txt")


def test_a_folder_is_cleared_with_all_below_and_nothing_beside(tmp_path: Path) -> None:
    for root in (str(tmp_path / "out"), f"memory://{uuid4().hex}/out"):
        folder = StoredFolder(root)
        for name in ("ray/run/a", "ray/b", "rays", "state/c"):
            folder.write(name, b"x")
        folder.clear("ray")
        folder.clear("ray")
        assert folder.names("ray") == []
        assert folder.read("rays") == folder.read("state/c") == b"x"
    assert not (tmp_path / "out" / "ray").exists()


def test_nothing_but_the_object_is_left_behind(tmp_path: Path) -> None:
    LocalFolder(tmp_path).write("state/a", b"one")
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["a"]
