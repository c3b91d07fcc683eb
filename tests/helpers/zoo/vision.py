"""Networks of transformers that see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .configured import PATCHES, configured, pixels
from .registry import image, settle_statistics


def _settle(module: Any, example: Mapping[str, Any]) -> None:
    """Weights that keep the signal alive, and statistics of it."""
    for tensor in module.parameters():
        if tensor.ndim > 1:
            nn.init.kaiming_normal_(tensor)
    settle_statistics(module, lambda: module(**example))


configured("vit", "ViTForImageClassification", "ViTConfig", pixels, **PATCHES)
configured("deit", "DeiTForImageClassification", "DeiTConfig", pixels, **PATCHES)
configured("beit", "BeitForImageClassification", "BeitConfig", pixels, use_relative_position_bias=True, **PATCHES)
configured("dinov2", "Dinov2ForImageClassification", "Dinov2Config", pixels,
           **{key: value for key, value in PATCHES.items() if key != "intermediate_size"})  # fmt: skip
configured("swin", "SwinForImageClassification", "SwinConfig", pixels, image_size=32, patch_size=4, embed_dim=16,
           depths=[2, 2], num_heads=[2, 4], window_size=4)  # fmt: skip
configured("resnet", "ResNetForImageClassification", "ResNetConfig", pixels, embedding_size=8, hidden_sizes=[16, 24],
           depths=[2, 2])  # fmt: skip
configured("convnext", "ConvNextForImageClassification", "ConvNextConfig", pixels, hidden_sizes=[8, 16], depths=[2, 2],
           num_stages=2)  # fmt: skip
configured("segformer", "SegformerForImageClassification", "SegformerConfig", pixels, num_encoder_blocks=2,
           depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[2, 2], patch_sizes=[7, 3],
           strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=16)  # fmt: skip
configured("mobilevit", "MobileViTForImageClassification", "MobileViTConfig", lambda: {"pixel_values": image(64)},
           finish=_settle, image_size=64, hidden_sizes=[12, 16, 20],
           neck_hidden_sizes=[8, 8, 12, 16, 20, 24, 32])  # fmt: skip
