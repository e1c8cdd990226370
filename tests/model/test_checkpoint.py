"""Weights in and out: what fits is taken unchanged, what does not is refused in words, no code is run."""

import contextlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import WeightsError
from pipeline.model.checkpoint import load_usrnet, model_id, save_safetensors
from pipeline.model.usrnet import TINY, Architecture, USRNet

SMALL = Architecture(iterations=3, hidden=8, widths=(6, 8, 10, 12), blocks=1)
State = dict[str, Tensor]


def random_state(architecture: Architecture) -> State:
    torch.manual_seed(0)
    return USRNet(architecture).state_dict()


@pytest.fixture(scope="module")
def full_state() -> State:
    return random_state(Architecture())


def save_zip(state: State, path: Path) -> None:
    torch.save(state, path)


def save_legacy(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_ours(state: State, path: Path) -> None:
    save_safetensors(state, path, {"note": "ä test"})


def save_theirs(state: State, path: Path) -> None:
    theirs = pytest.importorskip("safetensors.torch")
    theirs.save_file(state, path)


WRITERS = [save_zip, save_legacy, save_ours, save_theirs]


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("save", WRITERS)
def test_the_full_size_network_comes_back_from_every_format(
    full_state: State, tmp_path: Path, save: Callable[[State, Path], None]
) -> None:
    save(full_state, tmp_path / "weights")
    net = load_usrnet(tmp_path / "weights")
    assert net.architecture == Architecture()
    assert same(net.state_dict(), full_state)


@pytest.mark.parametrize(
    "architecture",
    [TINY, SMALL, Architecture(iterations=1, hidden=4, widths=(5, 6, 7, 8), blocks=3)],
)
def test_the_architecture_is_read_off_the_shapes(architecture: Architecture, tmp_path: Path) -> None:
    save_zip(random_state(architecture), tmp_path / "weights.pth")
    assert load_usrnet(tmp_path / "weights.pth").architecture == architecture


@pytest.mark.parametrize("name", ["usrnet_tiny.pth", "usrgan_tiny.pth"])
def test_the_public_checkpoints_are_taken_unchanged(reference: Path, name: str) -> None:
    net = load_usrnet(reference / name)
    assert net.architecture == TINY
    assert same(net.state_dict(), torch.load(reference / name, weights_only=True))


def test_a_loaded_network_is_ready_to_restore_and_does_not_learn(tmp_path: Path) -> None:
    save_zip(random_state(SMALL), tmp_path / "weights.pth")
    net = load_usrnet(tmp_path / "weights.pth")
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_the_packaged_weights_are_loaded_when_none_are_named() -> None:
    net = load_usrnet()
    assert net.architecture == TINY
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("save", WRITERS)
def test_a_binary_file_is_read_like_a_path(save: Callable[[State, Path], None], tmp_path: Path) -> None:
    state = random_state(SMALL)
    save(state, tmp_path / "weights")
    assert same(load_usrnet(io.BytesIO((tmp_path / "weights").read_bytes())).state_dict(), state)
    with open(tmp_path / "weights", "rb") as file:
        assert same(load_usrnet(file).state_dict(), state)


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_uri_is_read_like_a_path(scheme: str, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    state = random_state(SMALL)
    uri = f"{scheme}://{tmp_path}/weights.safetensors"
    save_ours(state, tmp_path / "here")
    with fsspec.open(uri, "wb") as file:
        file.write((tmp_path / "here").read_bytes())
    assert same(load_usrnet(uri).state_dict(), state)


def test_the_safetensors_package_reads_what_we_write(tmp_path: Path) -> None:
    theirs = pytest.importorskip("safetensors")
    state = {
        "a": torch.randn(2, 3),
        "half": torch.randn(5).half(),
        "brain": torch.randn(3, 1).bfloat16(),
        "double": torch.randn(1).double(),
        "transposed": torch.randn(4, 3).T,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
    }
    save_safetensors(state, tmp_path / "ours.safetensors", {"licence": "Apache-2.0", "steps": "17"})
    with theirs.safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata() == {"licence": "Apache-2.0", "steps": "17"}
        assert same({key: file.get_tensor(key) for key in file.keys()}, state)  # noqa: SIM118


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: tensor.to(dtype) for key, tensor in random_state(SMALL).items()}
    save_ours(state, tmp_path / "weights")
    loaded = load_usrnet(tmp_path / "weights").state_dict()
    assert same(loaded, {key: tensor.float() for key, tensor in state.items()})


@pytest.mark.parametrize("save", WRITERS)
def test_the_model_id_is_that_of_the_tensors_not_of_the_file(
    save: Callable[[State, Path], None], tmp_path: Path
) -> None:
    state = random_state(SMALL)
    save(state, tmp_path / "weights")
    net = load_usrnet(tmp_path / "weights")
    expected = USRNet(SMALL)
    expected.load_state_dict(state)
    assert model_id(net) == model_id(expected) == model_id(net.double())


def test_another_weight_gives_another_model_id() -> None:
    net = USRNet(SMALL)
    before = model_id(net)
    with torch.no_grad():
        net.h.mlp[0].get_parameter("bias")[0] += 1e-6
    assert model_id(net) != before


class Exploit:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


def refusal(path: Path) -> str:
    """What a person is told about the file at `path`, which must name it."""
    with pytest.raises(WeightsError) as raised:
        load_usrnet(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_pickled_code_is_refused_and_not_run(save: Callable[..., None], tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    save({**random_state(SMALL), "trap": Exploit(trap)}, tmp_path / "evil.pth")
    assert "never run" in refusal(tmp_path / "evil.pth")
    assert not trap.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert trap.exists(), "the trap does not work, so this test shows nothing"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch says so before it refuses
def test_a_bare_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Exploit(trap)))
    refusal(tmp_path / "evil.pth")
    assert not trap.exists()
    pickle.loads((tmp_path / "evil.pth").read_bytes())
    assert trap.exists(), "the trap does not work, so this test shows nothing"


@pytest.mark.parametrize("key", sorted(random_state(SMALL)))
def test_a_missing_tensor_is_named(tmp_path: Path, key: str) -> None:
    state = random_state(SMALL)
    del state[key]
    save_zip(state, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert key in said or "p.m_body" in key  # a missing body tensor reads as fewer blocks


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    save_zip({**random_state(SMALL), "p.m_extra.weight": torch.zeros(1)}, tmp_path / "w.pth")
    assert "p.m_extra.weight" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("p.m_head.weight", (6, 3, 3, 3)),
        ("p.m_up1.1.res.0.weight", (6, 6, 5, 5)),
        ("p.m_tail.weight", (1, 6, 3, 3)),
        ("h.mlp.2.bias", (9,)),
        ("h.mlp.4.weight", (7, 8, 1, 1)),
        ("h.mlp.4.weight", (1, 8, 1, 1)),
        ("h.mlp.4.weight", (0, 8, 1, 1)),
        ("p.m_head.weight", ()),
    ],
)
def test_a_tensor_of_a_wrong_shape_is_named(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    save_zip({**random_state(SMALL), key: torch.zeros(shape)}, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert key in said or "h.mlp.4" in said


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"params": {"p.m_head.weight": torch.zeros(1)}},
        {"step": 7},
        {0: torch.zeros(1)},
        torch.zeros(3),
        {},
    ],
)
def test_what_is_not_a_state_dict_of_usrnet_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    said = refusal(tmp_path / "w.pth")
    assert "state dict" in said or "not a USRNet" in said


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nowhere.pth")


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path)


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(WeightsError, match="gopher"):
        load_usrnet("gopher://example.org/weights.pth")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with b''"),
        (b"hello, these are no weights\n", "begins with b'hello"),
        (b"<!DOCTYPE html><html><title>404 Not Found</title>", "<!DOCTYPE html>"),
        (b'{"message": "Access Denied", "code": 403}', "Access"),
        (b'12345678{"text": "with a brace where a header would begin"}', "12345678"),
        (bytes(range(256)) * 8, "neither"),
    ],
)
def test_a_file_of_another_kind_is_refused_showing_how_it_begins(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    said = refusal(tmp_path / "weights.pth")
    assert "neither a .pth state dict nor .safetensors" in said
    assert says in said


@pytest.mark.parametrize("save", WRITERS)
@pytest.mark.parametrize("kept", [0.001, 0.02, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, save: Callable[[State, Path], None], kept: float) -> None:
    save(random_state(SMALL), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(kept * len(whole))])
    said = refusal(tmp_path / "cut")
    assert "cut short" in said or "neither" in said


@pytest.mark.parametrize(
    "header",
    [
        {"p.m_head.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"p.m_head.weight": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"p.m_head.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}},
        {"p.m_head.weight": {"dtype": "I7", "shape": [1], "data_offsets": [0, 4]}},
        {"p.m_head.weight": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
        {"p.m_head.weight": {"shape": [1]}},
        {"p.m_head.weight": 3},
        [],
    ],
)
def test_a_damaged_safetensors_header_is_refused(tmp_path: Path, header: object) -> None:
    text = json.dumps(header).encode()
    text = text if text.startswith(b"{") else b"{" + text
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    assert "damaged or cut short" in refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch says so before it refuses
def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for save in (save_zip, save_legacy, save_ours):
        save(random_state(SMALL), tmp_path / "sound")
        sound = (tmp_path / "sound").read_bytes()
        for _ in range(40):
            damaged = bytearray(sound)
            for at in rng.integers(0, min(len(sound), 4000), 8):
                damaged[at] = rng.integers(256)
            with contextlib.suppress(WeightsError):
                load_usrnet(io.BytesIO(bytes(damaged)))
