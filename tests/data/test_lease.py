"""The lease: of runs that start together one works, and a dead holder's successor waits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline import uris
from pipeline.data import lease, storage
from pipeline.errors import LeaseHeld, StorageError

ROOT = Path(__file__).resolve().parents[2]
SHORT = 1.2  # seconds to live


@pytest.fixture(params=["file", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else str(request.getfixturevalue("s3_prefix"))


def quiet(_: str) -> None:
    pass


def acquire(output: str, run: str = "second") -> lease.Lease:
    return lease.acquire(output, run, seconds=SHORT, say=quiet)


def test_a_holder_is_named_while_it_lives_and_let_alone(output: str) -> None:
    with lease.held(output, "first", seconds=SHORT, say=quiet) as first:
        with pytest.raises(LeaseHeld, match=rf"run first on .+ \(process {os.getpid()}\)"):
            acquire(output)
        assert first.lost is None


def test_a_released_lease_is_taken_at_once_under_the_next_number(output: str) -> None:
    with lease.held(output, "first", seconds=60, say=quiet):
        pass
    begin = time.monotonic()
    second = acquire(output)
    assert time.monotonic() - begin < 30
    assert lease.highest(lease.folder(output)) == 2
    second.release()
    assert len(list(storage.list_files(lease.folder(output)))) == 1, "older numbers are tidied away"


def test_a_holder_that_was_killed_is_succeeded_after_its_time_to_live(output: str) -> None:
    script = f"""
import time
from pipeline.data import lease
lease.acquire({output!r}, "killed", seconds={SHORT}, say=lambda _: None)
print("held", flush=True)
time.sleep(100)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LeaseHeld, match="run killed"):
        acquire(output)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    acquire(output).release()
    assert lease.highest(lease.folder(output)) == 2


def test_a_lease_that_goes_while_it_is_looked_at_was_taken_over(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease.held(output, "first", seconds=60, say=quiet):
        pass
    read = storage.read_bytes

    def taken_over(uri: str) -> bytes:
        storage.delete(uri)
        return read(uri)

    monkeypatch.setattr(storage, "read_bytes", taken_over)
    with pytest.raises(LeaseHeld, match="just taken over"):
        acquire(output)
    assert lease.highest(lease.folder(output)) == 0


def test_of_runs_that_start_at_once_exactly_one_works(output: str) -> None:
    def attempt(number: int) -> lease.Lease | None:
        try:
            return acquire(output, f"run-{number}")
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(6) as pool:
        winners = [found for found in pool.map(attempt, range(6)) if found]
    assert len(winners) == 1
    winners[0].release()


def test_who_was_taken_for_dead_learns_of_its_successor(output: str) -> None:
    sleeper = acquire(output, "sleeper")
    sleeper._done.set()  # no sign of life, as in a machine that was suspended
    sleeper._thread.join()
    successor = acquire(output, "successor")
    sleeper.beat()
    assert sleeper.lost is not None
    assert "run successor" in sleeper.lost
    sleeper.release()
    assert not json.loads(storage.read_bytes(f"{lease.folder(output)}/000002.json"))["released"]
    successor.release()


def test_a_number_that_others_are_done_with_does_not_count(output: str) -> None:
    """A slow run creates the number it saw free, while two others have come, and one has gone, meanwhile."""
    place = lease.folder(output)
    record = lease.Record("slow", "slow", "host", 1, SHORT)
    newer = lease.Record("newer", "newer", "host", 2, SHORT)
    assert storage.create_bytes(lease._uri(place, 3), lease._bytes(newer))
    with pytest.raises(LeaseHeld, match="run newer"):
        lease._claim(place, 2, record, exclusive=True)


def test_a_store_that_ignores_the_condition_is_found_out(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_TRIED", {})
    assert lease.creates_conditionally(s3_prefix)
    lease._TRIED.clear()
    assert list(storage.list_files(s3_prefix)) == [], "the probe leaves nothing behind"

    def create_anyway(uri: str, filesystem: object, path: str, data: bytes) -> bool:
        storage.write_bytes(uri, data)
        return True

    monkeypatch.setattr(storage, "_created", create_anyway)
    monkeypatch.setattr(lease, "_SETTLING_S", 0.1)
    assert not lease.creates_conditionally(s3_prefix)
    assert list(lease._TRIED.values()) == [False]
    said: list[str] = []
    lease.acquire(s3_prefix, "run", seconds=SHORT, say=said.append).release()
    assert said == [lease.NOT_EXCLUSIVE]


def test_a_foreign_object_in_its_place_is_named(output: str) -> None:
    uri = uris.join(lease.folder(output), "000001.json")
    storage.write_bytes(uri, b"{}")
    with pytest.raises(LeaseHeld, match=r"000001\.json is no lease"):
        acquire(output)


@pytest.mark.parametrize("place", ["file", "s3", "memory"])
def test_of_writers_that_create_one_object_exactly_one_does(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    roots: dict[str, Callable[[], str]] = {
        "file": lambda: str(tmp_path),
        "s3": lambda: str(request.getfixturevalue("s3_prefix")),
        "memory": lambda: f"memory://{uuid4().hex}",
    }
    uri = uris.join(roots[place](), "a", "x")
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: storage.create_bytes(uri, b"%d" % n), range(8)))
    assert sum(created) == 1
    assert storage.read_bytes(uri) == b"%d" % created.index(True)


def test_an_own_write_whose_acknowledgement_was_lost_counts(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/x", b"mine")
    assert storage.create_bytes(f"{tmp_path}/x", b"mine")
    assert not storage.create_bytes(f"{tmp_path}/x", b"yours")


def test_creating_below_a_file_is_an_error_not_a_lost_race(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        storage.create_bytes(f"{tmp_path}/x/y", b"")
