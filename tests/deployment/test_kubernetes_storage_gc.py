"""The cleaning of the storage in a cluster: a component that is in no overlay, tried in one of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from omnifleet.cli import app
from omnifleet_shared.keys import COLLECTED
from support.deployment import manifests
from support.deployment.manifests import ROOT, Overlay
from typer.testing import CliRunner

VERSIONS = ("1.32", "1.34", "1.36")
COMPONENT = ROOT / "k8s/components/storage-gc"


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    parts = {"resources": ["base"], "components": [f"components/{name}" for name in ("redis", "minio", "storage-gc")]}
    kustomization: dict[str, Any] = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    kustomization |= {kind: [os.path.relpath(ROOT / "k8s" / one, tmp_path) for one in parts[kind]] for kind in parts}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(kustomization))
    return manifests.render_folder(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(overlay: Overlay, version: str) -> None:
    for resource in overlay.resources:
        kubernetes_validate.validate(resource, version, strict=True)


def test_it_runs_a_command_that_exists_with_settings_that_are_read(overlay: Overlay) -> None:
    (container,) = manifests.containers(overlay.get("CronJob", "storage-gc")["spec"]["jobTemplate"])

    assert CliRunner().invoke(app, [*container["args"], "--help"]).exit_code == 0
    assert overlay.environment(container).keys() >= {"OMNIFLEET_REDIS_URL", "OMNIFLEET_STORAGE", "AWS_ACCESS_KEY_ID"}


def test_it_may_delete_where_it_collects_and_nowhere_else() -> None:
    policy = json.loads((COMPONENT / "policy.json").read_text())
    (where,) = (one["Resource"] for one in policy["Statement"] if "s3:DeleteObject" in one["Action"])

    assert where == [f"arn:aws:s3:::omnifleet/media/{prefix}*" for prefix in COLLECTED]


def test_both_ends_of_its_flows_are_open(overlay: Overlay) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in overlay.of_kind("NetworkPolicy")}
    own = overlay.get("CronJob", "storage-gc")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]

    assert manifests.matches(policies["storage-gc"]["podSelector"], own)
    for server in ("redis", "minio"):
        (rule,) = policies[f"{server}-from-storage-gc"]["ingress"]
        assert overlay.selected(policies[f"{server}-from-storage-gc"]["podSelector"]) == {server}
        assert manifests.matches(rule["from"][0]["podSelector"], own)
        assert any(
            overlay.selected(one["to"][0]["podSelector"]) == {server} and one["ports"] == rule["ports"]
            for one in policies["storage-gc"]["egress"]
        )
