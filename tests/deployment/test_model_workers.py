"""The classes of workers of other models, in compose.yaml and in Kubernetes: each has its image, queue and engine."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.keys import MODEL
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.engines.table import load_model
from omnifleet_worker.settings import WorkerSettings
from support.data.audiosep_clone import write_clone
from support.deployment import manifests
from support.deployment.manifests import ROOT, pod
from support.speech.omnivoice_folder import write_tiny_omnivoice
from support.speech.recogniser_folders import write_tiny_whisper
from support.speech.vits_folder import write_tiny_vits

COMPOSE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
SERVED = ("fish-s2-pro", "voxcpm2")
"""Models that a server beside the worker runs."""


def with_card(folder: Path) -> Path:
    """MMS as it is downloaded says no language; what ships for it does."""
    write_tiny_vits(folder)
    (folder / "README.md").unlink()
    shutil.copy(ROOT / "k8s/models/mms-tts-rus/card.json", folder)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "audiosep": write_clone,
    "mms-tts-rus": with_card,
    "omnivoice": write_tiny_omnivoice,
    "speech": write_tiny_vits,
    "whisper-large-v3-turbo": write_tiny_whisper,
}
"""Small random folders in the layouts of the published ones, by the names of their models."""
ENGINES = {"audiosep": "audiosep", "omnivoice": "omnivoice"}
OTHERS = "transformers"


def filled_in(value: object) -> str:
    """A value of compose.yaml where docker/.env says nothing else."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def of_kubernetes(model: str) -> Mapping[str, str | None]:
    overlay = manifests.render("voices")
    return overlay.environment(pod(overlay.workers[f"worker-{model}"])["containers"][0])


def of_compose(service: str) -> Mapping[str, str | None]:
    found = COMPOSE[f"worker-{service}"]["environment"]
    return {name: filled_in(value) for name, value in found.items() if name.startswith("OMNIFLEET_")}


CLASSES = [
    *((of_kubernetes, model, model) for model in ("audiosep", "mms-tts-rus", "omnivoice", "whisper-large-v3-turbo")),
    (of_compose, "audiosep", "audiosep"),
    (of_compose, "omnivoice", "omnivoice"),
    (of_compose, "recogniser", "whisper-large-v3-turbo"),
    (of_compose, "transformers", "speech"),
]


def set_environment(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def of_the_image() -> dict[str, str]:
    """What docker/audiosep.Dockerfile puts into the environment, with its arguments as they are by default."""
    text = (ROOT / "docker/audiosep.Dockerfile").read_text().replace("\\\n", "")
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.M))
    (line,) = re.findall(r"^ENV (.*)$", text, re.M)
    return {
        name: re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], value)
        for name, value in (pair.split("=") for pair in line.split())
    }


class TestOwnEngines:
    @pytest.mark.parametrize(("environment", "name", "model"), CLASSES)
    def test_a_worker_runs_the_folder_that_is_put_where_it_looks(
        self, environment: Any, name: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = environment(name)
        set_environment(monkeypatch, (of_the_image() if model == "audiosep" else {}) | given)
        # The folder's own name may be the model's.
        folder = tmp_path / (model if model == "audiosep" else Path(str(given["OMNIFLEET_CHECKPOINT"])).name)
        monkeypatch.setenv("OMNIFLEET_CHECKPOINT", str(WRITERS[model](folder)))
        monkeypatch.setenv("OMNIFLEET_CLONE_PYTHON", sys.executable)
        settings = WorkerSettings()

        loaded = load_model(settings)

        capabilities = loaded.model.capabilities
        loaded.close()
        # Else its jobs would be refused: they are for the model that the queue is named after.
        assert settings.queue == FleetSettings(queue=MODEL).queue_of(capabilities.name)
        assert capabilities.engine == ENGINES.get(model, OTHERS)
        assert model not in SHIPPED or capabilities.commercial == SHIPPED[model].commercial

    def test_a_clone_s_image_has_all_where_its_settings_say(self) -> None:
        image = of_the_image()
        text = (ROOT / "docker/audiosep.Dockerfile").read_text()
        copied = dict(re.findall(r"^COPY --from=(\w+) / (\S+)$", text, re.M))
        environment = of_kubernetes("audiosep")

        assert image["OMNIFLEET_ENGINE"] == "audiosep"
        assert image["OMNIFLEET_CHECKPOINT"] == environment["OMNIFLEET_CHECKPOINT"] == copied["clone"]
        assert image["HF_HOME"].startswith(copied["clone"] + "/")
        (where,) = re.findall(r"^ARG ENVIRONMENT=(\S+)$", text, re.M)
        assert copied["environment"] == "${ENVIRONMENT}"
        assert image["OMNIFLEET_CLONE_PYTHON"] == f"{where}/bin/python"
        assert image.keys() - {"HF_HOME"} <= COMPOSE["worker-audiosep"]["environment"].keys()

    def test_it_is_made_of_the_worker_s_image_of_this_version(self) -> None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

        assert f"ARG WORKER=omnifleet-worker:{version}\n" in (ROOT / "docker/audiosep.Dockerfile").read_text()

    def test_a_clone_s_environment_stays_at_its_path(self) -> None:
        service = COMPOSE["worker-audiosep"]
        clone, environment = (filled_in(volume).split(":") for volume in service["volumes"])

        assert clone[1] == service["environment"]["OMNIFLEET_CHECKPOINT"]
        assert environment[0] == environment[1]
        assert filled_in(service["environment"]["OMNIFLEET_CLONE_PYTHON"]) == f"{environment[1]}/bin/python"
        assert service["environment"]["HF_HOME"].startswith(clone[1] + "/")

    @pytest.mark.parametrize("name", ["omnivoice", "recogniser", "transformers"])
    def test_a_folder_is_mounted_where_it_is_looked_for(self, name: str) -> None:
        service = COMPOSE[f"worker-{name}"]
        (mounted,) = (filled_in(volume) for volume in service["volumes"])

        assert mounted.split(":")[1:] == [filled_in(service["environment"]["OMNIFLEET_CHECKPOINT"]), "ro"]
        assert service["profiles"] == [name]

    def test_images_have_the_libraries_of_the_engines_that_run_in_them(self) -> None:
        service = COMPOSE["worker-omnivoice"]
        of_pods = pod(manifests.render("voices").workers["worker-omnivoice"])["containers"][0]["image"]
        locked = (ROOT / f"locks/{service['build']['args']['LOCK']}.txt").read_text()

        assert of_pods == filled_in(service["image"]) != filled_in(COMPOSE["worker"]["image"])
        assert re.search(r"^omnivoice==", locked, re.M)

    def test_make_down_ends_every_profile(self) -> None:
        (line,) = re.findall(r"^down:.*\n(.*)$", (ROOT / "Makefile").read_text(), re.M)
        ended = {*re.findall(r"--profile ([\w-]+)", line)} | {f"gpu-{number}" for number in range(1, 8)}

        assert {profile for one in COMPOSE.values() for profile in one.get("profiles", [])} <= ended


class TestServed:
    def test_the_clients_of_the_gateway_are_sent_to_every_queue_that_has_workers(self) -> None:
        overlay = manifests.render("voices")
        settings = FleetSettings(models=overlay.get("ConfigMap", "omnifleet")["data"]["OMNIFLEET_MODELS"])
        workers = [overlay.environment(pod(one)["containers"][0]) for one in overlay.workers.values()]

        assert sorted(settings.model_queues.values()) == sorted(str(one["OMNIFLEET_QUEUE"]) for one in workers)

    @pytest.mark.parametrize("name", SERVED)
    def test_a_worker_loads_the_card_that_it_is_given(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        workload = manifests.render("voices").workers[f"worker-{name}"]
        worker, server = pod(workload)["containers"]
        for one in worker["env"]:
            if "value" in one:
                monkeypatch.setenv(one["name"], one["value"])
        monkeypatch.setenv("OMNIFLEET_CHECKPOINT", str(ROOT / "k8s/models" / name))
        settings = WorkerSettings()

        loaded = load_model(settings)

        # Else its jobs would be refused: they are for the model that the queue is named after.
        assert settings.queue == FleetSettings(queue=MODEL).queue_of(loaded.model.capabilities.name)
        assert loaded.model.capabilities.commercial == SHIPPED[name].commercial
        assert urlsplit(settings.server_url or "").port == server["ports"][0]["containerPort"]
        (mount,) = [one["mountPath"] for one in worker["volumeMounts"] if one["name"] == "card"]
        assert {"name": "OMNIFLEET_CHECKPOINT", "value": mount} in worker["env"]
        loaded.close()
