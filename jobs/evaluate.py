"""The paper's tables for one's own weights and images, beside bicubic and the published figures.

    python jobs/evaluate.py images=FOLDER output=FOLDER table1.kernels=FILE.npz#NAME [key=value ...]

Table 1: 12 kernels x scales x noise, RGB PSNR; Table 2: bicubic degradation, PSNR of Y; both with
SSIM. The protocol, quirks included, is the authors' (pipeline/measure/paper.py); bicubic has its
half-pixel phase corrected. It runs on Ray and goes on where it stopped. Settings:
conf/evaluate.yaml. Writes cells/*.parquet, one row a cell and image, and tables.md. Exit codes: 0
done, 2 bad configuration, images, kernels or weights, 4 not finished, run again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from jobs.program import OK, run
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.load import command_line, load_config


def main(argv: Sequence[str]) -> int:
    line = command_line(argv, __file__, about=__doc__)
    config = load_config(EvaluateConfig, line.config, line.overrides)

    from pipeline.flow.evaluate import evaluate  # Ray takes seconds to import; a typo should not

    print(evaluate(config, say=lambda text: print(text, file=sys.stderr, flush=True)))
    return OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
