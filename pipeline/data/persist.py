"""Doing a storage operation persistently: what may pass is waited for, what stays gets its error code.

    503 SlowDown, 429, 5xx, resets, time-outs, cut bodies   tried again for a minute, then storage-transient
    expired credentials                                     credentials-expired, at once
    refused, missing, unusable                              storage-denied, input-missing, bad-metadata, at once

Pauses double up to a limit and are jittered, so that a thousand workers do not come back as one.
Each operation starts with a full set of tries: the quota that AWS clients keep across calls would
leave a worker that lived through an outage without any. Knows the clients' errors, opens nothing.
"""

import errno
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ItemError, StorageError
from pipeline.uris import without_query

_Result = TypeVar("_Result")


_TRIES = 20
_FIRST_PAUSE_S = 0.5  # doubles: 0.5, 1, 2, 4, 8, 8, ...
_LONGEST_PAUSE_S = 8.0
_GIVE_UP_AFTER_S = 60.0  # a store that restarts is back before

_WORDS: dict[type[Exception], str] = {
    FileNotFoundError: "there is no such object",
    IsADirectoryError: "that is a folder, not an object",
    NotADirectoryError: "a part of the path is a file, not a folder",
    FileExistsError: "a file lies where a folder is needed",
}
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_DENIED_STATUS = (401, 403)
_DENIED_CODES = {"AuthorizationHeaderMalformed", "InvalidToken", "UnauthorizedAccess"}
_EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_NO_REASON = {"Bad Request", "Forbidden", "AccessDenied"}
_UNSUPPORTED_STATUS = (405, 501)
_DENIED_ERRNO = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNUSABLE_CODES = {"InvalidBucketName", "KeyTooLongError"}
_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT}  # may pass, but not by waiting a minute
_UNUSABLE_ERRNO = {errno.ENAMETOOLONG, errno.ELOOP}


class WrongLength(Exception):
    """The body of a GET has another length than the storage said: it was cut, or replaced meanwhile."""


def persistently(uri: str, action: Callable[[], _Result]) -> _Result:
    """`action()`, tried again while it fails in a way that may pass. Raises `StorageError`."""
    give_up_at = time.monotonic() + _GIVE_UP_AFTER_S
    for number in range(1, _TRIES + 1):
        try:
            return action()
        except (ItemError, MemoryError):
            raise
        except Exception as error:  # the clients' error types have no common base
            code, reason = _code(error), _reason(error)
            is_full = getattr(error, "errno", None) in _FULL_ERRNO
        pause = _FIRST_PAUSE_S * 2 ** (number - 1)
        pause = min(pause, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
        waits = code == "storage-transient" and not is_full
        if not waits or number == _TRIES or time.monotonic() + pause > give_up_at:
            break
        time.sleep(pause)
    tries = f" (tried {number} times)" if code == "storage-transient" else ""
    raise StorageError(code, f"{without_query(uri)}: {reason}{tries}")


def _code(error: Exception) -> str:
    name, (status, code) = type(error).__name__, answer(error)
    number = getattr(error, "errno", None)
    if code in _EXPIRED_CODES:
        return "credentials-expired"
    if code in _UNUSABLE_CODES or number in _UNUSABLE_ERRNO or name == "ParamValidationError":
        return "bad-metadata"
    if isinstance(error, FileExistsError):
        return "bad-metadata"
    if isinstance(error, _MISSING) or status == 404:
        return "input-missing"
    if isinstance(error, PermissionError) or status in _DENIED_STATUS + _UNSUPPORTED_STATUS:
        return "storage-denied"
        return "storage-denied"
    # botocore's NoCredentialsError and its like
    named = "Credential" in name or "Token" in name
    if code in _DENIED_CODES or number in _DENIED_ERRNO or named or _is_bad_endpoint(error):
        return "storage-denied"
    return "storage-transient"


def _reason(error: Exception) -> str:
    """Why, from fixed words and codes only: the texts of clients quote signed URLs and key ids."""
    status, code = answer(error)
    if isinstance(error, WrongLength):
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


def is_unexplained(error: Exception) -> bool:
    """A refusal without its reason: the answer to a HEAD has no body that could say `ExpiredToken`."""
    status, code = answer(error)
    return status in (400, 403) and (code is None or code in _NO_REASON)


def answer(error: BaseException) -> tuple[int | None, str | None]:
    """HTTP status and error code of the storage's answer, as far as `error` tells."""
    source = error if hasattr(error, "response") else error.__cause__
    response = getattr(source, "response", None)
    if not isinstance(response, dict):
        status = getattr(error, "status", None)
        return (status if isinstance(status, int) else None), None
    code = response.get("Error", {}).get("Code")
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), None if str(code).isdigit() else code
