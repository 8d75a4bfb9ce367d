"""The gateway's settings: each variable is read, and what will not do is refused by its name."""

from __future__ import annotations

import pytest
from omnifleet.gateway.settings import GatewaySettings
from omnifleet_shared.errors import InvalidSetting
from omnifleet_shared.settings import FleetSettings, load_settings


class TestEnvironment:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("gateway_max_json", "1000", 1000),
            ("gateway_max_requests", "7", 7),
            ("gateway_body_patience", "0.5", 0.5),
            ("gateway_patience", "60", 60.0),
            ("gateway_grace", "0", 0.0),
            ("gateway_page", "false", False),
            ("http_port", "8080", 8080),
            ("http_host", "127.0.0.1", "127.0.0.1"),
            ("log_format", "text", "text"),
        ],
    )
    def test_each_variable_is_read(self, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
        monkeypatch.setenv(f"OMNIFLEET_{name.upper()}", text)

        assert getattr(load_settings(GatewaySettings), name) == value

    def test_that_table_has_every_setting_of_its_own(self) -> None:
        table = self.test_each_variable_is_read.pytestmark[0].args[1]  # type: ignore[attr-defined]

        assert {row[0] for row in table} == set(GatewaySettings.model_fields) - set(FleetSettings.model_fields)

    @pytest.mark.parametrize(
        ("name", "text"),
        [("gateway_max_json", "0"), ("gateway_body_patience", "0"), ("gateway_grace", "-1"), ("log_format", "xml")],
    )
    def test_a_bad_value_is_refused_by_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, name: str, text: str
    ) -> None:
        monkeypatch.setenv(f"OMNIFLEET_{name.upper()}", text)

        with pytest.raises(InvalidSetting) as caught:
            load_settings(GatewaySettings)

        assert caught.value.field == f"OMNIFLEET_{name.upper()}"
