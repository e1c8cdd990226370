"""Run a packed training in one call, or in several: it goes on where it stopped.

    python jobs/train_packed.py PACK.zip OUTPUT [--seconds 540] [--every 500]

Needs Python with torch and numpy, nothing else; takes the GPU if there is one. PACK.zip comes from
jobs/pack_training.py. OUTPUT is a local folder; taken along to the next machine, it is gone on with
there. Exit codes: 0 trained to the end, 2 bad pack or state, 4 not finished, call again to go on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from jobs.program import NOT_FINISHED, OK, run
from pipeline.errors import ConfigError
from pipeline.training.loop import Training, validation_pairs
from pipeline.training.output import LocalFolder
from pipeline.training.pack import read_pack
from pipeline.training.pairs import Source
from pipeline.training.resume import Pace, go_on, words


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    pack = read_pack(args.pack)
    output = LocalFolder(args.output)
    make(args.output)
    training = Training(pack.start, pack.recipe, device, perceptual=pack.perceptual)
    source = Source(pack.photographs, pack.recipe, pack.kernels)
    validation = validation_pairs(pack.validation, pack.recipe, pack.kernels, device=device)
    loaders = args.loaders if args.loaders is not None else (8 if device.type == "cuda" else 0)
    pace = Pace(args.every, args.keep, args.seconds, loaders)
    print(f"{len(pack.photographs)} crops to train on, {len(pack.validation)} held out, on {device}", flush=True)
    for progress in go_on(training, source, validation, output, pace, print):
        print(words(progress), flush=True)
    print(f"stopped after step {training.step} of {pack.recipe.steps}", flush=True)
    return OK if training.step >= pack.recipe.steps else NOT_FINISHED


def make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"OUTPUT must be a folder that can be written to: {error}") from None


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pack", type=Path, metavar="PACK.zip")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--seconds", type=float, help="stop after so long, the state kept")
    parser.add_argument("--every", type=int, default=500, help="steps between lines and states (default: 500)")
    parser.add_argument("--keep", type=int, default=3, help="newest states kept (default: 3)")
    parser.add_argument("--loaders", type=int, help="processes that crop ahead (default: 8 with a GPU, else 0)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    return parser.parse_args(list(argv))


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
