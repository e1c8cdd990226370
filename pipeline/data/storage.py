"""All file access of Unfold: whole objects in and out, by URI, on fsspec.

`s3://`, `file://`, `memory://`, plain paths and whatever else fsspec has installed behave alike.
Endpoint and credentials are the environment's business (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...): no function takes them and no message shows them.

    input-missing         nothing there, or a folder      } never tried again
    storage-denied        the storage refused access      }
    credentials-expired   they were good once             }
    bad-metadata          the URI itself is unusable      }
    storage-transient     anything else, after tries for about a minute

Knows no image, no table and no manifest.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import fsspec

from pipeline.data import localfiles
from pipeline.data.persist import WrongLength, answer, is_unexplained, persistently
from pipeline.errors import ItemError, StorageError
from pipeline.uris import absolute, is_local, split_scheme, without_query

_PART_BYTES, _MOST_PARTS, _PARTS_AT_ONCE = 2**24, 9_000, 4  # of large objects: 64 MB in memory
_PRECONDITION_FAILED = 412


@dataclass(frozen=True)
class ObjectFacts:
    """size: bytes; None where a web server does not say. etag: changes when the content does.

    Where there is no etag it is made of modification time and size.
    """

    size: int | None
    etag: str | None


def stat(uri: str) -> ObjectFacts:
    """Size and etag of the object at `uri`. Raises `StorageError`."""
    uri = absolute(uri)
    info = persistently(uri, lambda: _file_info(uri))
    return ObjectFacts(info.get("size"), _etag(info))


def exists(uri: str) -> bool:
    """True if there is an object (not a folder) at `uri`. Raises `StorageError` if that cannot be told."""
    try:
        stat(uri)
    except StorageError as error:
        if error.code == "input-missing":
            return False
        raise
    return True


def read_bytes(uri: str, *, max_bytes: int | None = None) -> bytes:
    """The whole object at `uri`, its length checked against the size the storage reports.

    Raises `StorageError`, and `ItemError` over-limit above `max_bytes`, before anything is fetched.
    """
    return read_object(uri, max_bytes=max_bytes)[0]


def read_object(uri: str, *, max_bytes: int | None = None) -> tuple[bytes, ObjectFacts]:
    """`read_bytes`, and what the storage says of the object it read."""
    uri = absolute(uri)
    return persistently(uri, lambda: _read(uri, max_bytes))


def read_range(uri: str, start: int, length: int) -> bytes:
    """`length` bytes of the object at `uri` from `start`, fewer where it ends. Raises `StorageError`."""
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    data: bytes = persistently(uri, lambda: filesystem.cat_file(path, start=start, end=start + length))
    return data


def sha256(uri: str, size: int) -> str:
    """Hexadecimal SHA-256 of the first `size` bytes at `uri`, in pieces: never whole in memory.

    Raises `StorageError`, also where there are fewer.
    """
    uri, found = absolute(uri), hashlib.sha256()
    filesystem, path = _filesystem(uri)

    def piece(start: int, end: int) -> bytes:
        data: bytes = filesystem.cat_file(path, start=start, end=end)
        if len(data) != end - start:
            raise WrongLength(f"{len(data)} bytes came where {end - start} were asked for")
        return data

    for start in range(0, size, _PART_BYTES):
        found.update(persistently(uri, partial(piece, start, min(start + _PART_BYTES, size))))
    return found.hexdigest()


def write_bytes(uri: str, data: bytes) -> None:
    """`data` becomes the object at `uri`, at once or not at all; folders come into being as needed."""
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    put = localfiles.replace if is_local(uri) else filesystem.pipe_file
    persistently(uri, lambda: put(path, data, **_content_type(uri)))


def _content_type(uri: str) -> dict[str, str]:
    """So that a browser shows a page in a bucket instead of saving it."""
    is_page = split_scheme(uri)[0] in ("s3", "s3a") and uri.endswith(".html")
    return {"ContentType": "text/html; charset=utf-8"} if is_page else {}


def create_bytes(uri: str, data: bytes) -> bool:
    """`data` becomes the object at `uri` unless there is one already: True for the one writer who made it.

    data: unlike what any other writer would create here, so that an own write whose acknowledgement
    got lost is known again. Raises `StorageError`.
    """
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    return persistently(uri, lambda: _created(uri, filesystem, path, data)) or _holds(uri, data)


def winners(uri: str, writers: int) -> int:
    """How many of `writers` that create the object at `uri` at once are told that they did; it is gone after.

    Where creation is conditional never more than one; none when all of them disturbed each other.
    """
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)  # shared: each thread's own client would take longer than the race

    def create(number: int) -> bool:
        try:
            return _created(uri, filesystem, path, b"%d" % number)
        except Exception:  # whatever it was, this writer was not told that it won
            return False

    with ThreadPoolExecutor(writers) as pool:
        count = sum(pool.map(create, range(writers)))
    delete(uri)
    return count


def download(uri: str, path: str) -> None:
    """The object at `uri` as a new local file, in pieces: never whole in memory. Its length is checked."""
    uri = absolute(uri)
    filesystem, key = _filesystem(uri)

    def fetch() -> None:
        size = _file_info(uri).get("size")
        filesystem.get_file(key, path)
        if size is not None and os.path.getsize(path) != size:
            raise WrongLength(f"{os.path.getsize(path)} bytes came where {size} were announced")

    persistently(uri, fetch)


def upload(path: str, uri: str) -> None:
    """A local file becomes the object at `uri`, in parts, at once or not at all."""
    uri = absolute(uri)
    filesystem, key = _filesystem(uri)

    def put() -> None:
        if is_local(uri):
            localfiles.copy(path, key)
        elif split_scheme(uri)[0] in ("s3", "s3a"):
            part = max(_PART_BYTES, -(-os.path.getsize(path) // _MOST_PARTS))
            filesystem.put_file(path, key, chunksize=part, max_concurrency=_PARTS_AT_ONCE)
        else:
            filesystem.put_file(path, key)
        if (size := _file_info(uri).get("size")) != os.path.getsize(path):
            raise WrongLength(f"{size} bytes arrived of {os.path.getsize(path)}")

    persistently(uri, put)


def delete(uri: str) -> None:
    """There is no object at `uri` any more, whether or not there was one."""
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    try:
        persistently(uri, lambda: filesystem.rm_file(path))
    except StorageError as error:
        if error.code != "input-missing" or filesystem.isdir(path):
            raise


def list_files(prefix: str, suffixes: Sequence[str] = ()) -> Iterator[str]:
    """URIs of all objects below the folder `prefix` (or of the object `prefix`), sorted.

    suffixes: endings to keep, in any case; all when empty. Nothing there: nothing is yielded. One
    folder's names are held at a time. Local symbolic links are followed to files, not to folders.
    """
    return (uri for uri, _ in list_objects(prefix, suffixes))


def list_objects(prefix: str, suffixes: Sequence[str] = ()) -> Iterator[tuple[str, ObjectFacts]]:
    """What `list_files` yields, with each object's facts as the listing tells them: no call an object."""
    prefix = absolute(prefix)
    endings = tuple(suffix.lower() for suffix in suffixes)
    for uri, facts in [(prefix, stat(prefix))] if exists(prefix) else _below(prefix):
        if not endings or uri.lower().endswith(endings):
            yield uri, facts


def filesystem(uri: str) -> tuple[Any, str]:
    """fsspec's file system for `uri` and the path in it, for libraries that do their own reading."""
    return _filesystem(absolute(uri))


class Entry(NamedTuple):
    """What a listing tells of one name in a folder; facts: None for a folder in it."""

    uri: str
    facts: ObjectFacts | None


def folder_pages(folder: str) -> Iterator[list[Entry]]:
    """What lies in a folder, itself not walked into: page by page on S3, all at once elsewhere.

    Order is the storage's. Nothing there: nothing is yielded. Raises `StorageError`.
    """
    folder = absolute(folder)
    if split_scheme(folder)[0] in ("s3", "s3a"):
        yield from _s3_pages(folder)
        return
    page = []
    for entry in _listed(folder):
        uri, is_folder = _uri_like(folder, entry["name"]), entry["type"] == "directory"
        if is_folder or entry["type"] == "file" or (entry.get("islink") and os.path.isfile(uri)):
            page.append(Entry(uri, None if is_folder else ObjectFacts(entry.get("size"), _etag(entry))))
    yield page


def _s3_pages(folder: str) -> Iterator[list[Entry]]:
    filesystem, path = _filesystem(folder)
    bucket, _, key = path.partition("/")
    request: dict[str, str] = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/"}
    scheme = split_scheme(folder)[0]
    while True:
        found: dict[str, Any] = persistently(folder, lambda: filesystem.call_s3("list_objects_v2", **request))
        # a key that holds `//` has no URI here: `absolute` refuses it
        below = [p["Prefix"][:-1] for p in found.get("CommonPrefixes", ()) if not p["Prefix"].endswith("//")]
        folders = [Entry(f"{scheme}://{bucket}/{name}", None) for name in below]
        files = [
            Entry(f"{scheme}://{bucket}/{o['Key']}", ObjectFacts(o["Size"], _etag(o)))
            for o in found.get("Contents", ())
            if not o["Key"].endswith("/")
        ]
        yield folders + files
        if not found.get("IsTruncated"):
            return
        request["ContinuationToken"] = found["NextContinuationToken"]


def _filesystem(uri: str) -> tuple[Any, str]:
    """fsspec's file system for `uri` and the path in it; one instance per process and thread."""
    scheme = split_scheme(uri)[0] or "file"
    try:
        filesystem = fsspec.filesystem(scheme, **_options(scheme))
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise StorageError("bad-metadata", f"{without_query(uri)}: {_unknown_scheme(scheme, error)}") from None
    if scheme in ("s3", "s3a"):
        filesystem.retries = 1  # `persistently` tries again; s3fs doing so too would multiply
    return filesystem, filesystem._strip_protocol(uri)


def _options(scheme: str) -> dict[str, object]:
    if scheme not in ("s3", "s3a"):
        return {"use_listings_cache": False} if scheme not in ("file", "memory") else {}
    return {
        "use_listings_cache": False,  # another process may have written since
        "max_concurrency": 1,  # one GET an object: half the CPU time of s3fs's parallel ranges
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 15},
    }


def _unknown_scheme(scheme: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"scheme {scheme!r} needs a package that is not installed: {error}"
    return f"scheme {scheme!r} is unknown or cannot stand alone; use s3, file, memory or a plain path"


def _file_info(uri: str) -> dict[str, Any]:
    filesystem, path = _filesystem(uri)
    try:
        info: dict[str, Any] = filesystem.info(path)
    except Exception as error:  # the clients' error types have no common base
        if is_unexplained(error):
            filesystem.cat_file(path, start=0, end=1)  # raises with the reason that a HEAD cannot give
        raise
    if info["type"] != "file":
        raise IsADirectoryError
    return info


def _etag(info: dict[str, Any]) -> str | None:
    if etag := info.get("ETag") or info.get("etag"):
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("created")
    return f"{changed}-{info.get('size')}" if changed else None


def _read(uri: str, max_bytes: int | None) -> tuple[bytes, ObjectFacts]:
    info = _file_info(uri)
    size = info.get("size")
    if max_bytes is not None and (size or 0) > max_bytes:
        raise ItemError("over-limit", f"{without_query(uri)} has {size} bytes; `limits.bytes` allows {max_bytes}")
    filesystem, path = _filesystem(uri)
    data: bytes = filesystem.cat_file(path)
    if size is not None and len(data) != size:
        raise WrongLength(f"{len(data)} bytes came where {size} were announced")
    return data, ObjectFacts(size, _etag(info))


def _created(uri: str, filesystem: Any, path: str, data: bytes) -> bool:
    """False if there is such an object already."""
    create = localfiles.link_new if is_local(uri) else partial(filesystem.pipe_file, mode="create")
    try:
        create(path, data)
    except OSError as error:
        there = isinstance(error, FileExistsError) and filesystem.isfile(path)
        if there or answer(error)[0] == _PRECONDITION_FAILED:
            return False
        raise
    return True


def _holds(uri: str, data: bytes) -> bool:
    try:
        return read_bytes(uri) == data
    except StorageError as error:
        if error.code == "input-missing":
            return False
        raise


def _below(folder: str) -> Iterator[tuple[str, ObjectFacts]]:
    """Files below `folder` in the order of their URIs: a folder sorts as its name and a slash."""
    entries = [(_uri_like(folder, entry["name"]), entry) for entry in _listed(folder)]
    named = [(uri + "/" * (entry["type"] == "directory"), entry) for uri, entry in entries if uri != folder]
    for uri, entry in sorted(named, key=lambda pair: pair[0]):
        if entry["type"] == "directory":
            yield from _below(uri.removesuffix("/"))
        elif entry["type"] == "file" or (entry.get("islink") and os.path.isfile(uri)):
            yield uri, ObjectFacts(entry.get("size"), _etag(entry))


def _listed(folder: str) -> list[dict[str, Any]]:
    filesystem, path = _filesystem(folder)

    def ls() -> list[dict[str, Any]]:
        try:
            return list(filesystem.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # a key ending in a slash is a tool's mark of an empty folder, or holds `//`, which `absolute` refuses
    return [entry for entry in persistently(folder, ls) if not entry["name"].endswith("/")]


def _uri_like(folder: str, name: str) -> str:
    scheme = split_scheme(folder)[0]
    return name if scheme is None or split_scheme(name)[0] else f"{scheme}://{name.lstrip('/')}"
