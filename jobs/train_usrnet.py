"""Train a USRNet, or fine-tune one, on a folder of clean photographs; goes on where it stopped.

    python jobs/train_usrnet.py photographs=FOLDER output=FOLDER [key=value ...]
    python jobs/train_usrnet.py photographs=FOLDER output=FOLDER weights=packaged recipe.steps=50

Pairs are made on the fly by the degradation model. Runs on Ray Train: one CPU worker, or
workers.count of them. Settings: conf/train_usrnet.yaml; guide: docs/training.md. Writes states,
averaged weights and curves to the output every `every` steps. Exit codes: 0 trained to the end,
2 bad config, photographs or weights, 4 not finished, run again to go on.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, run
from pipeline.config.load import command_line, load_config
from pipeline.config.train import TrainConfig


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(TrainConfig, line.config, line.overrides)

    from pipeline.flow.training import train  # Ray takes seconds to import; a typo should not

    train(config, lambda text: print(text, flush=True))
    return OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
