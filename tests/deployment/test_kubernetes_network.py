"""What may speak to what in each overlay: no flow but the named ones, and every one that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.deployment import manifests
from support.deployment.manifests import Overlay

Flow = tuple[str, str, int]
"""From whom, to whom, at which TCP port. What is outside the overlay is in brackets."""

WATCHERS = {
    ("[monitoring]", "exporter", 8081),
    ("[keda]", "exporter", 8081),
    ("[monitoring]", "worker", 8080),
    ("[monitoring]", "gateway", 8080),
    ("[callers]", "gateway", 8000),
}
IN_CLUSTER = WATCHERS | {
    ("worker", "redis", 6379),
    ("exporter", "redis", 6379),
    ("flower", "redis", 6379),
    ("gateway", "redis", 6379),
    ("[producers]", "redis", 6379),
    ("worker", "minio", 9000),
    ("gateway", "minio", 9000),
    ("minio-setup", "minio", 9000),
    ("[producers]", "minio", 9000),
}
OUTSIDE = WATCHERS | {
    ("worker", "[192.0.2.10/32]", 6379),
    ("exporter", "[192.0.2.10/32]", 6379),
    ("flower", "[192.0.2.10/32]", 6379),
    ("gateway", "[192.0.2.10/32]", 6379),
    ("worker", "[198.51.100.0/24]", 443),
    ("gateway", "[198.51.100.0/24]", 443),
}
UNDERSTANDING = {
    (source.replace("worker", "worker-understanding"), target.replace("worker", "worker-understanding"), port)
    for source, target, port in IN_CLUSTER
    if "worker" in (source, target)
}
VOICES = {
    tuple(model if one == "worker" else one for one in flow)
    for model in manifests.render("voices").workers
    for flow in IN_CLUSTER
    if "worker" in flow
}
EXPECTED = {
    "a100": IN_CLUSTER,
    "cpu": IN_CLUSTER,
    "external": OUTSIDE,
    "h100": IN_CLUSTER,
    "mig": IN_CLUSTER | UNDERSTANDING,
    "voices": IN_CLUSTER | VOICES,
}


@pytest.fixture(params=manifests.OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return manifests.render(request.param)


def peers(overlay: Overlay, rule: dict[str, Any], key: str) -> Iterator[str]:
    """Who a rule means; every one of them is somebody."""
    for peer in rule[key]:
        if "ipBlock" in peer:
            yield f"[{peer['ipBlock']['cidr']}]"
        elif "namespaceSelector" in peer:
            ((label, value),) = peer["namespaceSelector"]["matchLabels"].items()
            yield f"[{value if label == 'kubernetes.io/metadata.name' else label.rpartition('/')[2]}]"
        else:
            found = overlay.selected(peer["podSelector"])
            assert found, f"{peer} selects nothing"
            yield from found


def half_flows(overlay: Overlay, policy: dict[str, Any], direction: str) -> Iterator[Flow]:
    """What a policy allows as far as it is concerned."""
    key, other = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for own in overlay.selected(policy["spec"]["podSelector"]):
        for rule in policy["spec"].get(key, []):
            tcp = [port["port"] for port in rule["ports"] if port["protocol"] == "TCP"]
            for peer in peers(overlay, rule, other):
                yield from ((peer, own, port) if direction == "Ingress" else (own, peer, port) for port in tcp)


def flows(overlay: Overlay) -> set[Flow]:
    """What is allowed at both ends, or at the only end that is in the overlay."""
    policies = overlay.of_kind("NetworkPolicy")
    into = {flow for policy in policies for flow in half_flows(overlay, policy, "Ingress")}
    out = {flow for policy in policies for flow in half_flows(overlay, policy, "Egress")}
    outside = {flow for flow in into | out if "[" in flow[0] + flow[1] and flow[1] != "[kube-system]"}
    return (into & out) | outside


def test_exactly_the_named_flows_are_allowed(overlay: Overlay) -> None:
    assert flows(overlay) == EXPECTED[overlay.name]


def test_whatever_no_policy_names_is_denied(overlay: Overlay) -> None:
    deny = overlay.get("NetworkPolicy", "default-deny")["spec"]

    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_policy_selects_pods_and_ports_that_they_have(overlay: Overlay) -> None:
    for policy in overlay.of_kind("NetworkPolicy"):
        assert overlay.selected(policy["spec"]["podSelector"]), policy["metadata"]["name"]
        assert {key.capitalize() for key in policy["spec"] if key in ("ingress", "egress")} <= set(
            policy["spec"]["policyTypes"]
        )
    for _, target, port in flows(overlay):
        if target in overlay.workloads:
            assert port in manifests.ports(overlay.workloads[target]).values(), (target, port)


def test_every_service_has_pods_behind_it_that_listen(overlay: Overlay) -> None:
    for service in overlay.of_kind("Service"):
        behind = overlay.selected({"matchLabels": service["spec"]["selector"]})
        assert behind, f"{service['metadata']['name']} has no pods"
        for workload in behind:
            listening = manifests.ports(overlay.workloads[workload])
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= listening.keys()


@pytest.mark.parametrize("name", sorted(set(manifests.OVERLAYS) - {"external"}))
def test_every_address_in_the_configuration_is_a_service_that_may_be_asked(name: str) -> None:
    overlay = manifests.render(name)
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in overlay.of_kind("Service")}
    urls = [overlay.get("ConfigMap", "omnifleet")["data"]["OMNIFLEET_S3_ENDPOINT"]]
    urls += [manifests.secrets()["omnifleet-redis"]["OMNIFLEET_REDIS_URL"]]
    urls += [one["metadata"]["url"] for scaled in overlay.of_kind("ScaledObject") for one in scaled["spec"]["triggers"]]

    for url in map(urlsplit, urls):
        service = (url.hostname or "").removesuffix(".omnifleet.svc")
        assert url.port in [port["port"] for port in services[service]], url
        assert any(target == service and port == url.port for _, target, port in flows(overlay))


def test_every_probe_asks_a_port_that_is_open(overlay: Overlay) -> None:
    for workload in overlay.workloads.values():
        for container in manifests.containers(workload):
            probes = [
                container[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in container
            ]
            for probe in probes:
                if "httpGet" in probe:
                    assert probe["httpGet"]["port"] in manifests.ports(workload)
