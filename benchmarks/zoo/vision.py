"""Models of torchvision and timm as their libraries make them, as small as their own settings allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from autoprune.task.data import Inputs

Built = tuple[nn.Module, Inputs]
Maker = Callable[[], Built]


def _timm(name: str, size: int = 64, **settings: object) -> Maker:
    """size: of the images; settings: of `timm.create_model`."""

    def make() -> Built:
        import timm

        model = timm.create_model(name, pretrained=False, num_classes=10, **settings)
        return model, torch.randn(2, 3, size, size)

    return make


def _torchvision(name: str, size: int | tuple[int, ...] = 64, **settings: object) -> Maker:
    """size: of the images, or all sides of the inputs; settings: of `torchvision.models.get_model`."""

    def make() -> Built:
        import torchvision

        sides = (size, size) if isinstance(size, int) else size
        return torchvision.models.get_model(name, weights=None, **settings), torch.randn(2, 3, *sides)

    return make


def _of_torchvision(module: str, kind: str, size: tuple[int, ...], **settings: object) -> Maker:
    """A class of torchvision with settings that its named models do not pass on."""

    def make() -> Built:
        import importlib

        made = getattr(importlib.import_module(f"torchvision.models.{module}"), kind)
        return made(num_classes=10, **settings), torch.randn(2, 3, *size)

    return make


def _of_timm(module: str, kind: str, size: int, **settings: object) -> Maker:
    """A class of timm, where the named models do not let go of their sizes. Text is the name of a class there."""

    def make() -> Built:
        import importlib

        models = importlib.import_module(f"timm.models.{module}")
        chosen = {
            name: getattr(models, value) if isinstance(value, str) and hasattr(models, value) else value
            for name, value in settings.items()
        }
        return getattr(models, kind)(num_classes=10, **chosen), torch.randn(2, 3, size, size)

    return make


def _swin(version: str) -> Maker:
    def make() -> Built:
        from torchvision.models import swin_transformer as swin

        v2 = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2} if version == "v2" else {}
        model = swin.SwinTransformer(
            patch_size=[4, 4],
            embed_dim=24,
            depths=[2, 2],
            num_heads=[3, 6],
            window_size=[4, 4],
            num_classes=10,
            **v2,
        )
        return model, torch.randn(2, 3, 32, 32)

    return make


_FEW = {"num_classes": 10}

TORCHVISION: Mapping[str, Maker] = {
    "alexnet": _torchvision("alexnet", **_FEW),
    "convnext_tiny": _torchvision("convnext_tiny", **_FEW),
    "densenet121": _torchvision("densenet121", **_FEW),
    "efficientnet_b0": _torchvision("efficientnet_b0", **_FEW),
    "efficientnet_v2_s": _torchvision("efficientnet_v2_s", **_FEW),
    "googlenet": _torchvision("googlenet", aux_logits=False, init_weights=False, **_FEW),
    "inception_v3": _torchvision("inception_v3", 96, aux_logits=False, init_weights=False, **_FEW),
    "maxvit": _of_torchvision(
        "maxvit",
        "MaxVit",
        (64, 64),
        input_size=(64, 64),
        stem_channels=16,
        partition_size=2,
        block_channels=[16, 32],
        block_layers=[1, 1],
        head_dim=8,
        stochastic_depth_prob=0.0,
    ),
    "mnasnet0_5": _torchvision("mnasnet0_5", **_FEW),
    "mobilenet_v2": _torchvision("mobilenet_v2", **_FEW),
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small", **_FEW),
    "regnet_x_400mf": _torchvision("regnet_x_400mf", **_FEW),
    "regnet_y_400mf": _torchvision("regnet_y_400mf", **_FEW),
    "resnet18": _torchvision("resnet18", **_FEW),
    "resnext50_32x4d": _torchvision("resnext50_32x4d", **_FEW),
    "shufflenet_v2_x0_5": _torchvision("shufflenet_v2_x0_5", **_FEW),
    "squeezenet1_1": _torchvision("squeezenet1_1", **_FEW),
    "swin": _swin("v1"),
    "swin_v2": _swin("v2"),
    "vit": _of_torchvision(
        "vision_transformer",
        "VisionTransformer",
        (32, 32),
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=48,
        mlp_dim=96,
    ),
    "deeplabv3_mobilenet_v3_large": _torchvision("deeplabv3_mobilenet_v3_large", weights_backbone=None, num_classes=5),
    "lraspp_mobilenet_v3_large": _torchvision("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=5),
    "fcn_resnet50": _torchvision("fcn_resnet50", weights_backbone=None, num_classes=5),
    "r2plus1d_18": _torchvision("r2plus1d_18", (4, 32, 32), **_FEW),
    "s3d": _torchvision("s3d", (16, 224, 224), **_FEW),
}

TIMM: Mapping[str, Maker] = {
    "beit": _timm("beit_base_patch16_224", 64, img_size=64, depth=2, embed_dim=48, num_heads=4),
    "cait": _timm("cait_xxs24_224", 64, img_size=64, depth=2, embed_dim=48, num_heads=4),
    "coat": _timm(
        "coat_tiny", 64, img_size=64, embed_dims=(16, 16, 16, 16), serial_depths=(1, 1, 1, 1), parallel_depth=1
    ),
    "coatnet": _timm("coatnet_nano_rw_224", 64, img_size=64),
    "convit": _timm("convit_tiny", 64, img_size=64),
    "convmixer": _timm("convmixer_768_32", 64),
    "convnext_atto": _timm("convnext_atto", 64),
    "convnextv2_atto": _timm("convnextv2_atto", 64),
    "crossvit": _timm("crossvit_tiny_240", 240),
    "cspdarknet53": _timm("cspdarknet53", 64),
    "cspresnet50": _timm("cspresnet50", 64),
    "davit": _timm("davit_tiny", 64, depths=(1, 1, 1, 1), embed_dims=(16, 32, 64, 128), num_heads=(2, 2, 4, 4)),
    "deit_distilled": _timm("deit_tiny_distilled_patch16_224", 64, img_size=64, depth=3),
    "dla34": _timm("dla34", 64),
    "dpn48b": _timm("dpn48b", 64),
    "eca_nfnet_l0": _timm("eca_nfnet_l0", 64),
    "edgenext": _timm("edgenext_xx_small", 64),
    "efficientformer": _timm("efficientformer_l1", 224),
    "efficientformerv2": _timm("efficientformerv2_s0", 224),
    "efficientvit_b0": _timm("efficientvit_b0", 64),
    "efficientvit_m0": _timm("efficientvit_m0", 224),
    "eva02": _timm("eva02_tiny_patch14_224", 56, img_size=56, depth=3),
    "fastvit": _timm("fastvit_t8", 64),
    "focalnet": _of_timm("focalnet", "FocalNet", 64, depths=(1, 1, 1, 1), embed_dim=16),
    "gcvit": _timm("gcvit_xxtiny", 224),
    "ghostnet_050": _timm("ghostnet_050", 64),
    "gmlp": _of_timm(
        "mlp_mixer",
        "MlpMixer",
        64,
        img_size=64,
        num_blocks=3,
        embed_dim=64,
        mlp_ratio=6,
        block_layer="SpatialGatingBlock",
        mlp_layer="GatedMlp",
    ),
    "hardcorenas_a": _timm("hardcorenas_a", 64),
    "hgnetv2_b0": _timm("hgnetv2_b0", 64),
    "hrnet_w18_small": _timm("hrnet_w18_small", 64),
    "inception_next": _timm("inception_next_atto", 64),
    "levit": _timm("levit_128s", 224),
    "mambaout": _timm("mambaout_femto", 64),
    "mixer": _of_timm("mlp_mixer", "MlpMixer", 64, img_size=64, num_blocks=3, embed_dim=64),
    "mobilenetv4_small": _timm("mobilenetv4_conv_small", 64),
    "mobileone_s0": _timm("mobileone_s0", 64),
    "mobilevit_xxs": _timm("mobilevit_xxs", 64),
    "mobilevitv2": _timm("mobilevitv2_050", 64),
    "mvitv2": _timm("mvitv2_tiny", 64, img_size=64),
    "nest": _of_timm("nest", "Nest", 64, img_size=64, embed_dims=(24, 48, 96), num_heads=(2, 4, 8), depths=(1, 1, 2)),
    "nf_regnet_b0": _timm("nf_regnet_b0", 64),
    "pit": _timm("pit_ti_224", 64, img_size=64),
    "poolformer": _of_timm(
        "metaformer",
        "MetaFormer",
        64,
        depths=(1, 1, 2, 1),
        dims=(16, 32, 48, 64),
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers="GroupNorm1",
        layer_scale_init_values=1e-5,
        res_scale_init_values=None,
        use_mlp_head=False,
        token_mixers="Pooling",
    ),
    "pvt_v2_b0": _timm("pvt_v2_b0", 64),
    "repghostnet_050": _timm("repghostnet_050", 64),
    "repvit_m0_9": _timm("repvit_m0_9", 64),
    "res2net50": _timm("res2net50_26w_4s", 64),
    "resmlp": _of_timm(
        "mlp_mixer",
        "MlpMixer",
        64,
        img_size=64,
        num_blocks=3,
        embed_dim=64,
        mlp_ratio=4,
        block_layer="ResBlock",
        norm_layer="Affine",
    ),
    "resnest14d": _timm("resnest14d", 64),
    "resnet26t": _timm("resnet26t", 64),
    "rexnet_100": _timm("rexnet_100", 64),
    "selecsls42": _timm("selecsls42", 64),
    "sequencer2d": _timm(
        "sequencer2d_s",
        64,
        img_size=64,
        layers=[1, 1, 1, 1],
        embed_dims=[24, 48, 48, 48],
        hidden_sizes=[6, 12, 12, 12],
        patch_sizes=[7, 2, 1, 1],
    ),
    "skresnet18": _timm("skresnet18", 64),
    "swinv2": _timm(
        "swinv2_tiny_window8_256", 64, img_size=64, window_size=4, depths=(2, 2), num_heads=(3, 6), embed_dim=24
    ),
    "tinyvit": _timm("tiny_vit_5m_224", 224),
    "tnt": _timm("tnt_s_legacy_patch16_224", 64, img_size=64, depth=2),
    "twins_svt": _timm(
        "twins_svt_small", 64, img_size=64, depths=(1, 1, 2, 1), embed_dims=(16, 32, 48, 64), num_heads=(2, 4, 6, 8)
    ),
    "visformer": _timm("visformer_tiny", 64, img_size=64, depth=(2, 2, 2), embed_dim=48),
    "vit_tiny": _timm("vit_tiny_patch16_224", 64, img_size=64, depth=3),
    "volo": _of_timm(
        "volo", "VOLO", 64, layers=[1, 1, 1, 1], img_size=64, embed_dims=[24, 48, 48, 48], num_heads=[2, 4, 4, 4]
    ),
    "xcit": _timm("xcit_nano_12_p16_224", 64, img_size=64, depth=2),
}
