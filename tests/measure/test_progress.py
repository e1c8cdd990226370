"""A line every few seconds: for people, and for collectors of logs."""

import io
import json

from pipeline.measure.log import json_line, sayer
from pipeline.measure.progress import Progress
from pipeline.records import DONE, FAILED, Outcome

RESTORED = Outcome(
    "a", status=DONE, sr_width=1000, sr_height=2000, seconds_read=0.1, seconds_restore=1.0, seconds_write=0.2
)
LOST = Outcome("b", status=FAILED, error_code="corrupt-image")


def progress(log: str, stream: io.StringIO) -> Progress:
    made = Progress(8, every=60, stream=stream, clock=iter([0.0, *[4.0] * 20]).__next__, log=log)
    made.stages.workers = {"read": 2, "restore": 1, "write": 2}
    return made


def test_the_line_tells_rates_of_stages_and_names_the_bottleneck() -> None:
    stream = io.StringIO()
    with progress("text", stream) as shown:
        shown.add([RESTORED, LOST])
    (line,) = stream.getvalue().splitlines()
    assert "2/8   25%  0.50 img/s  ETA 12s  1 failed  2.0 MP, 0.50 MP/s" in line
    assert line.endswith("read 20/s  restore 1/s (bottleneck)  write 10/s")


def test_as_json_the_line_is_one_object_with_the_same_facts() -> None:
    stream = io.StringIO()
    with progress("json", stream) as shown:
        shown.add([RESTORED, LOST])
    (line,) = stream.getvalue().splitlines()
    facts = json.loads(line)
    assert facts.pop("time").endswith("+00:00")
    assert facts == {
        "event": "progress",
        "items": 2,
        "total": 8,
        "done": 1,
        "failed": {"corrupt-image": 1},
        "hr_megapixels": 2.0,
        "seconds": 4.0,
        "stage_rates": {"read": 20.0, "restore": 1.0, "write": 10.0},
        "bottleneck": "restore",
    }


def test_a_terminal_gets_no_bar_when_json_is_asked_for() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with progress("json", stream) as shown:
        shown.add([RESTORED])
    assert json.loads(stream.getvalue())["done"] == 1


def test_what_a_job_says_is_one_line_whatever_it_holds() -> None:
    stream = io.StringIO()
    sayer("json", stream)("two\nlines and a \u2028 separator")
    (line,) = stream.getvalue().split("\n")[:-1]
    assert json.loads(line)["text"] == "two\nlines and a \u2028 separator"
    sayer("text", stream)("plain")
    assert stream.getvalue().endswith("}\nplain\n")
    assert json.loads(json_line("x", path="é"))["path"] == "é"
