"""The dashboard and the alerts ask for metrics and labels that a real worker and a real exporter show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omnifleet import MediaUnreadable
from omnifleet.gateway.middleware.metrics import GatewayMetrics
from omnifleet_shared.broker.worker_registry import GpuRecord
from omnifleet_worker.observability.collector import gpu_metrics
from omnifleet_worker.observability.metrics import WorkerMetrics
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from support import scripted_fleet, services
from support.deployment import promql
from support.scripted_fleet import WAIT, ScriptedFleet

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "monitoring"
ADDED_BY_PROMETHEUS = {"instance", "job", "le"}

Labels = dict[str, set[str]]
"""Names of labels by sample name."""


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads((MONITORING / "dashboard.json").read_text())["panels"])


def expressions() -> list[str]:
    shown = [target["expr"].replace("$queue", ".*") for panel in panels() for target in panel.get("targets", [])]
    documented = re.findall(r"```promql\n(.+?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    return [*shown, *documented, *(rule["expr"] for rule in rules())]


def labels_in(text: str) -> Labels:
    found: Labels = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


def types_in(text: str) -> set[str]:
    types = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE omnifleet")}
    return {name for name in types if not name.endswith("_created")}


class Gpu(Collector):
    """Of a worker that has one, as this machine may not."""

    def collect(self) -> Iterator[Any]:
        return gpu_metrics(GpuRecord(name="a GPU", memory_used=1, memory_total=2, busy=0.5))


def every_worker_metric() -> str:
    """The exposition of a worker to which everything that is counted has happened once."""
    metrics, registry = WorkerMetrics(), CollectorRegistry()
    registry.register(Gpu())
    metrics.jobs.begun("batch", 1.0, attempt=1, unfinished=2)
    metrics.jobs.ended("edit.Add", "failed", 1.0, ValueError())
    metrics.jobs.spent({"stored": 1.0})
    metrics.engine.worked("diffusion", 1, 1.0, 1.0)
    metrics.engine.hosted(1.0)
    metrics.engine.failed("diffusion", 1, ValueError())
    metrics.storage_errors.labels("put", "StorageRefused").inc()
    return generate_latest(metrics.registry).decode() + generate_latest(registry).decode()


def every_gateway_metric() -> str:
    """The exposition of a gateway to which everything that is counted has happened once."""
    metrics = GatewayMetrics()
    metrics.requests.labels("GET", "/v1/jobs/{job_id}", "200").inc()
    metrics.seconds.labels("/v1/jobs/{job_id}").observe(1.0)
    return generate_latest(metrics.registry).decode()


@pytest.fixture
def shown(scripted: ScriptedFleet) -> Iterator[tuple[str, str]]:
    """What a worker and an exporter show after jobs that succeeded and failed."""
    worker, port = scripted.start(), services.free_port()
    scripted.omni.of_tenant("acme").generate("t2a", "a tone", steps=2).result(WAIT)
    with pytest.raises(MediaUnreadable):
        scripted.omni.understand(question="what?", audio=b"no audio").result(WAIT)
    services.wait_until(lambda: "MediaUnreadable" in worker.page("/metrics")[1], WAIT, "the failure is counted")
    command = [sys.executable, "-m", "omnifleet", "exporter", "--port", str(port)]
    with services.process(command, environment=scripted.environment):
        services.wait_until(lambda: scripted_fleet.page(port, "/livez")[0] == 200, WAIT, "the exporter")
        yield worker.page("/metrics")[1], scripted_fleet.page(port, "/metrics")[1]


def test_dashboard_and_alerts_ask_for_what_is_there(shown: tuple[str, str]) -> None:
    worker, exporter = shown
    known: Labels = defaultdict(set)
    for text in (worker, exporter, every_worker_metric(), every_gateway_metric()):
        for name, labels in labels_in(text).items():
            known[name] |= labels

    used = [selector for expression in expressions() for selector in promql.selectors(expression)]

    assert len(used) > 50
    assert {one.metric for one in used} - set(known) == set()
    wrong = {one.metric: extra for one in used if (extra := one.labels - known[one.metric] - ADDED_BY_PROMETHEUS)}
    assert wrong == {}


def test_what_stands_in_for_the_rest_is_what_a_worker_shows(shown: tuple[str, str]) -> None:
    imagined = types_in(every_worker_metric())

    assert imagined - types_in(shown[0]) == {name for name in imagined if name.startswith("omnifleet_gpu_")}


def test_metric_names_follow_prometheus_conventions(shown: tuple[str, str]) -> None:
    for text in (*shown, every_gateway_metric()):
        for family in text_string_to_metric_families(text):
            if not family.name.startswith("omnifleet"):
                continue
            assert family.documentation.endswith(".")
            assert re.fullmatch(r"omnifleet(_[a-z]+)+", family.name)
            assert not re.search(r"_(ms|milliseconds|minutes|mb|percent)$", family.name)
            assert not any(re.search(r"[0-9a-f]{32}", str(sample.labels)) for sample in family.samples)


def test_nothing_that_is_shown_is_left_out_of_the_dashboard(shown: tuple[str, str]) -> None:
    used = {one.metric for expression in expressions() for one in promql.selectors(expression)}
    on_view = types_in(shown[0]) | types_in(shown[1]) | types_in(every_gateway_metric())

    left_out = {name for name in on_view if not any(one.startswith(name) for one in used)}

    assert left_out == set()


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in panels()]
    positions = [
        (x, y)
        for panel in panels()
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]

    assert len(set(ids)) == len(ids)
    assert len(set(positions)) == len(positions)
    assert max(x for x, _ in positions) < 24


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_page_in_the_runbook(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)

    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_runbook_has_no_page_of_an_alert_that_is_gone() -> None:
    written = re.findall(r"^#+ (Omnifleet\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)

    assert sorted(written) == sorted(rule["alert"] for rule in rules())


@pytest.mark.parametrize(
    "command",
    [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"], ["check", "config", "prometheus.yaml"]],
    ids=" ".join,
)
def test_promtool_is_content(command: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        services.missing("promtool", "apt-get install prometheus")

    done = subprocess.run([str(promtool), *command], cwd=MONITORING, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
