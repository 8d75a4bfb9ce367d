"""What the pods of each overlay are given: rights, settings, time, machines; and that these fit each other."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from omnifleet_shared.keys import BROKER_PRIORITY, MODEL
from omnifleet_worker.settings import WorkerSettings
from support.command_lines import SETTINGS
from support.deployment import manifests
from support.deployment.manifests import ROOT, Overlay, containers, pod

STANDARD_VARIABLES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FLOWER_BASIC_AUTH", "HOME", "REDISCLI_AUTH"}
OF_THE_SERVERS = {"REDIS_PASSWORD", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MINIO_BROWSER", "MINIO_ENDPOINT"}
RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
AFTER_GRACE = 30
"""Seconds for what a drained worker still does: store, record, hand back."""
CHECKPOINT_BYTES, SLOW_DISK = 21e9, 50e6
GPU_OVERLAYS = sorted(set(manifests.OVERLAYS) - {"cpu"})
MODELS = sorted(path.parent.name for path in (ROOT / "k8s/models").glob("*/kustomization.yaml"))
IN_IMAGES = {"worker-audiosep", "worker-fish-s2-pro", "worker-voxcpm2"}
"""Workers whose checkpoint comes in an image."""
ON_CPUS = {"worker-mms-tts-rus"}
SCALED = [(name, "worker") for name in GPU_OVERLAYS] + [("voices", f"worker-{model}") for model in MODELS]


@pytest.fixture(params=manifests.OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return manifests.render(request.param)


def all_containers(overlay: Overlay) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workload in overlay.workloads.items():
        yield from ((name, container) for container in containers(workload))


def gpus(container: dict[str, Any]) -> dict[str, str]:
    limits = container["resources"]["limits"]
    return {name: count for name, count in limits.items() if name.startswith("nvidia.com/")}


def startup_seconds(workload: dict[str, Any]) -> int:
    probe = pod(workload)["containers"][0]["startupProbe"]
    return int(probe["periodSeconds"] * probe["failureThreshold"])


def test_all_that_is_asked_for_is_there() -> None:
    assert {"a100", "cpu", "external", "h100", "mig", "voices"} == set(manifests.OVERLAYS)
    assert {f"worker-{model}" for model in MODELS} | {"worker"} == manifests.render("voices").workers.keys()
    assert {"audiosep", "fish-s2-pro", "mms-tts-rus", "omnivoice", "voxcpm2", "whisper-large-v3-turbo"} == {*MODELS}


class TestRights:
    def test_the_namespace_is_restricted(self, overlay: Overlay) -> None:
        labels = overlay.get("Namespace", "omnifleet")["metadata"]["labels"]

        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"

    def test_no_pod_needs_more_than_that(self, overlay: Overlay) -> None:
        for name, workload in overlay.workloads.items():
            spec = pod(workload)
            assert spec["securityContext"]["runAsNonRoot"] is True, name
            assert spec["securityContext"]["runAsUser"] > 0, name
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert spec["automountServiceAccountToken"] is False, name
            assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
            assert {kind for volume in spec.get("volumes", []) for kind in volume} - {"name"} <= RESTRICTED_VOLUMES, (
                name
            )

    def test_no_container_writes_its_root_or_gains_rights(self, overlay: Overlay) -> None:
        for name, container in all_containers(overlay):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name

    def test_our_images_run_as_the_user_that_they_were_made_for(self, overlay: Overlay) -> None:
        for name, workload in overlay.workloads.items():
            for container in containers(workload):
                if container["image"].startswith("omnifleet"):
                    role = "worker" if container["image"].startswith("omnifleet-worker") else "producer"  # and gateway
                    user = re.search(r"^USER (\d+):", (ROOT / f"docker/{role}.Dockerfile").read_text(), re.M)
                    assert user and pod(workload)["securityContext"]["runAsUser"] == int(user[1]), name

    def test_our_images_are_of_this_version(self, overlay: Overlay) -> None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        ours = {one["image"] for _, one in all_containers(overlay) if one["image"].startswith("omnifleet")}

        assert {one.rpartition(":")[2] for one in ours} == {version}
        assert {one.rpartition(":")[0] for one in ours} == {"omnifleet", "omnifleet-gateway", "omnifleet-worker"} | (
            {"omnifleet-worker-voices", "omnifleet-worker-audiosep"} if overlay.name == "voices" else set()
        )


class TestSettings:
    def test_every_variable_is_read_by_somebody(self, overlay: Overlay) -> None:
        for name, container in all_containers(overlay):
            variables = overlay.environment(container).keys()
            assert variables <= SETTINGS | STANDARD_VARIABLES | OF_THE_SERVERS, name

    def test_workers_take_them(self, overlay: Overlay, monkeypatch: pytest.MonkeyPatch) -> None:
        for workload in overlay.workers.values():
            for name, value in overlay.environment(pod(workload)["containers"][0]).items():
                if value is not None:
                    monkeypatch.setenv(name, value)
            settings = WorkerSettings()
            assert settings.checkpoint is not None
            assert settings.http_port in manifests.ports(workload).values()
            assert settings.storage.startswith("s3://")

    def test_every_secret_that_is_named_is_made(self, overlay: Overlay) -> None:
        named = {
            (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
            for _, container in all_containers(overlay)
            for one in container.get("env", [])
            if "valueFrom" in one
        }
        made = {(name, key) for name, keys in manifests.secrets().items() for key in keys}

        assert named
        assert named <= made
        assert overlay.name == "external" or named == made

    def test_nothing_secret_is_in_the_manifests(self, overlay: Overlay) -> None:
        assert not overlay.of_kind("Secret")
        secret = {key for keys in manifests.secrets().values() for key in keys}
        for _, container in all_containers(overlay):
            given = {key for key, value in overlay.environment(container).items() if value is not None}
            assert not secret & given

    def test_secrets_are_new_each_time(self) -> None:
        first = manifests.secrets()
        manifests.secrets.cache_clear()

        assert manifests.secrets()["omnifleet-redis"] != first["omnifleet-redis"]


class TestTime:
    def test_a_worker_may_drain_before_it_is_killed(self, overlay: Overlay) -> None:
        for workload in overlay.workers.values():
            container = pod(workload)["containers"][0]
            grace = float(overlay.environment(container)["OMNIFLEET_GRACE"] or "nan")
            before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert before + grace + AFTER_GRACE <= pod(workload)["terminationGracePeriodSeconds"]

    def test_a_gateway_may_answer_before_it_is_killed(self, overlay: Overlay) -> None:
        workload = overlay.workloads["gateway"]
        (container,) = pod(workload)["containers"]
        grace = float(overlay.environment(container)["OMNIFLEET_GATEWAY_GRACE"] or "nan")
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]

        assert before + grace + 10 <= pod(workload)["terminationGracePeriodSeconds"]

    def test_a_worker_may_load_from_a_slow_disk(self, overlay: Overlay) -> None:
        for workload in overlay.workers.values():
            assert startup_seconds(workload) >= 2 * CHECKPOINT_BYTES / SLOW_DISK

    def test_kubernetes_asks_the_worker_itself(self, overlay: Overlay) -> None:
        for workload in overlay.workers.values():
            container = pod(workload)["containers"][0]
            paths = {kind: container[kind]["httpGet"]["path"] for kind in container if kind.endswith("Probe")}
            assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


class TestPlaces:
    def test_a_selector_means_its_own_pods_and_no_others(self, overlay: Overlay) -> None:
        for kind in ("Deployment", "StatefulSet"):
            for workload in overlay.of_kind(kind):
                assert overlay.selected(workload["spec"]["selector"]) == {workload["metadata"]["name"]}

    def test_disruption_budgets_and_spread_mean_their_own_pods(self, overlay: Overlay) -> None:
        for name, workload in {**overlay.workers, "gateway": overlay.workloads["gateway"]}.items():
            budget = overlay.get("PodDisruptionBudget", name)
            assert overlay.selected(budget["spec"]["selector"]) == {name}
            (spread,) = pod(workload)["topologySpreadConstraints"]
            assert overlay.selected(spread["labelSelector"]) == {name}

    def test_every_mount_has_a_volume_and_every_claim_is_made(self, overlay: Overlay) -> None:
        claims = {one["metadata"]["name"] for one in overlay.of_kind("PersistentVolumeClaim")}
        maps = {one["metadata"]["name"] for one in overlay.of_kind("ConfigMap")}
        for name, workload in overlay.workloads.items():
            templates = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])}
            volumes = {one["name"] for one in pod(workload).get("volumes", [])} | templates
            assert {mount["name"] for one in containers(workload) for mount in one["volumeMounts"]} == volumes, name
            for volume in pod(workload).get("volumes", []):
                assert volume.get("persistentVolumeClaim", {}).get("claimName") in claims | {None}
                assert volume.get("configMap", {}).get("name") in maps | {None}

    def test_the_checkpoint_is_loaded_from_where_it_is_put(self, overlay: Overlay) -> None:
        for name, workload in overlay.workers.items():
            if name in IN_IMAGES:
                assert "initContainers" not in pod(workload)
                continue
            (init,) = pod(workload)["initContainers"]
            (worker,) = pod(workload)["containers"]
            folders = [overlay.environment(one)["OMNIFLEET_CHECKPOINT"] for one in (init, worker)]
            assert init["args"][-1] == "$(OMNIFLEET_CHECKPOINT)"
            assert folders[0] == folders[1]
            mounts = [{mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]} for one in (init, worker)]
            assert mounts[0] == mounts[1]
            assert str(overlay.environment(worker)["OMNIFLEET_CHECKPOINT"]).startswith(mounts[0]["checkpoints"] + "/")

    @pytest.mark.parametrize("name", GPU_OVERLAYS)
    def test_workers_are_pinned_to_a_product_and_get_one_gpu(self, name: str) -> None:
        for worker, workload in manifests.render(name).workers.items():
            if worker in ON_CPUS:
                assert not any(gpus(one) for one in containers(workload)) and "affinity" not in pod(workload)
                continue
            required = pod(workload)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (expression,) = required["nodeSelectorTerms"][0]["matchExpressions"]
            product = "H100" if name in ("h100", "external", "voices") else "A100"
            assert expression["key"] == "nvidia.com/gpu.product"
            assert expression["values"] and all(f"NVIDIA-{product}" in value for value in expression["values"])
            assert [count for one in containers(workload) for count in gpus(one).values()] == ["1"]
            assert any(one["key"] == "nvidia.com/gpu" for one in pod(workload)["tolerations"])

    def test_every_checkpoint_is_fetched_from_the_prefix_that_is_called_like_its_folder(self) -> None:
        overlay = manifests.render("voices")
        fetched = {}
        for name in overlay.workers.keys() - IN_IMAGES:
            (init,) = pod(overlay.workers[name])["initContainers"]
            folder = str(overlay.environment(init)["OMNIFLEET_CHECKPOINT"])
            fetched[name] = init["args"][1].replace("$(OMNIFLEET_CHECKPOINT)", folder)
        policy = json.loads((ROOT / "k8s/components/minio/policy.json").read_text())
        read = [where for one in policy["Statement"] if "s3:GetObject" in one["Action"] for where in one["Resource"]]

        assert fetched == {
            name: f"s3://omnifleet/checkpoints/{name.removeprefix('worker-') if name != 'worker' else MODEL}"
            for name in fetched
        }
        assert "arn:aws:s3:::omnifleet/checkpoints/*" in read

    def test_without_gpus_none_is_asked_for(self) -> None:
        assert not any(gpus(container) for _, container in all_containers(manifests.render("cpu")))

    def test_understanding_has_a_queue_of_its_own_on_parts_of_gpus(self) -> None:
        overlay = manifests.render("mig")
        found = {}
        for name, workload in overlay.workers.items():
            container = pod(workload)["containers"][0]
            found[name] = (overlay.environment(container)["OMNIFLEET_QUEUE"], [*gpus(container)])

        assert found == {
            "worker": (MODEL, ["nvidia.com/gpu"]),
            "worker-understanding": (f"{MODEL}-understanding", ["nvidia.com/mig-3g.40gb"]),
        }


class TestQuota:
    def test_every_container_says_what_it_needs(self, overlay: Overlay) -> None:
        # Without it, a namespace with a quota takes no pod.
        for name, container in all_containers(overlay):
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name

    def test_all_workers_that_may_be_wanted_fit(self, overlay: Overlay) -> None:
        hard = overlay.get("ResourceQuota", "omnifleet")["spec"]["hard"]
        most = {
            one["spec"]["scaleTargetRef"]["name"]: one["spec"].get("maxReplicaCount") or one["spec"]["maxReplicas"]
            for one in overlay.of_kind("ScaledObject", "HorizontalPodAutoscaler")
        }
        replicas = {name: most.get(name, one["spec"].get("replicas", 1)) for name, one in overlay.workloads.items()}
        needed = {"pods": sum(replicas.values()), "requests.cpu": 0.0, "requests.memory": 0.0, "limits.memory": 0.0}
        for name, workload in overlay.workloads.items():
            for container in pod(workload)["containers"]:
                for kind, what in itertools.product(("requests", "limits"), (*gpus(container), "cpu", "memory")):
                    if f"{kind}.{what}" in hard:
                        amount = replicas[name] * quantity(container["resources"][kind][what])
                        needed[f"{kind}.{what}"] = needed.get(f"{kind}.{what}", 0) + amount

        assert all(needed[key] <= quantity(hard[key]) for key in needed), needed

    def test_all_volumes_fit(self, overlay: Overlay) -> None:
        hard = overlay.get("ResourceQuota", "omnifleet")["spec"]["hard"]
        templates = [
            one for workload in overlay.workloads.values() for one in workload["spec"].get("volumeClaimTemplates", [])
        ]
        claims = [*templates, *overlay.of_kind("PersistentVolumeClaim")]

        assert len(claims) <= int(hard["persistentvolumeclaims"])
        storage = sum(quantity(claim["spec"]["resources"]["requests"]["storage"]) for claim in claims)
        assert storage <= quantity(hard["requests.storage"])


class TestScaling:
    def test_gateways_are_scaled_between_bounds_by_what_they_ask_for(self, overlay: Overlay) -> None:
        scaler = overlay.get("HorizontalPodAutoscaler", "gateway")["spec"]
        gateway = overlay.workloads[scaler["scaleTargetRef"]["name"]]

        assert "replicas" not in gateway["spec"]  # each apply would else undo what the autoscaler did
        assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
        (metric,) = scaler["metrics"]
        assert metric["resource"]["name"] in pod(gateway)["containers"][0]["resources"]["requests"]

    @pytest.fixture(params=SCALED, ids=" ".join)
    def found(self, request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any]]:
        """What scales workers, and the workers."""
        name, worker = request.param
        overlay = manifests.render(name)
        return overlay.get("ScaledObject", worker)["spec"], overlay.get("Deployment", worker)

    @pytest.fixture
    def scaled(self, found: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
        return found[0]

    def test_it_counts_what_waits_and_what_is_leased_of_each_class(
        self, found: tuple[dict[str, Any], dict[str, Any]]
    ) -> None:
        scaled, worker = found
        series = {one["metadata"]["valueLocation"] for one in scaled["triggers"]}
        environment = {one["name"]: one.get("value") for one in pod(worker)["containers"][0]["env"]}

        assert series == {
            f'{metric}{{queue="{environment["OMNIFLEET_QUEUE"]}",priority="{priority}"}}'
            for metric in ("omnifleet_queue_jobs", "omnifleet_leased_jobs")
            for priority in BROKER_PRIORITY
        }

    def test_the_formula_uses_every_trigger(self, scaled: dict[str, Any]) -> None:
        formula = scaled["advanced"]["scalingModifiers"]["formula"]

        assert set(re.findall(r"[a-z_]+", formula)) == {one["name"] for one in scaled["triggers"]}

    def test_triggers_have_what_the_scaler_reads_and_nothing_else(self, scaled: dict[str, Any]) -> None:
        for trigger in scaled["triggers"]:
            assert trigger["type"] == "metrics-api"
            assert trigger["metadata"].keys() == {"url", "format", "valueLocation", "targetValue"}
            assert trigger["metadata"]["format"] == "prometheus"

    def test_nobody_is_stopped_for_a_lull_shorter_than_a_start(self, scaled: dict[str, Any]) -> None:
        start = startup_seconds(manifests.render("h100").workloads["worker"])

        assert scaled["cooldownPeriod"] >= 2 * start
        assert (
            scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
            >= start
        )

    def test_it_scales_a_deployment_that_is_there(self, found: tuple[dict[str, Any], dict[str, Any]]) -> None:
        scaled, worker = found

        assert scaled["scaleTargetRef"] == {"name": worker["metadata"]["name"]}

    def test_all_workers_are_scaled_where_any_are(self) -> None:
        overlay = manifests.render("voices")

        assert {one["spec"]["scaleTargetRef"]["name"] for one in overlay.of_kind("ScaledObject")} == set(
            overlay.workers
        )


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[unit]
