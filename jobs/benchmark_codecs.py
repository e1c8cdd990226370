"""What decoding and encoding cost beside restoring, per format: one Markdown table.

    python jobs/benchmark_codecs.py [megapixels]

CPU seconds per megapixel of one thread, so that a busy machine shows the same. The picture is a
mosaic of photographs with sensor noise. An archive of each format through the stages is part of
`jobs/benchmark.py pipeline`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, run
from pipeline.bench import formats
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Restorer


def main(argv: Sequence[str]) -> int:
    picture = formats.photographs(float(argv[0]) if argv else 4.0)
    restore = formats.restore_cost(Restorer(load_usrnet()), picture)
    print(f"restoring: {restore:.2f} CPU seconds a megapixel of result\n")
    print("| format | bits | encode, ms/MP | decode, ms/MP | MB/MP | encode, share of restoring |")
    print("|---|---|---|---|---|---|")
    for cost in formats.codec_costs(picture):
        figures = f"{1000 * cost.encode:.0f} | {1000 * cost.decode:.0f} | {cost.megabytes:.2f}"
        print(f"| {cost.name} | {cost.bits} | {figures} | {cost.encode / restore:.1%} |")
    return OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
