"""The audit finds each kind of disorder, and nothing where there is none."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs import check_archive
from pipeline import uris
from pipeline.audit import FINDINGS, audit
from pipeline.data import localfiles, manifest, storage, uploads
from pipeline.data.audit import Claim, damage
from pipeline.records import DONE, FAILED, Outcome
from pipeline.resolve import item_id_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["file", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An archive of three done items and a failed one, in order."""
    root = str(tmp_path) if request.param == "file" else request.getfixturevalue("s3_prefix")
    storage.write_bytes(f"{root}/catalog.csv", b"uri,id\n" + b"".join(b"%c.png,%c\n" % (c, c) for c in b"abcx"))
    for name in "abc":
        done(f"{root}/out", name)
    manifest.write_part(f"{root}/out", "r", [Outcome("x", "w", "r", FAILED, written_at=NOW)])
    return f"{root}/out"


def done(output: str, name: str, key: str | None = None) -> None:
    uri = uris.join(output, "images", key or f"{name}.png")
    storage.write_bytes(uri, b"12345")
    row = Outcome(name, "w", "r", DONE, sr_uri=uri, output_bytes=5, written_at=NOW)
    manifest.write_part(output, f"r-{key}", [row])


def found(output: str) -> dict[str, list[str]]:
    result = audit(uris.join(output.rpartition("/")[0], "catalog.csv"), output)
    return {kind: names for kind in FINDINGS if (names := getattr(result, kind))}


def test_an_archive_in_order_shows_nothing(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(output) == {}
    catalog = uris.join(output.rpartition("/")[0], "catalog.csv")
    assert check_archive.main([f"catalog={catalog}", f"output={output}"]) == 0
    assert "4 items in the catalog, 3 done, 1 failed" in capsys.readouterr().out


def test_each_kind_of_disorder_is_found(output: str) -> None:
    storage.delete(f"{output}/images/a.png")
    storage.write_bytes(f"{output}/images/b.png", b"1234")
    storage.write_bytes(f"{output}/images/old/z.png", b"1")
    done(output, "stranger")
    done(output, "c", key="again.png")
    catalog = uris.join(output.rpartition("/")[0], "catalog.csv")
    storage.write_bytes(catalog, storage.read_bytes(catalog) + b"new.png,new\nnew.png,new\n")
    seen = found(output)
    assert sorted(seen.pop("gone")) == ["a", "b"]
    orphans = seen.pop("orphans")
    assert uris.join(output, "images/old/z.png") in orphans
    assert len(orphans) == 2, "and one of the two results of c"
    assert seen == {"strangers": ["stranger"], "doubled": ["c"], "waiting": ["new", "new#row-6"]}


def test_a_row_without_an_address_is_known_by_its_number_as_in_the_plan(output: str) -> None:
    catalog = uris.join(output.rpartition("/")[0], "catalog.csv")
    storage.write_bytes(catalog, storage.read_bytes(catalog) + b",\n")
    assert found(output)["waiting"] == [item_id_of({"uri": None, "id": None}, output, 4)]


def test_one_object_of_two_items_is_found(output: str) -> None:
    done(output, "x", key="a.png")
    assert found(output)["shared"] == [uris.join(output, "images/a.png")]


def test_compaction_by_the_job_leaves_one_part(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = uris.join(output.rpartition("/")[0], "catalog.csv")
    assert check_archive.main(["--compact", f"catalog={catalog}", f"output={output}"]) == 0
    assert "manifest: 4 parts before, 1 now" in capsys.readouterr().out


def test_uploads_left_behind_are_found_and_aborted(s3_prefix: str) -> None:
    filesystem, path = storage._filesystem(f"{s3_prefix}/out/images/large.tif")
    bucket, _, key = path.partition("/")
    upload = filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    filesystem.call_s3(
        "upload_part", Bucket=bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"x" * 5_000_000
    )
    assert uploads.unfinished(f"{s3_prefix}/out") == [f"{s3_prefix}/out/images/large.tif"]
    assert uploads.unfinished(f"{s3_prefix}/ou") == []
    assert not storage.exists(f"{s3_prefix}/out/images/large.tif")
    assert uploads.abort(f"{s3_prefix}/out") == 1
    assert uploads.unfinished(f"{s3_prefix}/out") == []


def test_a_temporary_file_left_behind_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / ".0123.part").write_bytes(b"half")
    assert [localfiles.is_temporary(uri) for uri in storage.list_files(str(tmp_path))] == [True]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(b"12345", None), (b"1234", "has 4 bytes"), (b"54321", "has other content"), (None, "is gone")],
)
def test_an_output_is_what_the_manifest_says_or_it_is_said_what_is_wrong(
    content: bytes | None, wrong: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{tmp_path}/x.png"
    if content is not None:
        storage.write_bytes(uri, content)
    monkeypatch.setattr(storage, "_PART_BYTES", 2)  # a large object is read in pieces
    claim = Claim("x", uri, 5, "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5")
    message = damage(claim)
    assert message is None if wrong is None else message is not None and wrong in message
