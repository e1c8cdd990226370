"""Values shown to a person: short, on one line, and never with a credential.

Credentials belong in the environment, so a URI that carries one is refused before it can reach a
plan, a log or the manifest; the refusal must not repeat it. Pure text: knows no storage.
"""

import re

# scheme://user:password@host, but not scheme://host:9000/path@2x.png; and signed or keyed queries.
_USERINFO = re.compile(r"://[^/:@\s]*:(?!\d+/)[^@\s]+@")
_QUERY = re.compile(
    r"[?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig)=",
    re.IGNORECASE,
)

MEND = "remove it from the URI and give credentials by the environment (AWS_ACCESS_KEY_ID, ...)"


def holds_secret(text: str) -> bool:
    """True for a URI with a password in it, or with the signature of a presigned request."""
    return _USERINFO.search(text) is not None or _QUERY.search(text) is not None


def shown(value: object, limit: int = 100) -> str:
    """`repr(value)` for a message: cut to `limit` characters, and withheld if it holds a secret."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "a huge number"
    if holds_secret(text):
        return "(not shown: it holds a credential)"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
