"""What counts as a credential in a URI, and what a message may show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.credentials import holds_secret, shown

letters = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1)


@given(user=letters, password=letters, host=letters)
def test_every_password_before_a_host_is_found(user: str, password: str, host: str) -> None:
    for scheme in ("s3", "https", "sftp"):
        assert holds_secret(f"{scheme}://{user}:{password}@{host}/a.png")
        assert holds_secret(f"{scheme}://:{password}@{host}")
        assert holds_secret(f"{scheme}://{user}:x/{password}@{host}/a.png"), "AWS secrets hold slashes"


@pytest.mark.parametrize(
    "name", ["X-Amz-Signature", "x-amz-security-token", "X-Goog-Signature", "sig", "AWSAccessKeyId"]
)
def test_every_signed_query_is_found(name: str) -> None:
    assert holds_secret(f"https://host/a.png?{name}=x")
    assert holds_secret(f"https://host/a.png?a=b&{name}=x")


@given(st.text(st.characters(codec="utf-8", exclude_characters=":?&")))
def test_a_key_without_colon_or_query_is_none(key: str) -> None:
    assert not holds_secret(f"s3://bucket/{key}")
    assert not holds_secret(f"s3://host:9000/{key}")


@pytest.mark.parametrize("uri", ["s3://b/a:b@2x.png", "sftp://user@host/a", "https://h/a?design=1&signal=2", "a:b@c"])
def test_what_only_looks_alike_is_none(uri: str) -> None:
    assert not holds_secret(uri)


def test_a_shown_value_is_short_on_one_line_and_without_secret() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 1000)) == 100
    assert shown(10**5000) == "a huge number"
    assert "hunter2" not in shown({"uri": ["s3://a:hunter2@b" + "c" * 1000]})
