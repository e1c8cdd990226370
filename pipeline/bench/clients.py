"""CPU time of S3 clients: one small object put and got again, by the flow's `storage` and by bare clients.

Of this process alone: the server's part is not the client's. process_time counts all its threads.
"""

import os
from collections.abc import Callable, Iterator
from time import process_time
from typing import Any

from pipeline.data import storage

_BYTES = 12_000  # about a 64×64 PNG photograph
_ONCE = 20  # requests that open connections and load modules

Put = Callable[[str, bytes], object]
Get = Callable[[str], bytes]


def cpu_ms_per_item(root: str, count: int = 500) -> dict[str, float]:
    """root: s3://bucket/prefix. By client, CPU milliseconds of a PUT and a GET."""
    return {name: _cost(root, count, put, get) for name, put, get in _clients(root)}


def _cost(root: str, count: int, put: Put, get: Get) -> float:
    data, begin = os.urandom(_BYTES), 0.0
    for number in range(-_ONCE, count):
        if number == 0:
            begin = process_time()
        uri = f"{root}/{number}"
        put(uri, data)
        if get(uri) != data:
            raise RuntimeError(f"{uri} came back altered")
    return round(1000 * (process_time() - begin) / count, 3)


def _clients(root: str) -> Iterator[tuple[str, Put, Get]]:
    yield "storage (s3fs, checked and retried)", storage.write_bytes, storage.read_bytes
    s3fs: Any = storage.filesystem(root)[0]
    yield "s3fs", s3fs.pipe_file, s3fs.cat_file
    arrow = _arrow()
    yield "pyarrow", lambda uri, data: _arrow_put(arrow, uri, data), lambda uri: _arrow_get(arrow, uri)
    botocore = _botocore()
    yield (
        "botocore",
        lambda uri, data: botocore.put_object(**_place(uri), Body=data),
        lambda uri: botocore.get_object(**_place(uri))["Body"].read(),
    )


def _place(uri: str) -> dict[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def _arrow() -> Any:
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.partition("://")
    return S3FileSystem(endpoint_override=host or None, scheme=scheme or "https")


def _arrow_put(arrow: Any, uri: str, data: bytes) -> None:
    with arrow.open_output_stream(uri.removeprefix("s3://")) as stream:
        stream.write(data)


def _arrow_get(arrow: Any, uri: str) -> bytes:
    with arrow.open_input_stream(uri.removeprefix("s3://")) as stream:
        data: bytes = stream.read()
        return data


def _botocore() -> Any:
    import botocore.session

    return botocore.session.get_session().create_client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
