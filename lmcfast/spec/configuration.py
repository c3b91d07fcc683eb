"""Specs of networks by their Hugging Face configuration: derived where transformers is installed, else from tables.

No code that comes with a network is ever run: a configuration that names some (``auto_map``) needs a table.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import CheckpointError, SpecError
from ..io.atomic import reason
from .outputs import first_line
from .spec import PermutationSpec
from .tables.by_config import table_for, table_types

if TYPE_CHECKING:
    from .verify import VerifyReport

CONFIG = "config.json"

_TOKENS = 8
_LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)


def spec_for(source: str | PathLike[str] | Mapping[str, Any] | Any, derive: bool | None = None) -> PermutationSpec:
    """The spec of a network from its configuration; no weights are read.

    ``source``: a folder with a ``config.json``, such a file, its content as a mapping, or a configuration of
    transformers. ``derive``: True traces transformers' own class on the meta device; False takes a shipped table;
    default: derived where transformers is installed and knows the ``model_type``, else the table.

    Nothing that comes with the network is executed: with an ``auto_map`` only tables are looked at. ``CheckpointError``
    for a file that cannot be read, ``SpecError`` in one line for a configuration without a way to a spec.
    """
    config = read_config(source)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise SpecError("the configuration has no model_type")
    if config.get("auto_map"):
        if kind in table_types():
            return table_for(config)
        raise SpecError(
            f"the configuration of model_type {kind!r} names code of its own (auto_map), which is never run, and there "
            "is no table for it; write a spec file"
        )
    known = importlib.util.find_spec("transformers") is not None and _is_known(kind)
    if derive is None:
        derive = known
    if not derive and kind not in table_types():
        lack = "transformers does not know it" if known or _installed() else "transformers is not installed"
        raise SpecError(
            f"there is no table for model_type {kind!r}, and {lack}; tables: {', '.join(table_types())}. "
            "Write a spec file, or derive one from the module (derive_spec)"
        )
    if not derive:
        return table_for(config)
    if not known:
        raise SpecError(f"model_type {kind!r} is not one that an installed transformers knows")
    return _derived(config)


def read_config(source: str | PathLike[str] | Mapping[str, Any] | Any) -> dict[str, Any]:
    """A configuration as a dict. ``CheckpointError`` names a file that cannot be read as one."""
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, str | PathLike):
        if hasattr(source, "to_dict"):
            return dict(source.to_dict())
        raise SpecError(f"a folder, a configuration file or a configuration is needed, not {type(source).__name__}")
    path = Path(source)
    path = path / CONFIG if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise CheckpointError(f"{path}: is not a configuration: no JSON", str(path)) from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: is not a configuration but a {type(config).__name__}", str(path))
    return config


def _installed() -> bool:
    return importlib.util.find_spec("transformers") is not None


def _is_known(kind: str) -> bool:
    return kind in importlib.import_module("transformers").CONFIG_MAPPING


def make_network(source: str | PathLike[str] | Mapping[str, Any] | Any, device: str = "meta") -> torch.nn.Module:
    """The network of a configuration as transformers' own class with fresh weights. ``SpecError`` where it has none."""
    transformers = importlib.import_module("transformers")
    config = read_config(source)
    names = config.get("architectures") or []
    made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config)
    try:
        network = getattr(transformers, str(names[0]), None) if names else None
        if network is None and not names:
            network = transformers.AutoModel._model_mapping.get(type(made), None)
    except ImportError as error:  # of something that the class needs
        raise SpecError(
            f"transformers cannot load its network for {config['model_type']!r}: {first_line(error)}"
        ) from None
    if not (isinstance(network, type) and issubclass(network, transformers.PreTrainedModel)):
        raise SpecError(f"transformers has no class {names[0] if names else 'for this configuration'!r}")
    with torch.device(device):
        module: torch.nn.Module = network(made)
    return module.eval()


def example_inputs(network: Any) -> dict[str, torch.Tensor]:
    """Inputs that a network of transformers takes, by its main input: tokens, pixels or sound."""
    config = network.config
    text = getattr(config, "text_config", None) or config
    tokens = torch.arange(1, 2 * _TOKENS + 1).reshape(2, _TOKENS) % max(int(getattr(text, "vocab_size", 64) or 64), 2)
    inputs: dict[str, torch.Tensor] = {}
    main = str(network.main_input_name)
    vision = getattr(config, "vision_config", None)
    if main == "pixel_values" or vision is not None:
        inputs["pixel_values"] = _pixels(vision or config)
    if main == "input_features":
        inputs[main] = torch.zeros(2, config.num_mel_bins, 2 * config.max_source_positions)
    elif main == "input_values":
        inputs[main] = torch.zeros(2, 4000)
    elif main != "pixel_values":
        inputs["input_ids"] = tokens
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens
    return inputs


def _pixels(config: Any) -> torch.Tensor:
    size = getattr(config, "image_size", 224) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    return torch.zeros(2, getattr(config, "num_channels", 3), height, width)


def default_choice(network: Any) -> Callable[[Any], Any] | None:
    """Which outputs must stay: of a network of two towers what it says of pairs; None leaves it to the derivation."""
    return _pairs if hasattr(network, "logit_scale") else None


def _pairs(output: Any) -> Any:
    return output.logits_per_image


def _derived(config: Mapping[str, Any]) -> PermutationSpec:
    from .derivation import derive_spec  # torch.export takes its time to import
    from .derivation.cache import cached

    def derive() -> PermutationSpec:
        network = make_network(config)
        return derive_spec(network, (), example_inputs(network), default_choice(network))

    return cached(config, derive)


def tiny(source: str | PathLike[str] | Mapping[str, Any] | Any) -> dict[str, Any]:
    """The configuration with at most two layers and a thousand tokens: the same forward pass, quick to prove."""
    config = read_config(source)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for name in _LAYERS:
            if isinstance(part.get(name), int):
                part[name] = min(part[name], 2)
        if isinstance(part.get("layer_types"), list):
            part["layer_types"] = part["layer_types"][:2]
        if isinstance(part.get("vocab_size"), int):
            part["vocab_size"] = min(part["vocab_size"], 1000)
            for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
                if isinstance(part.get(name), int) and part[name] >= part["vocab_size"]:
                    part[name] = part["vocab_size"] - 1
    return config


def prove(source: str | PathLike[str] | Mapping[str, Any] | Any) -> VerifyReport:
    """Verify what :func:`spec_for` gives on a network of the same class with random weights (:func:`tiny`)."""
    from .verify import verify_spec

    config = tiny(source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make_network(config, "cpu")
        inputs = {
            name: torch.randn(value.shape) if value.is_floating_point() else value
            for name, value in example_inputs(network).items()
        }
    return verify_spec(spec_for(config), network, (), inputs, default_choice(network))
