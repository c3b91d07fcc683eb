"""A zoo of tiny networks, by source: plain torch, torchvision, timm, transformers.

``names("torchvision")`` lists them, ``build(name)`` makes one. Importing this package imports none of the sources.
"""

from __future__ import annotations

from . import (
    attention,
    convolutional,
    decoders,
    encoders,
    experts,
    general,
    pairs,
    timm_models,
    torchvision_models,
    vision,
)
from .registry import ENTRIES, Entry, Network, build
from .sources import mend_torchvision

__all__ = ["ENTRIES", "SOURCES", "Entry", "Network", "build", "mend_torchvision", "names"]

SOURCES = ("torch", "torchvision", "timm", "transformers")


def names(source: str) -> tuple[str, ...]:
    """The networks of one source, in the order of their declaration."""
    return tuple(name for name, entry in ENTRIES.items() if entry.source == source)


_ = (attention, convolutional, decoders, encoders, experts, general, pairs, timm_models, torchvision_models, vision)
