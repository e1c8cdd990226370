"""A forecast as a page for a person."""

from pipeline.forecast import Cell, Forecast
from pipeline.measure.forecast import forecast_words, size


def test_the_page_tells_counts_reasons_workload_and_cost() -> None:
    cell = Cell(2, "1-4 MP", 7, 2.5, 10.0, 125.0, 3e7)
    words = forecast_words(
        Forecast(
            catalog_items=12,
            done=2,
            waiting=1,
            todo=8,
            invalid={"bad-scale": 1},
            unreadable={"input-missing": 1},
            cells=[cell],
            sizes={"from headers": 7, "guessed": 0},
            hr_megapixels=10.0,
            hr_megapixels_per_second=0.08,
            seconds=130.0,
            device="GPU",
            device_hours=0.04,
            price_per_hour=2.0,
            cost=0.08,
        )
    )
    assert "12 in the catalog" in words
    assert "1 bad-scale (permanent): give an integer scale" in words
    assert "1 input-missing (permanent)" in words
    assert "2m 05s" in words, "of the cell"
    assert "about 2m 10s" in words
    assert "0.08 at 2 a GPU hour" in words
    assert "sizes: 7 from headers\n" in words
    assert words.endswith("Nothing was written.")


def test_the_page_tells_how_many_images_go_by_windows_and_what_room_they_need() -> None:
    made = Forecast(3, 0, 0, 3, large=2, large_hr_megapixels=412.4, whole_megapixels=100.0, scratch_bytes=1.4e9)
    made.hr_megapixels_per_second, made.replicas, made.replicas_busy = 0.3, 4, 1.25
    words = forecast_words(made)
    assert "large: 2 of 412 HR MP exceed 100 each (restore.whole_megapixels)" in words
    assert "scratch     nothing spilled to disk, 1.4 GB of restore.scratch for each replica" in words
    assert "4 replicas, 1.2 of them at work in the mean" in words
    assert "large" not in forecast_words(Forecast(3, 0, 0, 3))


def test_with_nothing_to_do_there_is_no_estimate() -> None:
    words = forecast_words(Forecast(3, done=3, waiting=0, todo=0))
    assert "time" not in words
    assert "done      3" in words


def test_sizes_read_well() -> None:
    assert [size(n) for n in (0, 999, 1234, 5.1e9, 2e16)] == ["0 B", "999 B", "1.2 kB", "5.1 GB", "20.0 PB"]


def test_where_nothing_could_be_measured_no_figure_is_made_up() -> None:
    words = forecast_words(Forecast(1, done=0, waiting=0, todo=1, cells=[Cell(2, "1-4 MP", 1, 0.5, 2.0)], seconds=9.0))
    assert "unknown" in words
    assert "9s" not in words
