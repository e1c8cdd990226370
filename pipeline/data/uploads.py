"""Multipart uploads to S3 that were begun and never ended: nobody sees them, and they are paid for."""

from functools import partial
from typing import Any

from pipeline.data.persist import persistently
from pipeline.data.storage import _filesystem
from pipeline.uris import absolute, split_scheme


def unfinished(prefix: str) -> list[str]:
    """URIs below `prefix` of multipart uploads that were begun and neither completed nor aborted."""
    return [f"s3://{upload['Bucket']}/{upload['Key']}" for upload in _uploads(absolute(prefix))]


def abort(prefix: str) -> int:
    """Abort the multipart uploads that are unfinished below `prefix`; returns how many there were.

    Nobody may be writing there.
    """
    prefix = absolute(prefix)
    uploads = _uploads(prefix)
    for upload in uploads:
        filesystem, _ = _filesystem(prefix)
        persistently(prefix, partial(filesystem.call_s3, "abort_multipart_upload", **upload))
    return len(uploads)


def _uploads(prefix: str) -> list[dict[str, str]]:
    """Bucket, Key and UploadId of each; only S3 has such things."""
    if split_scheme(prefix)[0] not in ("s3", "s3a"):
        return []
    filesystem, path = _filesystem(prefix)
    bucket, _, key = path.partition("/")
    below = f"{key}/" if key else ""
    page: dict[str, Any] = {"IsTruncated": True}
    found: list[dict[str, str]] = []
    while page.get("IsTruncated"):
        markers = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
        where = {name: marker for name, marker in markers.items() if marker}
        list_page = partial(filesystem.call_s3, "list_multipart_uploads", Bucket=bucket, Prefix=below, **where)
        page = persistently(prefix, list_page)
        listed = [{"Bucket": bucket, "Key": u["Key"], "UploadId": u["UploadId"]} for u in page.get("Uploads", [])]
        found += [upload for upload in listed if upload["Key"].startswith(below)]
    return found
