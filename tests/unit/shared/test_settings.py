"""Settings from the environment, and the storage that they name."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from omnifleet.gateway.settings import GatewaySettings
from omnifleet_shared.errors import InvalidSetting
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.settings import MEBIBYTE, FleetSettings, load_settings
from omnifleet_shared.storage import FolderStorage, open_storage
from omnifleet_shared.storage.s3 import S3Storage
from omnifleet_worker.settings import WorkerSettings
from pydantic import SecretStr, ValidationError


class TestEnvironment:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("redis_url", "rediss://:pw@redis.example:6380/3", "rediss://:pw@redis.example:6380/3"),
            ("redis_timeout", "0.5", 0.5),
            ("redis_sentinels", "one:26379,two:26379", "one:26379,two:26379"),
            ("redis_master", "main", "main"),
            ("queue", "audio-omni-test", "audio-omni-test"),
            ("models", "audio-omni,voxcpm2", "audio-omni,voxcpm2"),
            ("result_lifetime", "60", 60),
            ("lease", "30", 30.0),
            ("max_queued", "5", 5),
            ("producer", "web.eu-1", "web.eu-1"),
            ("max_unfinished", "7", 7),
            ("tenant", "acme", "acme"),
            ("storage", "s3://media/omni", "s3://media/omni"),
            ("s3_endpoint", "http://minio:9000", "http://minio:9000"),
            ("s3_public_endpoint", "https://media.example.com", "https://media.example.com"),
            ("s3_region", "eu-central-1", "eu-central-1"),
            ("s3_path_style", "false", False),
            ("input_lifetime", "3600", 3600),
            ("url_lifetime", "900", 900),
            ("max_input_bytes", "1", 1),
            ("callback_hosts", "hooks.example.com", "hooks.example.com"),
        ],
    )
    def test_each_variable_is_read(self, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
        monkeypatch.setenv(f"OMNIFLEET_{name.upper()}", text)

        assert getattr(load_settings(FleetSettings), name) == value

    def test_that_table_has_every_setting(self) -> None:
        table = self.test_each_variable_is_read.pytestmark[0].args[1]  # type: ignore[attr-defined]

        assert {row[0] for row in table} == set(FleetSettings.model_fields)

    def test_defaults_need_no_environment(self) -> None:
        settings = load_settings(FleetSettings)

        assert settings.redis_url == "redis://localhost:6379/0"
        assert settings.storage == f"file://{Path.home()}/.omnifleet/storage"
        assert settings.queue == "audio-omni"
        assert settings.s3_endpoint is None
        assert settings.max_input_bytes == 512 * MEBIBYTE

    @pytest.mark.parametrize("secret", ["hunter2", "hunter2" * 2])
    def test_a_secret_that_is_too_short_is_refused_and_not_repeated(
        self, monkeypatch: pytest.MonkeyPatch, secret: str
    ) -> None:
        monkeypatch.setenv("OMNIFLEET_CALLBACK_SECRET", secret)

        with pytest.raises(InvalidSetting) as caught:
            load_settings(WorkerSettings)

        assert caught.value.field == "OMNIFLEET_CALLBACK_SECRET"
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))

    def test_a_secret_is_not_shown(self) -> None:
        assert "hunter2" not in repr(WorkerSettings(callback_secret=SecretStr("hunter2" * 3)))

    def test_an_empty_variable_counts_as_absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMNIFLEET_URL_LIFETIME", "")

        assert load_settings(FleetSettings).url_lifetime == 24 * 3600

    def test_arguments_come_before_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMNIFLEET_QUEUE", "theirs")

        assert load_settings(FleetSettings, queue="ours").queue == "ours"

    def test_variables_of_others_are_let_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMNIFLEET_SOMETHING_ELSE", "1")
        monkeypatch.setenv("QUEUE", "theirs")

        assert load_settings(FleetSettings).queue == "audio-omni"

    @pytest.mark.parametrize(
        ("slip", "meant"),
        [
            ("OMNIFLEET_REDIS_ULR", "OMNIFLEET_REDIS_URL"),
            ("OMNIFLEET_QUEU", "OMNIFLEET_QUEUE"),
            ("OMNIFLEET_CHEKPOINT", "OMNIFLEET_CHECKPOINT"),
            ("omnifleet_storrage", "OMNIFLEET_STORAGE"),
        ],
    )
    def test_a_mistyped_variable_is_named_with_the_nearest_setting(
        self, monkeypatch: pytest.MonkeyPatch, slip: str, meant: str
    ) -> None:
        monkeypatch.setenv(slip, "1")

        with pytest.raises(InvalidSetting, match=f"{slip}: there is no such setting. The nearest one is {meant}"):
            load_settings(WorkerSettings)

    @pytest.mark.parametrize("cls", [FleetSettings, WorkerSettings, GatewaySettings])
    def test_no_setting_of_another_process_is_taken_for_a_slip(
        self, monkeypatch: pytest.MonkeyPatch, cls: type[FleetSettings]
    ) -> None:
        """One environment may hold what is the producers', the workers' and the gateway's."""
        everyone = WorkerSettings.model_fields.keys() | GatewaySettings.model_fields.keys()
        for name in everyone - cls.model_fields.keys():
            monkeypatch.setenv(f"OMNIFLEET_{name.upper()}", "1")

        assert load_settings(cls).queue == "audio-omni"

    def test_settings_are_frozen(self) -> None:
        settings = load_settings(FleetSettings)

        with pytest.raises(ValidationError, match="frozen"):
            settings.queue = "other"  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("redis_timeout", "soon"),
            ("redis_timeout", "0"),
            ("redis_timeout", "nan"),
            ("redis_timeout", "inf"),
            ("result_lifetime", "59"),
            ("lease", "0"),
            ("max_queued", "0"),
            ("producer", "a:b"),
            ("max_unfinished", "0"),
            ("s3_path_style", "perhaps"),
            ("url_lifetime", "0"),
            ("url_lifetime", "604801"),
            ("max_input_bytes", "0"),
            ("max_input_bytes", "1GB"),
        ],
    )
    def test_a_bad_value_is_refused_by_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, name: str, text: str
    ) -> None:
        variable = f"OMNIFLEET_{name.upper()}"
        monkeypatch.setenv(variable, text)

        with pytest.raises(InvalidSetting) as caught:
            load_settings(FleetSettings)

        assert caught.value.field == variable
        assert repr(text) in str(caught.value)

    def test_a_bad_argument_is_refused_too(self) -> None:
        with pytest.raises(InvalidSetting, match="OMNIFLEET_URL_LIFETIME"):
            load_settings(FleetSettings, url_lifetime=-1)


class TestRedisUrl:
    @pytest.mark.parametrize(
        "url", ["", "localhost:6379", "http://localhost", "redis://localhost:port/0", "redis://[x"]
    )
    def test_what_is_no_url_of_redis_is_refused(self, url: str) -> None:
        with pytest.raises(InvalidSetting) as caught:
            JobStates.connect(FleetSettings(redis_url=url))

        assert caught.value.field == "OMNIFLEET_REDIS_URL"
        assert "redis://" in (caught.value.remedy or "")

    def test_its_password_is_not_repeated(self) -> None:
        with pytest.raises(InvalidSetting) as caught:
            JobStates.connect(FleetSettings(redis_url="http://:hunter2@localhost"))

        assert "hunter2" not in str(caught.value)


class TestOpenStorage:
    def test_a_bucket(self) -> None:
        storage = open_storage(FleetSettings(storage="s3://media/omni"))

        assert isinstance(storage, S3Storage)
        assert storage.uri("k") == "s3://media/omni/k"

    @pytest.mark.parametrize("place", ["s3://media", "s3://media/"])
    def test_a_bucket_without_prefix(self, place: str) -> None:
        assert open_storage(FleetSettings(storage=place)).uri("k") == "s3://media/k"

    def test_a_folder(self, tmp_path: Path) -> None:
        storage = open_storage(FleetSettings(storage=f"file://{tmp_path}"))

        assert isinstance(storage, FolderStorage)
        assert storage.uri("k") == f"file://{tmp_path}/k"

    def test_a_folder_that_does_not_exist_yet_is_not_made(self, tmp_path: Path) -> None:
        open_storage(FleetSettings(storage=f"file://{tmp_path}/later"))

        assert not (tmp_path / "later").exists()

    @pytest.mark.parametrize(
        "place",
        ["media", "/tmp/media", "s3://", "s3:///media", "file://media", "file://", "gs://media", "s3:x", ""],
    )
    def test_anything_else_is_refused(self, place: str) -> None:
        with pytest.raises(InvalidSetting) as caught:
            open_storage(FleetSettings(storage=place))

        assert caught.value.field == "OMNIFLEET_STORAGE"
        assert "s3://" in (caught.value.remedy or "")

    @pytest.mark.parametrize("endpoint", ["minio:9000", "localhost", "http://", "http://a b"])
    def test_an_endpoint_that_is_no_url_is_refused(self, endpoint: Any) -> None:
        with pytest.raises(InvalidSetting) as caught:
            open_storage(FleetSettings(storage="s3://media", s3_endpoint=endpoint))

        assert caught.value.field == "OMNIFLEET_S3_ENDPOINT"
        assert "http://" in (caught.value.remedy or "")
