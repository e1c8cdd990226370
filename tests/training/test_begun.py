"""A training that goes on is the one that was begun."""

from pathlib import Path

import pytest

from pipeline.data.folder import StoredFolder
from pipeline.errors import ConfigError
from pipeline.training.begun import Begun, recalled, refuse_other_weights, remember
from pipeline.training.output import LocalFolder, States


def test_it_is_recalled_once_there_is_a_state(tmp_path: Path) -> None:
    store, begun = LocalFolder(tmp_path), Begun("abc", ("a.png", "b/c.png"))
    remember(store, begun)
    assert recalled(store) is None, "nothing was trained yet, so anything may still be chosen"
    States(store).save(4, b"state")
    assert recalled(store) == begun


def test_other_weights_are_refused_with_the_mend(tmp_path: Path) -> None:
    refuse_other_weights(None, Begun("b", ()))
    refuse_other_weights(Begun("b", ("x",)), Begun("b", ()))
    with pytest.raises(ConfigError, match=r"weights: .*model id a, these are b.*another output"):
        refuse_other_weights(Begun("a", ()), Begun("b", ()))


def test_an_output_of_before_there_was_this_file_goes_on(tmp_path: Path) -> None:
    States(LocalFolder(tmp_path)).save(4, b"state")
    assert recalled(LocalFolder(tmp_path)) is None


def test_a_bucket_without_this_file_is_no_error(s3_prefix: str) -> None:
    States(StoredFolder(s3_prefix)).save(4, b"state")
    assert recalled(StoredFolder(s3_prefix)) is None


def test_damage_is_told(tmp_path: Path) -> None:
    States(LocalFolder(tmp_path)).save(4, b"state")
    (tmp_path / "begun.json").write_text("{")
    with pytest.raises(ConfigError, match=r"begun\.json is damaged"):
        recalled(LocalFolder(tmp_path))
