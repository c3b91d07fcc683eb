"""torchvision's networks, narrowed."""

from __future__ import annotations

from torch import nn

from .registry import Network, add, entry, image, settle_statistics
from .sources import mend_torchvision


def _classifier(name: str, function: str, size: int, **options: object) -> None:
    def make() -> Network:
        mend_torchvision()
        from torchvision import models

        module = getattr(models, function)(num_classes=10, **options)
        x = image(size)
        settle_statistics(module, lambda: module(image(size, batch=8)))
        return Network(module, (x,))

    add(name, "torchvision", make)


_classifier("torchvision_resnet50", "resnet50", 32, width_per_group=8)
_classifier("torchvision_resnext50", "resnet50", 32, groups=4, width_per_group=8)
_classifier("torchvision_mobilenet_v2", "mobilenet_v2", 64, width_mult=0.25)
_classifier("torchvision_mobilenet_v3", "mobilenet_v3_small", 64, width_mult=0.5)
_classifier("torchvision_efficientnet_b0", "efficientnet_b0", 64)
_classifier("torchvision_shufflenet_v2", "shufflenet_v2_x0_5", 64)
_classifier("torchvision_squeezenet", "squeezenet1_1", 64)
_classifier("torchvision_mnasnet", "mnasnet0_5", 64)


@entry("torchvision")
def torchvision_densenet() -> Network:
    mend_torchvision()
    from torchvision.models import DenseNet

    module = DenseNet(8, (2, 3, 2), 12, num_classes=10)
    settle_statistics(module, lambda: module(image(64, batch=8)), passes=5)
    return Network(module, (image(64),))


@entry("torchvision")
def torchvision_convnext() -> Network:
    mend_torchvision()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    module = ConvNeXt([CNBlockConfig(12, 20, 2), CNBlockConfig(20, None, 2)], num_classes=10)
    for name, tensor in module.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(tensor, 0.5, 1.5)
    return Network(module, (image(),))


@entry("torchvision")
def torchvision_swin() -> Network:
    mend_torchvision()
    from torchvision.models.swin_transformer import SwinTransformer

    return Network(SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=10), (image(64),))


@entry("torchvision")
def torchvision_swin_v2() -> Network:
    mend_torchvision()
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    module = SwinTransformer(
        [4, 4],
        16,
        [2, 2],
        [2, 4],
        [4, 4],
        num_classes=10,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )
    return Network(module, (image(64),))


@entry("torchvision")
def torchvision_vit() -> Network:
    mend_torchvision()
    from torchvision.models.vision_transformer import VisionTransformer

    module = VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=10)
    nn.init.normal_(module.heads.head.weight)
    return Network(module, (image(),))


@entry("torchvision")
def torchvision_regnet() -> Network:
    mend_torchvision()
    from torchvision.models.regnet import BlockParams, RegNet

    parameters = BlockParams.from_init_params(2, 8, 8.0, 2.0, 4, se_ratio=0.25)
    module = RegNet(parameters, num_classes=10, stem_width=8)
    settle_statistics(module, lambda: module(image(32, batch=8)), passes=5)
    return Network(module, (image(),))


@entry("torchvision")
def torchvision_fcn() -> Network:
    """A segmentation network over a narrow backbone: outputs are maps."""
    mend_torchvision()
    from torchvision.models import resnet18
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    backbone = IntermediateLayerGetter(resnet18(), {"layer2": "out"})
    return Network(FCN(backbone, FCNHead(128, 4)), (image(),), outputs=lambda found: found["out"])
