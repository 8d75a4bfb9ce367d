"""What this project's own models share: diffusers loads and saves them, with the types that diffusers leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from diffusers.configuration_utils import ConfigMixin
from diffusers.configuration_utils import register_to_config as _register_to_config
from diffusers.models.modeling_utils import ModelMixin

P = ParamSpec("P")


# Both bases have a `config_name`, and ModelMixin's is the one that counts.
class DiffusersModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A model with a `config`, `from_pretrained` and `save_pretrained`; its `__init__` is to be registered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers' own has no types

    @property
    def config(self) -> Any:
        """The arguments that it was made with, as attributes."""
        return super().config


def register_to_config(init: Callable[P, None]) -> Callable[P, None]:
    """Keep the arguments of an `__init__` as the model's `config`: diffusers' decorator, which forgets their types."""
    registered: Callable[P, None] = _register_to_config(init)
    return registered
