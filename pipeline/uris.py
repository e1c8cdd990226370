"""URIs and paths as text: one spelling for each object, and where a result mirrors it.

`s3://bucket/key`, `memory://key` and plain absolute paths; `file://` becomes a plain path.
Opens nothing: knows no storage.
"""

import os
import posixpath
import re
import unicodedata

from pipeline.errors import ItemError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file", "local")
_WEB = ("http", "https")


def absolute(uri: str, root: str | None = None) -> str:
    """The one spelling of `uri`: a plain absolute path, or `scheme://bucket/key`.

    root: URI or path that a relative `uri` is below; the working directory when None.
    Local paths are normalised. Elsewhere `.`, `..` and empty segments are names of their own that
    storages disagree about, so they raise `ItemError` bad-metadata, as control characters do
    everywhere. One trailing slash is dropped.
    """
    _refuse_unprintable(uri)
    scheme, rest = split_scheme(uri)
    if scheme is None and not uri.startswith("/"):
        return absolute(f"{absolute(root or os.getcwd())}/{uri}")
    if scheme is None or scheme in _LOCAL:
        return _local_path(uri, rest)
    if scheme == "memory":
        rest = rest.removeprefix("/")
    return f"{scheme}://{_checked_key(uri, scheme, rest)}"


def join(root: str, *parts: str) -> str:
    """`root` and the keys below it as one URI."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))]) or "/"


def mirrored_key(uri: str, root: str) -> str:
    """The path of `uri` below `root`; `<scheme>/<bucket>/path` for what lies elsewhere.

    The scheme of local paths is `file`. The key has no `..` segment and no query of a web address.
    """
    uri, root = without_query(absolute(uri)), without_query(absolute(root))
    below = "/" if root == "/" else root + "/"
    if uri.startswith(below) and uri != below:
        return uri[len(below) :]
    scheme, rest = split_scheme(uri)
    return f"{scheme or 'file'}/{rest.strip('/')}"


def split_scheme(uri: str) -> tuple[str | None, str]:
    match = _SCHEME.match(uri)
    return (match[1].lower(), uri[match.end() :]) if match else (None, uri)


def is_local(uri: str) -> bool:
    return split_scheme(uri)[0] is None


def without_query(uri: str) -> str:
    """Web addresses without query and password: both may hold a secret."""
    scheme, rest = split_scheme(uri)
    if scheme is None:
        return uri
    bucket, slash, key = rest.partition("/")
    if scheme in _WEB:
        key = key.split("?", 1)[0]
    return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}"


def _refuse_unprintable(uri: str) -> None:
    if not uri:
        raise ItemError("bad-metadata", "the uri is empty; give a path or a URI")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in uri):
        message = f"{without_query(uri)!r} holds a control character or is no valid Unicode; rename the object"
        raise ItemError("bad-metadata", message)


def _local_path(uri: str, rest: str) -> str:
    path = rest.removeprefix("localhost")
    if not path.startswith("/"):
        raise ItemError("bad-metadata", f"{uri!r} names a host; write file:///path with three slashes")
    return posixpath.normpath(re.sub("^/+", "/", path))  # POSIX leaves two leading slashes alone


def _checked_key(uri: str, scheme: str, rest: str) -> str:
    path, query = rest, ""
    if scheme in _WEB and "?" in rest:
        path, query = rest.split("?", 1)
    path = path.removesuffix("/")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            wrong = f"the segment `{segment}`" if segment else "an empty segment (`//`)"
            message = f"{without_query(uri)!r} has {wrong}; name the object as scheme://bucket/key, or rename it"
            raise ItemError("bad-metadata", message)
    return f"{path}?{query}" if query else path
