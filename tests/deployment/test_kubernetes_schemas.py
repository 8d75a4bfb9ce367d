"""Every overlay is what Kubernetes and KEDA take, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.deployment import manifests

VERSIONS = ("1.32", "1.34", "1.36")
CRD = Path(__file__).parent / "data/keda-scaledobject-crd.yaml"


def refuse_unknown_fields(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema that takes no field which it does not name, as the API server in strict mode."""
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: refuse_unknown_fields(part) for name, part in schema["properties"].items()}
        closed.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    if isinstance(schema.get("items"), dict):
        closed["items"] = refuse_unknown_fields(schema["items"])
    return closed


@pytest.fixture(scope="module")
def scaled_object_schema() -> dict[str, Any]:
    crd = yaml.safe_load(CRD.read_text())
    (schema,) = (one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == "v1alpha1")
    closed = refuse_unknown_fields(schema)
    closed["properties"]["metadata"] = {"type": "object"}
    return closed


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", manifests.OVERLAYS)
def test_kubernetes_takes_every_resource(name: str, version: str) -> None:
    resources = [one for one in manifests.render(name).resources if one["apiVersion"] != "keda.sh/v1alpha1"]

    assert len(resources) > 15
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    worker = manifests.render("cpu").get("Deployment", "worker")
    wrong = worker | {"spec": worker["spec"] | {"replica": 3}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", manifests.OVERLAYS)
def test_keda_takes_every_scaled_object(name: str, scaled_object_schema: dict[str, Any]) -> None:
    for resource in manifests.render(name).of_kind("ScaledObject"):
        jsonschema.validate(resource, scaled_object_schema)


def test_a_field_that_keda_does_not_know_is_found(scaled_object_schema: dict[str, Any]) -> None:
    good = manifests.render("h100").get("ScaledObject", "worker")
    wrong = good | {"spec": good["spec"] | {"coolDownPeriod": 3}}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, scaled_object_schema)
