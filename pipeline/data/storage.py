"""All file access of Unfold: whole objects in and out, by URI, on fsspec.

`s3://`, `file://`, `memory://`, plain paths and whatever else fsspec has installed behave alike.
Endpoint and credentials are the environment's business (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...): no function takes them and no message shows them.

    input-missing       nothing there, or a folder      } never tried again
    storage-denied      the storage refused access      }
    bad-metadata        the URI itself is unusable      }
    storage-transient   anything else, after a handful of tries in about 20 seconds

Knows no image, no table and no manifest.
"""

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import fsspec

from pipeline.errors import ItemError, StorageError
from pipeline.uris import absolute, is_local, split_scheme, without_query

_Result = TypeVar("_Result")


_TRIES = 6
_FIRST_PAUSE_S = 0.5  # doubles: 0.5, 1, 2, 4, 8
_GIVE_UP_AFTER_S = 20.0
_PART_BYTES, _MOST_PARTS, _PARTS_AT_ONCE = 2**24, 9_000, 4  # of an upload: 64 MB in memory

_WORDS: dict[type[Exception], str] = {
    FileNotFoundError: "there is no such object",
    IsADirectoryError: "that is a folder, not an object",
    NotADirectoryError: "a part of the path is a file, not a folder",
    FileExistsError: "a file lies where a folder is needed",
}
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_DENIED_STATUS = (401, 403)
_DENIED_CODES = {"AuthorizationHeaderMalformed", "InvalidToken", "TokenRefreshRequired", "UnauthorizedAccess"}
_DENIED_ERRNO = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNUSABLE_CODES = {"InvalidBucketName", "KeyTooLongError"}
_UNUSABLE_ERRNO = {errno.ENAMETOOLONG, errno.ELOOP}


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
    info = _persistently(uri, lambda: _file_info(uri))
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
    return _persistently(uri, lambda: _read(uri, max_bytes))


def read_range(uri: str, start: int, length: int) -> bytes:
    """`length` bytes of the object at `uri` from `start`, fewer where it ends. Raises `StorageError`."""
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    data: bytes = _persistently(uri, lambda: filesystem.cat_file(path, start=start, end=start + length))
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """`data` becomes the object at `uri`, at once or not at all; folders come into being as needed."""
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    put = _replace_local_file if is_local(uri) else filesystem.pipe_file
    _persistently(uri, lambda: put(path, data))


def download(uri: str, path: str) -> None:
    """The object at `uri` as a new local file, in pieces: never whole in memory. Its length is checked."""
    uri = absolute(uri)
    filesystem, key = _filesystem(uri)

    def fetch() -> None:
        size = _file_info(uri).get("size")
        filesystem.get_file(key, path)
        if size is not None and os.path.getsize(path) != size:
            raise _WrongLengthError(f"{os.path.getsize(path)} bytes came where {size} were announced")

    _persistently(uri, fetch)


def upload(path: str, uri: str) -> None:
    """A local file becomes the object at `uri`, in parts, at once or not at all."""
    uri = absolute(uri)
    filesystem, key = _filesystem(uri)

    def put() -> None:
        if is_local(uri):
            _copy_local_file(path, key)
        elif split_scheme(uri)[0] in ("s3", "s3a"):
            part = max(_PART_BYTES, -(-os.path.getsize(path) // _MOST_PARTS))
            filesystem.put_file(path, key, chunksize=part, max_concurrency=_PARTS_AT_ONCE)
        else:
            filesystem.put_file(path, key)
        if (size := _file_info(uri).get("size")) != os.path.getsize(path):
            raise _WrongLengthError(f"{size} bytes arrived of {os.path.getsize(path)}")

    _persistently(uri, put)


def delete(uri: str) -> None:
    """There is no object at `uri` any more, whether or not there was one."""
    uri = absolute(uri)
    filesystem, path = _filesystem(uri)
    try:
        _persistently(uri, lambda: filesystem.rm_file(path))
    except StorageError as error:
        if error.code != "input-missing" or filesystem.isdir(path):
            raise


def list_files(prefix: str, suffixes: Sequence[str] = ()) -> Iterator[str]:
    """URIs of all objects below the folder `prefix` (or of the object `prefix`), sorted.

    suffixes: endings to keep, in any case; all when empty. Nothing there: nothing is yielded. One
    folder's names are held at a time. Local symbolic links are followed to files, not to folders.
    """
    prefix = absolute(prefix)
    endings = tuple(suffix.lower() for suffix in suffixes)
    for uri in [prefix] if exists(prefix) else _below(prefix):
        if not endings or uri.lower().endswith(endings):
            yield uri


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
        found: dict[str, Any] = _persistently(folder, lambda: filesystem.call_s3("list_objects_v2", **request))
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
        filesystem.retries = 1  # `_persistently` tries again; s3fs doing so too would multiply
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


def _persistently(uri: str, action: Callable[[], _Result]) -> _Result:
    """`action()`, tried again while it fails in a way that may pass. Raises `StorageError`."""
    give_up_at = time.monotonic() + _GIVE_UP_AFTER_S
    for number in range(1, _TRIES + 1):
        try:
            return action()
        except (ItemError, MemoryError):
            raise
        except Exception as error:  # the clients' error types have no common base
            code, reason = _code(error), _reason(error)
        pause = _FIRST_PAUSE_S * 2 ** (number - 1) * random.uniform(0.5, 1.0)
        if code != "storage-transient" or number == _TRIES or time.monotonic() + pause > give_up_at:
            break
        time.sleep(pause)
    tries = f" (tried {number} times)" if code == "storage-transient" else ""
    raise StorageError(code, f"{without_query(uri)}: {reason}{tries}")


def _code(error: Exception) -> str:
    name, (status, code) = type(error).__name__, _answer(error)
    number = getattr(error, "errno", None)
    if code in _UNUSABLE_CODES or number in _UNUSABLE_ERRNO or name == "ParamValidationError":
        return "bad-metadata"
    if isinstance(error, FileExistsError):
        return "bad-metadata"
    if isinstance(error, _MISSING) or status == 404:
        return "input-missing"
    if isinstance(error, PermissionError) or status in _DENIED_STATUS or code in _DENIED_CODES:
        return "storage-denied"
    # botocore's NoCredentialsError and its like
    if number in _DENIED_ERRNO or "Credential" in name or "Token" in name or _is_bad_endpoint(error):
        return "storage-denied"
    return "storage-transient"


def _reason(error: Exception) -> str:
    """Why, from fixed words and codes only: the texts of clients quote signed URLs and key ids."""
    status, code = _answer(error)
    if isinstance(error, _WrongLengthError):
        return str(error)
    if status is not None or code is not None:
        return f"the storage answered {' '.join(str(part) for part in (status, code) if part)}"
    if _is_bad_endpoint(error):
        return "AWS_ENDPOINT_URL must be a URL such as http://host:9000"
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    number = getattr(error, "errno", None)
    words = os.strerror(number) if isinstance(number, int) else ""
    return f"{words} ({type(error).__name__})" if words else type(error).__name__


def _is_bad_endpoint(error: Exception) -> bool:
    return isinstance(error, ValueError) and str(error).startswith("Invalid endpoint")


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    """HTTP status and error code of the storage's answer, as far as `error` tells."""
    source = error if hasattr(error, "response") else error.__cause__
    response = getattr(source, "response", None)
    if not isinstance(response, dict):
        status = getattr(error, "status", None)
        return (status if isinstance(status, int) else None), None
    code = response.get("Error", {}).get("Code")
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), None if str(code).isdigit() else code


class _WrongLengthError(Exception):
    """The body of a GET has another length than the storage said: it was cut, or replaced meanwhile."""


def _file_info(uri: str) -> dict[str, Any]:
    filesystem, path = _filesystem(uri)
    info: dict[str, Any] = filesystem.info(path)
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
        raise _WrongLengthError(f"{len(data)} bytes came where {size} were announced")
    return data, ObjectFacts(size, _etag(info))


def _copy_local_file(source: str, path: str) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f".{uuid4().hex}.part")
    try:
        shutil.copyfile(source, part)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def _replace_local_file(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f".{uuid4().hex}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        os.replace(part, os.path.join(folder, name))
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def _below(folder: str) -> Iterator[str]:
    """Files below `folder` in the order of their URIs: a folder sorts as its name and a slash."""
    entries = [(_uri_like(folder, entry["name"]), entry) for entry in _listed(folder)]
    named = [(uri + "/" * (entry["type"] == "directory"), entry) for uri, entry in entries if uri != folder]
    for uri, entry in sorted(named, key=lambda pair: pair[0]):
        if entry["type"] == "directory":
            yield from _below(uri.removesuffix("/"))
        elif entry["type"] == "file" or (entry.get("islink") and os.path.isfile(uri)):
            yield uri


def _listed(folder: str) -> list[dict[str, Any]]:
    filesystem, path = _filesystem(folder)

    def ls() -> list[dict[str, Any]]:
        try:
            return list(filesystem.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # a key ending in a slash is a tool's mark of an empty folder, or holds `//`, which `absolute` refuses
    return [entry for entry in _persistently(folder, ls) if not entry["name"].endswith("/")]


def _uri_like(folder: str, name: str) -> str:
    scheme = split_scheme(folder)[0]
    return name if scheme is None or split_scheme(name)[0] else f"{scheme}://{name.lstrip('/')}"
