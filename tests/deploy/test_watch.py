"""The dashboard and the scrape configuration speak of metrics that there are."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pipeline.flow import metrics

WATCH = Path(__file__).resolve().parents[2] / "deploy" / "watch"
DASHBOARD = json.loads((WATCH / "grafana-dashboard.json").read_text(encoding="utf-8"))
OURS = set(re.findall(r"ray_unfold_\w+", metrics.__doc__ or ""))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_our_metrics_or_rays(query: str) -> None:
    named = set(re.findall(r"\bray_\w+", query))
    assert named
    assert all(name in OURS for name in named if name.startswith("ray_unfold_"))


def test_every_metric_of_ours_is_shown_but_for_the_number_of_replicas() -> None:
    shown = set(re.findall(r"\bray_unfold_\w+", " ".join(QUERIES)))
    assert shown == OURS - {"ray_unfold_replicas"}


def test_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + 8)}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
        assert panel["description"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_scrape_configuration_names_rays_own_list_of_nodes() -> None:
    config = yaml.safe_load((WATCH / "prometheus.yml").read_text(encoding="utf-8"))
    files = [f for job in config["scrape_configs"] for sd in job.get("file_sd_configs", ()) for f in sd["files"]]
    assert files == ["/tmp/ray/prom_metrics_service_discovery.json"]
