"""The table of a configuration, by its ``model_type`` and architecture."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SpecError
from ..spec import PermutationSpec
from . import decoders, encoders
from .configured import Config

_TABLES: dict[str, tuple[Callable[[Config], PermutationSpec], str]] = {
    **{kind: (decoders.llama, "ForCausalLM") for kind in "llama mistral qwen2 qwen3 gemma granite phi3".split()},  # noqa: SIM905
    "mixtral": (decoders.mixtral, "ForCausalLM"),
    "gpt2": (decoders.gpt2, "LMHeadModel"),
    "gpt_neox": (decoders.gpt_neox, "ForCausalLM"),
    **{kind: (encoders.bert, "ForMaskedLM") for kind in ("bert", "roberta", "xlm-roberta", "camembert")},
    "vit": (encoders.vit, "ForImageClassification"),
    "t5": (encoders.t5, "ForConditionalGeneration"),
    "clip": (encoders.clip, "CLIPModel"),
}


def table_types() -> tuple[str, ...]:
    """The values of ``model_type`` that have a table."""
    return tuple(_TABLES)


def table_for(config: Config) -> PermutationSpec:
    """The spec of a configuration from the shipped tables, with all sizes.

    ``SpecError`` in one line: no ``model_type``, one without a table, an architecture that the table does not
    describe, or a size that is missing.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise SpecError("the configuration has no model_type")
    if kind not in _TABLES:
        raise SpecError(f"there is no table for model_type {kind!r}; there are tables for {', '.join(_TABLES)}")
    table, ending = _TABLES[kind]
    names = config.get("architectures") or [ending]
    if not str(names[0]).endswith(ending):
        raise SpecError(f"the table for model_type {kind!r} is for ...{ending}, not for architecture {names[0]!r}")
    return table(config)
