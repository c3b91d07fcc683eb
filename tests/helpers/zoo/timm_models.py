"""timm's networks, narrowed."""

from __future__ import annotations

from typing import Any

from torch import nn

from .registry import Network, add, image, settle_statistics
from .sources import source


def _timm(name: str, model: str, size: int = 32, batch_norm: bool = False, lost: str = "", **options: Any) -> None:
    def make() -> Network:
        module = source("timm").create_model(model, num_classes=10, **options)
        for path, tensor in module.named_parameters():
            if path.endswith(("gamma", "layer_scale.scale")):
                nn.init.uniform_(tensor, 0.5, 1.5)
        if batch_norm:
            settle_statistics(module, lambda: module(image(size, batch=8)), passes=10)
        return Network(module, (image(size),))

    add(name, "timm", make, lost)


def _mixer(name: str, block: str, mlp_ratio: Any = (0.5, 4.0), **layers: str) -> None:
    """``MlpMixer`` of timm with one of its blocks."""

    def make() -> Network:
        mixers = source("timm").models.mlp_mixer
        options = {key: getattr(mixers, layer) for key, layer in layers.items()}
        module = mixers.MlpMixer(
            num_classes=10,
            img_size=32,
            patch_size=8,
            num_blocks=2,
            embed_dim=24,
            mlp_ratio=mlp_ratio,
            block_layer=getattr(mixers, block),
            **options,
        )
        return Network(module, (image(),))

    add(name, "timm", make)


_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
_timm("timm_vit", "vit_tiny_patch16_224", **_VIT)
_timm("timm_vit_qk_norm", "vit_tiny_patch16_224", qk_norm=True, init_values=0.5, **_VIT)
_timm("timm_vit_registers_swiglu", "vit_tiny_patch16_224", reg_tokens=2, global_pool="avg", **_VIT)
_timm("timm_deit_distilled", "deit_tiny_distilled_patch16_224", **_VIT)
_timm("timm_beit", "beit_base_patch16_224", **_VIT)
_timm("timm_eva", "eva02_tiny_patch14_224", **_VIT)
_timm("timm_cait", "cait_xxs24_224", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
_timm("timm_xcit", "xcit_nano_12_p16_224", img_size=32, embed_dim=24, depth=2, num_heads=3)
_mixer("timm_mixer", "MixerBlock")
_mixer("timm_gmlp", "SpatialGatingBlock", 6, mlp_layer="GatedMlp")
_mixer("timm_resmlp", "ResBlock", 4, norm_layer="Affine")
_timm("timm_swin", "swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4, embed_dim=16, depths=(2, 2),
      num_heads=(2, 4))  # fmt: skip
_timm("timm_convnext", "convnext_atto", 64, depths=(1, 1, 2, 1), dims=(8, 12, 16, 20))
_timm("timm_convnext_v2", "convnextv2_atto", 64, depths=(1, 1, 2, 1), dims=(8, 12, 16, 20))
_timm("timm_poolformer", "poolformer_s12", 64)
_timm("timm_resnet_d", "resnet26d", 32, batch_norm=True, base_width=8)
_timm("timm_efficientnet_lite", "efficientnet_lite0", 64, batch_norm=True)
_timm("timm_mobilenet_v4", "mobilenetv4_conv_small", 64, batch_norm=True)
_timm("timm_ghostnet", "ghostnet_050", 64, batch_norm=True)
_timm("timm_levit", "levit_128s", 64, batch_norm=True, img_size=64, embed_dim=(16, 24, 32), num_heads=(2, 3, 4),
      depth=(1, 1, 1), key_dim=8)  # fmt: skip
