"""Storage through a proxy that does what networks do: right bytes, or an error; never something in between."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from s3fs import S3FileSystem

sys.path.insert(0, str(Path(__file__).resolve().parent))

from proxy import FaultProxy, Rule

from pipeline.data import lease, persist, storage
from pipeline.errors import StorageError

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 400


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    made = FaultProxy(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]), seed=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    monkeypatch.setattr(persist, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(persist, "_LONGEST_PAUSE_S", 0.01)
    S3FileSystem.clear_instance_cache()
    yield made
    made.close()
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "rule",
    [
        Rule("status", 0.5),
        Rule("status", 0.5, status=429, code="TooManyRequests"),
        Rule("status", 0.5, status=500, code="InternalError"),
        Rule("reset", 0.5),
        Rule("cut-down", 0.5, methods=("GET",)),
        Rule("cut-up", 0.5, methods=("PUT",)),
        Rule("ack-lost", 0.5),
        Rule("slow", rate=500_000),
        Rule("flip-up", 0.5, methods=("PUT",)),
        Rule("flip", 0.5, methods=("GET",)),
    ],
    ids=lambda rule: f"{rule.kind}-{rule.status}",
)
def test_what_is_written_and_read_through_faults_is_whole(proxy: FaultProxy, rule: Rule, s3_prefix: str) -> None:
    proxy.rules = [rule]
    for number in range(8):
        storage.write_bytes(f"{s3_prefix}/{number}", DATA + b"%d" % number)
        assert storage.read_bytes(f"{s3_prefix}/{number}") == DATA + b"%d" % number
    assert proxy.applied > 3


def test_what_is_cut_on_its_way_up_is_not_there(proxy: FaultProxy, s3_prefix: str) -> None:
    proxy.rules = [Rule("cut-up", methods=("PUT",))]
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(f"{s3_prefix}/x", DATA)
    assert caught.value.code == "storage-transient"
    proxy.heal()
    assert not storage.exists(f"{s3_prefix}/x")


@pytest.mark.parametrize("kind", ["ack-lost", "reset", "cut-up"])
def test_a_lease_is_taken_once_through_faults(proxy: FaultProxy, kind: str, s3_prefix: str) -> None:
    """The acknowledgement of one's own lease may get lost: it is known again."""
    proxy.rules = [Rule(kind, 0.4, methods=("PUT",))]
    held = lease.acquire(s3_prefix, uuid4().hex, seconds=60, say=lambda _: None)
    assert lease.highest(lease.folder(s3_prefix)) == 1
    proxy.heal()
    held.release()
