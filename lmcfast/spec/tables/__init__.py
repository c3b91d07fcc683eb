"""Specs of well-known architectures, recognised by the keys and shapes of a state dict.

A table claims a state dict only if it has a place for every tensor and every shape fits. Keys do not show the forward
pass, so a spec from a table is a proposal until ``verify_spec`` has proved it on the module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from ...errors import SpecError
from ..checks import check_mapping
from ..spec import PermutationSpec
from .chain import feed_forward_spec, vgg_spec
from .resnet import resnet_spec

__all__ = ["feed_forward_spec", "resnet_spec", "spec_from_params", "vgg_spec"]

_KNOWN = (
    "feed-forward (0.weight 2.weight .., or fc1 fc2 ..), VGG (features.N classifier.N), "
    "ResNet (conv1 layer1.0.conv1 .. fc), with batch norm or none"
)


def spec_from_params(params: Mapping[str, torch.Tensor]) -> PermutationSpec:
    """The spec of a state dict (``module.state_dict()``) of a known architecture, bound to it.

    Known are plain feed-forward networks, VGG and ResNet (see the tables). ``SpecError`` where a tensor or a shape
    does not fit completely: it names the tensor and says what is known. The spec does not depend on the order of the
    keys: its entries are in the order of the forward pass.
    """
    check_mapping(params)
    if not params:
        raise SpecError("the state dict is empty")
    if any(re.search(r"(^|\.)layer\d+\.\d+\.(conv|bn)\d+\.", name) for name in params):
        table, title = resnet_spec, "ResNet"
    elif any(re.search(r"(^|\.)features\.\d+\.", name) for name in params):
        table, title = vgg_spec, "VGG"
    else:
        table, title = feed_forward_spec, "feed-forward"
    try:
        return table(params)
    except SpecError as error:
        raise SpecError(
            f"no spec known for this state dict (closest: {title}): {error}. Known: {_KNOWN}; "
            "for another network give a spec",
            error.tensor,
            error.group,
        ) from None
