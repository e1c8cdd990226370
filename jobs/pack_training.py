"""Pack a training into one file, to be run where there is no Ray, no network and no bucket.

    python jobs/pack_training.py PACK.zip photographs=FOLDER [key=value ...]
    python jobs/train_packed.py PACK.zip OUTPUT --seconds 540      # there: torch and numpy suffice

Takes the settings of jobs/train_usrnet.py (conf/train_usrnet.yaml); what concerns the run itself
(workers, every, keep, seconds, output) is given there. `--megabytes` bounds the file, `--side` is
the crops'.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, run
from pipeline.config.load import load_config
from pipeline.config.train import TrainConfig
from pipeline.errors import ConfigError


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    overrides = ["output=unused", *args.overrides]
    config = load_config(TrainConfig, args.config, overrides)
    if args.side < config.recipe.patch:
        raise ConfigError(f"--side {args.side} is less than recipe.patch = {config.recipe.patch}; enlarge it")

    from pipeline.flow.material import gather, recipe_of
    from pipeline.training.pack import Pack, write_pack

    recipe = recipe_of(config)
    found = gather(config, recipe, print)
    pack = Pack(recipe, found.start, found.perceptual, found.kernels, [*found.photographs], [*found.validation])
    trained, held = write_pack(args.pack, pack, side=args.side, most_bytes=int(args.megabytes * 1e6))
    size = args.pack.stat().st_size / 1e6
    print(f"{args.pack}: {size:.1f} MB, {trained} crops to train on, {held} held out")
    return OK


def parse(argv: Sequence[str]) -> argparse.Namespace:
    default = Path(__file__).resolve().parent.parent / "conf" / "train_usrnet.yaml"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("pack", type=Path, metavar="PACK.zip")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")
    parser.add_argument("--config", type=Path, default=default)
    parser.add_argument("--megabytes", type=float, default=45.0, help="of the pack at most (default: 45)")
    parser.add_argument("--side", type=int, default=144, help="of a crop, pixels (default: 144)")
    return parser.parse_intermixed_args(list(argv))


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
