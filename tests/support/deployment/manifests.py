"""The Kubernetes manifests as a cluster would get them: rendered overlays, and questions about what is in them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import ROOT

OVERLAYS = sorted(path.parent.name for path in (ROOT / "k8s/overlays").glob("*/kustomization.yaml"))
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@dataclass(frozen=True)
class Overlay:
    """One rendered overlay."""

    name: str
    resources: tuple[dict[str, Any], ...]

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """The resource of that name; generated ones carry a hash behind it."""
        names = re.compile(rf"{re.escape(name)}(-[a-z0-9]{{10}})?")
        (found,) = (one for one in self.of_kind(kind) if names.fullmatch(one["metadata"]["name"]))
        return found

    @property
    def workloads(self) -> dict[str, dict[str, Any]]:
        """What makes pods, by name."""
        return {one["metadata"]["name"]: one for one in self.of_kind(*WORKLOADS)}

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        return {name: one for name, one in self.workloads.items() if name.startswith("worker")}

    def selected(self, selector: Mapping[str, Any]) -> set[str]:
        """Workloads whose pods a label selector means."""
        return {name for name, one in self.workloads.items() if matches(selector, pod_labels(one))}

    def environment(self, container: Mapping[str, Any]) -> dict[str, str | None]:
        """A container's environment; None where the value is a secret's."""
        found: dict[str, str | None] = {}
        for source in container.get("envFrom", []):
            found |= self.get("ConfigMap", source["configMapRef"]["name"])["data"]
        return found | {one["name"]: one.get("value") for one in container.get("env", [])}


def pod(workload: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of a workload's pods."""
    return workload["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def pod_labels(workload: Mapping[str, Any]) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]  # type: ignore[no-any-return]


def containers(workload: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that prepare first."""
    yield from pod(workload).get("initContainers", [])
    yield from pod(workload)["containers"]


def ports(workload: Mapping[str, Any]) -> dict[str, int]:
    """Ports that a workload's containers listen on, by name."""
    return {port["name"]: port["containerPort"] for one in containers(workload) for port in one.get("ports", [])}


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector means these labels; an empty one means all."""
    wanted = selector.get("matchLabels", {}).items()
    either = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in either)
    return wanted <= labels.items() and all(labels.get(one["key"]) in one["values"] for one in either)


@functools.cache
def render(name: str) -> Overlay:
    """An overlay as `kubectl apply -k` would send it."""
    return render_folder(ROOT / "k8s/overlays" / name)


def render_folder(folder: Path) -> Overlay:
    """What `kubectl apply -k` would send of any folder."""
    text = subprocess.run([*_renderer(), str(folder)], capture_output=True, text=True, check=True).stdout
    return Overlay(folder.name, tuple(yaml.safe_load_all(text)))


@functools.cache
def secrets() -> dict[str, dict[str, str]]:
    """What k8s/create-secrets makes: values by key, by name of the Secret."""
    text = subprocess.run([str(ROOT / "k8s/create-secrets")], capture_output=True, text=True, check=True).stdout
    return {one["metadata"]["name"]: one["stringData"] for one in yaml.safe_load_all(text)}


def _renderer() -> list[str]:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    problem = "neither kubectl nor kustomize is installed"
    return pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)
