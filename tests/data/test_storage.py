"""Storage: one suite over plain paths, file://, memory:// and s3://, and what goes wrong over HTTP."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import botocore.session
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from s3fs import S3FileSystem

from pipeline import uris
from pipeline.data import persist, storage
from pipeline.errors import ItemError, StorageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["plain", "file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of each kind."""
    kinds: dict[str, Callable[[], str]] = {
        "plain": lambda: f"{tmp_path}/archive",
        "file": lambda: f"file://{tmp_path}/archive",
        "memory": lambda: f"memory://{uuid4().hex}/archive",
        "s3": lambda: str(request.getfixturevalue("s3_prefix")),
    }
    return kinds[request.param]()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persist, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(persist, "_LONGEST_PAUSE_S", 0.01)


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(ItemError) as caught:
        action()
    return caught.value.code


# --- the same everywhere


def test_what_was_written_is_read_back(place: str) -> None:
    data = bytes(range(256)) * 5000
    storage.write_bytes(f"{place}/a/b/c.bin", data)
    assert storage.read_bytes(f"{place}/a/b/c.bin") == data


def test_an_empty_object_is_an_object(place: str) -> None:
    storage.write_bytes(f"{place}/empty", b"")
    assert storage.read_bytes(f"{place}/empty") == b""
    assert storage.stat(f"{place}/empty").size == 0
    assert storage.exists(f"{place}/empty")


def test_a_second_write_replaces_the_first_and_changes_the_etag(place: str) -> None:
    uri = f"{place}/x.bin"
    storage.write_bytes(uri, b"first")
    first = storage.stat(uri)
    storage.write_bytes(uri, b"the second")
    second = storage.stat(uri)
    assert storage.read_bytes(uri) == b"the second"
    assert (first.size, second.size) == (5, 10)
    assert first.etag != second.etag
    assert storage.stat(uri) == second


@pytest.mark.parametrize("action", [storage.read_bytes, storage.stat])
def test_nothing_there_is_input_missing(place: str, action: Callable[[str], object]) -> None:
    uri = f"{place}/no/such.png"
    with pytest.raises(StorageError, match=r"no/such\.png: there is no such object") as caught:
        action(uri)
    assert caught.value.code == "input-missing"
    assert not storage.exists(uri)


@pytest.mark.parametrize("action", [storage.read_bytes, storage.stat])
def test_a_folder_is_input_missing(place: str, action: Callable[[str], object]) -> None:
    storage.write_bytes(f"{place}/folder/x.png", b"x")
    with pytest.raises(StorageError, match="that is a folder") as caught:
        action(f"{place}/folder")
    assert caught.value.code == "input-missing"
    assert not storage.exists(f"{place}/folder")


def test_a_deleted_object_is_gone_and_may_be_deleted_again(place: str) -> None:
    storage.write_bytes(f"{place}/x", b"x")
    storage.write_bytes(f"{place}/y", b"y")
    storage.delete(f"{place}/x")
    assert list(storage.list_files(place)) == [uris.absolute(f"{place}/y")]
    storage.delete(f"{place}/x")


def test_a_listing_is_recursive_sorted_and_of_this_folder_only(place: str) -> None:
    names = ["a-b/c.png", "a.png", "a/b/d.PNG", "a/b.json", "z.png", "Z.png"]
    for name in names:
        storage.write_bytes(f"{place}/{name}", b"x")
    storage.write_bytes(f"{place}-too/x.png", b"x")
    root = uris.absolute(place)
    assert list(storage.list_files(place)) == [f"{root}/{name}" for name in sorted(names)]
    images = [f"{root}/{name}" for name in sorted(names) if not name.endswith("json")]
    assert list(storage.list_files(f"{place}/", (".png", ".tif"))) == images


def test_a_listing_of_nothing_is_empty_and_of_an_object_is_that_object(place: str) -> None:
    assert list(storage.list_files(place)) == []
    storage.write_bytes(f"{place}/x.csv", b"x")
    assert list(storage.list_files(f"{place}/x.csv")) == [uris.absolute(f"{place}/x.csv")]
    assert list(storage.list_files(f"{place}/x.csv/y")) == []


def test_listed_objects_can_be_read(place: str) -> None:
    storage.write_bytes(f"{place}/a/x.bin", b"here")
    assert [storage.read_bytes(uri) for uri in storage.list_files(place)] == [b"here"]


@pytest.mark.parametrize(
    "name", ["a b.png", "größe-日本.png", "a#b?c=d&e.png", "100%20.png", "[x]*{y}.png", "'\"+;,@!.png"]
)
def test_odd_names_are_names_like_any_other(place: str, name: str) -> None:
    uri = f"{place}/{name}"
    storage.write_bytes(uri, name.encode())
    assert storage.read_bytes(uri) == name.encode()
    assert list(storage.list_files(place)) == [uris.absolute(uri)]
    storage.delete(uri)
    assert not storage.exists(uri)


def test_an_object_above_max_bytes_is_over_limit(place: str) -> None:
    storage.write_bytes(f"{place}/x", b"12345")
    assert storage.read_bytes(f"{place}/x", max_bytes=5) == b"12345"
    with pytest.raises(ItemError, match=r"has 5 bytes; `limits\.bytes` allows 4") as caught:
        storage.read_bytes(f"{place}/x", max_bytes=4)
    assert caught.value.code == "over-limit"


def test_a_reader_sees_the_old_object_or_the_new_one_never_a_part(place: str) -> None:
    uri, stop = f"{place}/x", threading.Event()
    versions = {b"a" * 700_000, b"b" * 700_000}

    def rewrite() -> None:
        while not stop.is_set():
            for data in versions:
                storage.write_bytes(uri, data)

    storage.write_bytes(uri, min(versions))
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(rewrite)
        try:
            seen = {storage.read_bytes(uri) for _ in range(15)}
        finally:
            stop.set()
    writer.result()
    assert seen <= versions


def test_threads_share_the_storage(place: str) -> None:
    def roundtrip(number: int) -> bytes:
        storage.write_bytes(f"{place}/{number}", str(number).encode())
        return storage.read_bytes(f"{place}/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(roundtrip, range(40))) == [str(number).encode() for number in range(40)]


def test_what_another_process_writes_or_deletes_is_seen_at_once(place: str) -> None:
    if place.startswith("memory"):
        pytest.skip("memory:// belongs to one process")
    storage.write_bytes(f"{place}/mine", b"x")
    root = uris.absolute(place)
    assert list(storage.list_files(place)) == [f"{root}/mine"]
    script = f"""
from pipeline.data import storage
storage.write_bytes({place + "/theirs"!r}, storage.read_bytes({place + "/mine"!r}))
storage.delete({place + "/mine"!r})
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert list(storage.list_files(place)) == [f"{root}/theirs"]
    assert not storage.exists(f"{place}/mine")


def test_forked_children_of_a_process_in_use_can_read(s3_prefix: str) -> None:
    storage.write_bytes(f"{s3_prefix}/x", b"12345")
    script = f"""
import multiprocessing
from pipeline.data import storage
uri = {s3_prefix + "/x"!r}
storage.read_bytes(uri)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(storage.read_bytes, [uri] * 4) == [b"12345"] * 4)
"""
    shown = subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True, timeout=60)
    assert shown.stdout.strip() == b"True"


# --- local files


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"old")
    script = f"""
import resource
from pipeline.data import persist, storage
from pipeline.errors import StorageError
persist._LONGEST_PAUSE_S = 0.001
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    storage.write_bytes({str(target)!r}, bytes(100_000))
except StorageError as error:
    print(error.code, error)
"""
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("storage-transient")
    assert "File too large" in shown.stdout
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_links_to_files_are_listed_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.png").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "real" / "x.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    assert list(storage.list_files(str(tmp_path))) == [f"{tmp_path}/link.png", f"{tmp_path}/real/x.png"]
    assert storage.read_bytes(f"{tmp_path}/link.png") == b"x"


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert code_of(lambda: storage.read_bytes(str(tmp_path / "pipe"))) == "input-missing"


def test_a_path_through_a_file_is_missing_to_read_and_unusable_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert code_of(lambda: storage.read_bytes(f"{tmp_path}/file/x")) == "input-missing"
    with pytest.raises(StorageError, match="a file lies where a folder is needed"):
        storage.write_bytes(f"{tmp_path}/file/x", b"x")


def test_a_name_too_long_is_bad_metadata(tmp_path: Path) -> None:
    assert code_of(lambda: storage.read_bytes(f"{tmp_path}/{'x' * 300}")) == "bad-metadata"


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="there is no folder here that refuses even root")
def test_a_folder_that_refuses_is_storage_denied() -> None:
    with pytest.raises(StorageError, match="/sys/unfold/x: ") as caught:
        storage.write_bytes("/sys/unfold/x", b"x")
    assert caught.value.code == "storage-denied"


# --- names


@pytest.mark.parametrize(
    ("uri", "root", "expected"),
    [
        ("/a/b.png", None, "/a/b.png"),
        ("/a//b/./c/../d.png", None, "/a/b/d.png"),
        ("//a/b.png", None, "/a/b.png"),
        ("/", None, "/"),
        ("/a/", "s3://bkt/x", "/a"),
        ("file:///a/b.png", None, "/a/b.png"),
        ("FILE:///a/b.png", None, "/a/b.png"),
        ("file://localhost/a", None, "/a"),
        ("local:///a/b", None, "/a/b"),
        ("b.png", "/a", "/a/b.png"),
        ("../b.png", "/a/c", "/a/b.png"),
        ("b/c.png", "file:///a", "/a/b/c.png"),
        ("b.png", "s3://bkt", "s3://bkt/b.png"),
        ("b.png", "s3://bkt/x/", "s3://bkt/x/b.png"),
        ("b.png", "memory://x", "memory://x/b.png"),
        ("s3://bkt", None, "s3://bkt"),
        ("s3://bkt/x/", None, "s3://bkt/x"),
        ("S3://bkt/X.png", None, "s3://bkt/X.png"),
        ("memory:///x/y", None, "memory://x/y"),
        ("https://host/a.png?x=..//&y=", None, "https://host/a.png?x=..//&y="),
        ("a:b#c.png", "/x", "/x/a:b#c.png"),
    ],
)
def test_absolute_gives_each_place_one_spelling(uri: str, root: str | None, expected: str) -> None:
    assert uris.absolute(uri, root) == expected


def test_relative_paths_without_a_root_are_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(b"here")
    assert uris.absolute("x") == f"{Path.cwd()}/x"
    assert storage.read_bytes("x") == b"here"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3://bkt/../x", "'s3://bkt/../x' has the segment `..`"),
        ("s3://bkt/./x", "has the segment `.`"),
        ("s3://bkt/a//b", "has an empty segment"),
        ("s3://bkt/a//", "has an empty segment"),
        ("s3:///x", "has an empty segment"),
        ("s3://", "has an empty segment"),
        ("memory://a/../b", "has the segment `..`"),
        ("", "the uri is empty"),
        ("/a\nb", r"'/a\nb' holds a control character"),
        ("s3://bkt/a\0b", "holds a control character"),
        ("/a\x85b", "holds a control character"),
        ("/a\udc80b", "holds a control character or is no valid Unicode"),
        ("file://a/b.png", "names a host; write file:///path"),
    ],
)
def test_an_ambiguous_name_is_refused_with_the_mend(uri: str, says: str) -> None:
    with pytest.raises(ItemError) as caught:
        uris.absolute(uri, "s3://bkt")
    assert caught.value.code == "bad-metadata"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (
            "nosuch://a/b",
            "scheme 'nosuch' is unknown or cannot stand alone; use s3, file, memory or a plain path",
        ),
        ("zip://a/b", "scheme 'zip' is unknown or cannot stand alone"),
        ("gdrive://a/b", "scheme 'gdrive' needs a package that is not installed"),
        ("s3://No_Such Bucket/x", "No_Such Bucket"),
    ],
)
def test_an_unusable_uri_is_bad_metadata(s3: str, uri: str, says: str) -> None:
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(uri)
    assert caught.value.code == "bad-metadata"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("root", "parts", "expected"),
    [
        ("s3://bkt/", ("a", "b/c.png"), "s3://bkt/a/b/c.png"),
        ("/a", ("/b/", "", "c"), "/a/b/c"),
        ("/", ("a",), "/a"),
        ("s3://bkt", (), "s3://bkt"),
    ],
)
def test_join_puts_one_slash_between(root: str, parts: tuple[str, ...], expected: str) -> None:
    assert uris.join(root, *parts) == expected


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("s3://bkt/photos/a/b.png", "s3://bkt/photos", "a/b.png"),
        ("s3://bkt/photos/a/b.png", "s3://bkt/photos/", "a/b.png"),
        ("s3://bkt/photos-2/b.png", "s3://bkt/photos", "s3/bkt/photos-2/b.png"),
        ("s3://other/b.png", "s3://bkt", "s3/other/b.png"),
        ("/data/a/../b.png", "/data", "b.png"),
        ("file:///data/b.png", "/data", "b.png"),
        ("/elsewhere/b.png", "/data", "file/elsewhere/b.png"),
        ("/elsewhere/b.png", "s3://bkt", "file/elsewhere/b.png"),
        ("/b.png", "/", "b.png"),
        ("/data", "/data", "file/data"),
        ("memory://a/b", "s3://a", "memory/a/b"),
        ("https://me:secret@host/a/b.png?X-Amz-Signature=abc", "/data", "https/host/a/b.png"),
    ],
)
def test_keys_mirror_the_path_below_the_root(uri: str, root: str, key: str) -> None:
    assert uris.mirrored_key(uri, root) == key


SEGMENTS = st.lists(st.sampled_from(["a", "b.png", "..", ".", "", "a..b", "ü ü", "..c"]), min_size=1, max_size=6)
ROOTS = st.sampled_from(["/data/x", "file:///data", "s3://bkt", "s3://bkt/a", "memory://m", "/"])


@given(SEGMENTS, ROOTS)
def test_a_key_never_climbs_and_leads_back_to_its_object(segments: list[str], root: str) -> None:
    relative = "/".join(segments) or "a"
    if "://" in root and not root.startswith("file") and {"", ".", ".."} & set(relative.split("/")):
        assume(relative.strip("/") == relative)  # those are absolute, or end in one slash
        assert code_of(lambda: uris.absolute(relative, root)) == "bad-metadata"
        return
    uri = uris.absolute(relative, root)
    assert uris.absolute(uri) == uri
    key = uris.mirrored_key(uri, root)
    assert ".." not in key.split("/")
    assert not key.startswith("/")
    if uri.startswith(uris.absolute(root) + "/"):
        assert uris.join(uris.absolute(root), key) == uri


# --- credentials


@pytest.fixture
def fresh_clients() -> Iterator[None]:
    """s3fs keeps clients with the credentials they were made with."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("fresh_clients")
@pytest.mark.parametrize("change", [{"AWS_SECRET_ACCESS_KEY": "WRONGSECRET"}, {"AWS_ACCESS_KEY_ID": "NOBODYKEY"}])
def test_wrong_credentials_are_storage_denied_and_not_shown(
    s3_prefix: str, change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    for action in (storage.read_bytes, storage.stat, lambda uri: list(storage.list_files(uri))):
        with pytest.raises(StorageError) as caught:
            action(f"{s3_prefix}/x")
        assert caught.value.code == "storage-denied"
        assert str(caught.value).startswith(f"{s3_prefix}/x: the storage answered 403")
        assert not any(value in str(caught.value) for value in change.values())


@pytest.mark.usefixtures("fresh_clients")
def test_no_credentials_are_storage_denied(s3_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(StorageError, match="NoCredentialsError") as caught:
        storage.write_bytes(f"{s3_prefix}/x", b"x")
    assert caught.value.code == "storage-denied"


@pytest.mark.usefixtures("fresh_clients", "s3")
def test_an_endpoint_that_is_no_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL must be a URL") as caught:
        storage.read_bytes("s3://bkt/x")
    assert caught.value.code == "storage-denied"


# --- a storage that misbehaves


class Misbehaving(ThreadingHTTPServer):
    """Answers from a script: one entry per request of a method, the last one for ever.

    An entry is (status, body, announced length or None for the true one).
    """

    daemon_threads = True

    def __init__(self, **scripts: list[tuple[int, bytes, int | None]]) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.scripts = scripts
        self.requests: list[str] = []


class Scripted(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        script = self.server.scripts[self.command]
        status, body, announced = script[min(self.server.requests.count(self.command), len(script) - 1)]
        self.server.requests.append(self.command)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.send_header("ETag", '"0"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = announced is not None

    do_GET = do_HEAD = do_PUT = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def misbehaving(
    monkeypatch: pytest.MonkeyPatch, fresh_clients: None, impatient: None
) -> Iterator[Callable[..., Misbehaving]]:
    servers: list[Misbehaving] = []

    def serve(**scripts: list[tuple[int, bytes, int | None]]) -> Misbehaving:
        server = Misbehaving(**scripts)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEYID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "TOPSECRET")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


OK5: tuple[int, bytes, int | None] = (200, b"12345", None)
BUSY: tuple[int, bytes, int | None] = (503, b"<Error><Code>SlowDown</Code></Error>", None)


@pytest.mark.parametrize("trouble", [BUSY, (500, b"", None), (429, b"", None), (200, b"123", 5)])
def test_trouble_that_passes_is_waited_for(
    misbehaving: Callable[..., Misbehaving], trouble: tuple[int, bytes, int | None]
) -> None:
    server = misbehaving(HEAD=[(200, b"12345", None)], GET=[trouble, trouble, OK5])
    assert storage.read_bytes("s3://bkt/x") == b"12345"
    assert server.requests.count("GET") == 3


def test_trouble_that_stays_is_storage_transient_after_twenty_tries(
    misbehaving: Callable[..., Misbehaving],
) -> None:
    server = misbehaving(PUT=[BUSY])
    with pytest.raises(
        StorageError, match=r"s3://bkt/x: the storage answered 503 SlowDown \(tried 20 times\)"
    ) as caught:
        storage.write_bytes("s3://bkt/x", b"12345")
    assert caught.value.code == "storage-transient"
    assert server.requests == ["PUT"] * 20


@pytest.mark.parametrize(("status", "code"), [(403, "storage-denied"), (401, "storage-denied"), (404, "input-missing")])
def test_missing_and_denied_are_not_tried_again(
    misbehaving: Callable[..., Misbehaving], status: int, code: str
) -> None:
    empty = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    server = misbehaving(HEAD=[(status, b"", None)], GET=[(200, empty, None)])
    assert code_of(lambda: storage.read_bytes("s3://bkt/x")) == code
    assert server.requests.count("HEAD") == 1


def test_a_body_of_another_length_than_announced_is_storage_transient(
    misbehaving: Callable[..., Misbehaving],
) -> None:
    misbehaving(HEAD=[(200, b"1234567", None)], GET=[OK5])
    with pytest.raises(StorageError, match="5 bytes came where 7 were announced") as caught:
        storage.read_bytes("s3://bkt/x")
    assert caught.value.code == "storage-transient"


@pytest.mark.usefixtures("fresh_clients", "impatient", "s3")
def test_no_server_at_all_is_storage_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="EndpointConnectionError") as caught:
        storage.read_bytes("s3://bkt/x")
    assert caught.value.code == "storage-transient"


def test_tries_end_in_about_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(persist, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))

    def hang() -> None:
        clock[0] += 7
        raise TimeoutError

    with pytest.raises(StorageError, match="TimeoutError"):
        persist.persistently("s3://bkt/x", hang)
    assert 50 <= clock[0] <= 68


def test_an_outage_of_forty_seconds_is_sat_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(persist, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))

    def away() -> str:
        if clock[0] < 40:
            raise ConnectionRefusedError
        return "back"

    assert persist.persistently("s3://bkt/x", away) == "back"


EXPIRED: tuple[int, bytes, int | None] = (400, b"<Error><Code>ExpiredToken</Code></Error>", None)


def test_expired_credentials_are_told_apart_and_not_tried_again(misbehaving: Callable[..., Misbehaving]) -> None:
    """A HEAD is answered by 400 and nothing else; the reason is asked for."""
    server = misbehaving(HEAD=[(400, b"", None)], GET=[EXPIRED], PUT=[EXPIRED])
    for action in (lambda: storage.read_bytes("s3://bkt/x"), lambda: storage.write_bytes("s3://bkt/x", b"12345")):
        assert code_of(action) == "credentials-expired"
    assert (server.requests.count("GET"), server.requests.count("PUT")) == (1, 1)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_no_message_shows_a_signed_address(misbehaving: Callable[..., Misbehaving], status: int) -> None:
    server = misbehaving(HEAD=[(status, b"", None)], GET=[(status, b"", None)])
    address = f"http://me:hidden@127.0.0.1:{server.server_port}/x.png?X-Amz-Signature=hidden"
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(address)
    assert f"http://127.0.0.1:{server.server_port}/x.png" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_browser_shows_a_page_in_a_bucket_instead_of_saving_it(s3_prefix: str) -> None:
    storage.write_bytes(f"{s3_prefix}/report.html", b"<p>")
    client = botocore.session.get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    bucket, _, prefix = s3_prefix.removeprefix("s3://").partition("/")
    assert client.head_object(Bucket=bucket, Key=f"{prefix}/report.html")["ContentType"] == "text/html; charset=utf-8"


def test_the_environment_of_the_fixture_reaches_children(s3_prefix: str) -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert json.loads(shown.stdout)["AWS_ENDPOINT_URL"] == os.environ["AWS_ENDPOINT_URL"]
