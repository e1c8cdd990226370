"""Train a USRNet on a folder of clean photographs; goes on where it stopped.

    python jobs/train_usrnet.py photographs=FOLDER output=FOLDER [key=value ...]

Pairs are made on the fly by the degradation model. Settings: conf/train_usrnet.yaml. Writes the
training's state and the averaged weights (usrnet.safetensors) to the output folder at every
`every` steps. The photographs of the packaged weights: jobs/gather_photographs.py.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from jobs.program import OK, run
from pipeline import uris
from pipeline.config.load import command_line, load_config
from pipeline.config.train import TrainConfig
from pipeline.data import images, storage
from pipeline.errors import ConfigError
from pipeline.measure.progress import duration
from pipeline.model.checkpoint import load_usrnet, model_id, save_safetensors
from pipeline.model.usrnet import TINY
from pipeline.training.loop import Progress, Recipe, Training, initial_usrnet, validation_pairs
from pipeline.training.pairs import Photograph

_MOST_PIXELS = 2**28


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(TrainConfig, line.config, line.overrides)
    if config.threads:
        torch.set_num_threads(config.threads)
    found = in_random_order(config.photographs)
    if len(found) <= config.validation:
        raise ConfigError(
            f"photographs: {config.photographs} holds {len(found)} images, and `validation` keeps {config.validation}"
        )
    validation = validation_pairs([load(uri) for uri in found[: config.validation]]) if config.validation else []
    photographs = [load(uri) for uri in found[config.validation :]]
    recipe = Recipe(**config.recipe.model_dump())
    start = load_usrnet(config.weights) if config.weights else initial_usrnet(TINY, recipe.seed)
    training = Training(start, recipe, "cuda" if torch.cuda.is_available() else "cpu")
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    state = output / "state.pt"
    if state.exists():
        training.restore(state)
    print(f"{len(photographs)} photographs to train on, {config.validation} held out, from step {training.step}")
    for progress in training.run(photographs, validation, every=config.every, checkpoint=state):
        print(words(progress, recipe), flush=True)
        save(training, output / "usrnet.safetensors")
    return OK


def in_random_order(folder: str) -> list[str]:
    """All images below `folder`, in an order that depends on their names alone."""
    root = uris.absolute(folder)
    found = storage.list_files(root, (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"))
    return sorted(found, key=lambda uri: hashlib.sha256(uri.rsplit("/", 1)[-1].encode()).hexdigest())


def load(uri: str) -> Photograph:
    """(h, w, 3) uint8; gray photographs are repeated."""
    pixels = images.decode(storage.read_bytes(uri), max_pixels=_MOST_PIXELS).pixels_hwc
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels  # type: ignore[return-value]


def words(progress: Progress, recipe: Recipe) -> str:
    done = progress.step / recipe.steps
    psnr = "" if progress.psnr_db is None else f"  validation {progress.psnr_db:.2f} dB"
    left = (recipe.steps - progress.step) * recipe.batch / progress.images_per_second
    return (
        f"step {progress.step}/{recipe.steps} {100 * done:3.0f}%  loss {progress.loss:.5f}{psnr}"
        f"  {progress.images_per_second:.1f} img/s  ETA {duration(left)}"
    )


def save(training: Training, path: Path) -> None:
    net = training.averaged()
    about = {"step": str(training.step), "recipe": repr(training.recipe), "model_id": model_id(net)}
    save_safetensors(net.state_dict(), path, about)


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
