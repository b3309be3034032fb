"""Models of Transformers with small configurations that keep the structure of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from autoprune.task.data import Inputs

Built = tuple[nn.Module, Inputs]
Maker = Callable[[], Built]

_WORDS = 60


def _ids(length: int = 9) -> Inputs:
    return {"input_ids": torch.randint(3, _WORDS, (2, length))}


def _pixels(side: int) -> Inputs:
    return {"pixel_values": torch.randn(2, 3, side, side)}


def _new(name: str, **settings: object) -> object:
    """An object of a class of transformers."""
    import transformers

    made: object = getattr(transformers, name)(**settings)
    return made


def _model(name: str, config: object) -> nn.Module:
    import transformers

    made: nn.Module = getattr(transformers, name)(config)
    return made


def _made(model: str, config: str, inputs: Callable[[], Inputs], **settings: object) -> Maker:
    """model, config: classes of transformers; settings: of the configuration."""

    def make() -> Built:
        return _model(model, _new(config, **settings)), inputs()

    return make


_BERT = {
    "vocab_size": _WORDS,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 32,
    "num_labels": 5,
}
_LLAMA = {
    "vocab_size": _WORDS,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_labels": 5,
}

_BART = {
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
}


def _bert(name: str, **more: object) -> Maker:
    return _made(f"{name}ForSequenceClassification", f"{name}Config", _ids, **{**_BERT, **more})


def _causal(name: str, **more: object) -> Maker:
    return _made(f"{name}ForCausalLM", f"{name}Config", _ids, **{**_LLAMA, **more})


def _image(name: str, side: int = 32, **more: object) -> Maker:
    return _made(f"{name}ForImageClassification", f"{name}Config", lambda: _pixels(side), **more)


def _t5() -> Inputs:
    return {"input_ids": torch.randint(3, _WORDS, (2, 9)), "decoder_input_ids": torch.randint(3, _WORDS, (2, 6))}


def _whisper() -> Inputs:
    return {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": torch.randint(3, _WORDS, (2, 6))}


def _resnet_of_detection(config: str) -> object:
    return _new(
        config,
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def _detr() -> Built:
    config = _new(
        "DetrConfig",
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=_resnet_of_detection("ResNetConfig"),
        num_queries=6,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_labels=5,
    )
    return _model("DetrForObjectDetection", config), _pixels(64)


def _rt_detr() -> Built:
    config = _new(
        "RTDetrConfig",
        backbone_config=_resnet_of_detection("RTDetrResNetConfig"),
        encoder_hidden_dim=32,
        encoder_in_channels=[24, 32, 48],
        feat_strides=[8, 16, 32],
        encoder_ffn_dim=48,
        encoder_attention_heads=4,
        d_model=32,
        num_queries=6,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=48,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_n_points=2,
        num_labels=5,
        anchor_image_size=None,
    )
    return _model("RTDetrForObjectDetection", config), _pixels(64)


def _mask2former() -> Built:
    backbone = _new(
        "SwinConfig",
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 4, 4],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = _new(
        "Mask2FormerConfig",
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        dim_feedforward=48,
        num_queries=6,
        num_labels=5,
    )
    return _model("Mask2FormerForUniversalSegmentation", config), _pixels(64)


def _clip() -> Built:
    text = {
        "vocab_size": _WORDS,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    vision = {key: value for key, value in _VIT.items() if key != "num_labels"}
    model = _model("CLIPModel", _new("CLIPConfig", text_config=text, vision_config=vision, projection_dim=24))
    words = torch.cat([torch.randint(3, _WORDS, (2, 8)), torch.full((2, 1), 2)], 1)
    return model, {"input_ids": words, "pixel_values": torch.randn(2, 3, 32, 32)}


TRANSFORMERS: Mapping[str, Maker] = {
    "bert": _bert("Bert"),
    "roberta": _bert("Roberta", pad_token_id=1),
    "albert": _bert("Albert", embedding_size=24),
    "electra": _bert("Electra", embedding_size=24),
    "deberta_v2": _bert(
        "DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, max_relative_positions=16
    ),
    "mpnet": _bert("MPNet"),
    "distilbert": _made(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        _ids,
        vocab_size=_WORDS,
        dim=48,
        n_layers=3,
        n_heads=4,
        hidden_dim=96,
        max_position_embeddings=32,
        num_labels=5,
    ),
    "modernbert": _bert("ModernBert", pad_token_id=0, cls_token_id=1, sep_token_id=2, global_attn_every_n_layers=2),
    "gpt2": _made(
        "GPT2LMHeadModel",
        "GPT2Config",
        _ids,
        vocab_size=_WORDS,
        n_positions=32,
        n_embd=48,
        n_layer=3,
        n_head=4,
        use_cache=False,
    ),
    "gpt_neox": _causal("GPTNeoX"),
    "gptj": _made(
        "GPTJForCausalLM",
        "GPTJConfig",
        _ids,
        vocab_size=_WORDS,
        n_positions=32,
        n_embd=48,
        n_layer=3,
        n_head=4,
        rotary_dim=8,
        use_cache=False,
    ),
    "opt": _causal("OPT", ffn_dim=96, word_embed_proj_dim=64),
    "bloom": _made(
        "BloomForCausalLM", "BloomConfig", _ids, vocab_size=_WORDS, hidden_size=48, n_layer=3, n_head=4, use_cache=False
    ),
    "falcon": _made(
        "FalconForCausalLM",
        "FalconConfig",
        _ids,
        vocab_size=_WORDS,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        use_cache=False,
    ),
    "llama": _causal("Llama"),
    "mistral": _causal("Mistral", sliding_window=None),
    "mixtral": _causal("Mixtral", num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "phi": _causal("Phi", num_key_value_heads=4),
    "phi3": _causal("Phi3", sliding_window=None),
    "qwen2": _causal("Qwen2"),
    "qwen3": _causal("Qwen3", head_dim=16),
    "gemma2": _causal("Gemma2", head_dim=16, query_pre_attn_scalar=16, sliding_window=16),
    "olmo2": _causal("Olmo2"),
    "mamba": _made(
        "MambaForCausalLM",
        "MambaConfig",
        _ids,
        vocab_size=_WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        use_cache=False,
    ),
    "t5": _made(
        "T5ForConditionalGeneration",
        "T5Config",
        _t5,
        vocab_size=_WORDS,
        d_model=48,
        d_kv=12,
        num_heads=4,
        d_ff=96,
        num_layers=3,
        use_cache=False,
        decoder_start_token_id=0,
    ),
    "bart": _made(
        "BartForConditionalGeneration",
        "BartConfig",
        _t5,
        vocab_size=_WORDS,
        max_position_embeddings=32,
        use_cache=False,
        **_BART,
    ),
    "whisper": _made(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        _whisper,
        vocab_size=_WORDS,
        num_mel_bins=8,
        max_source_positions=16,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        use_cache=False,
        **_BART,
    ),
    "wav2vec2": _made(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        lambda: {"input_values": torch.randn(2, 400)},
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        conv_dim=[16, 16, 16],
        conv_stride=[5, 2, 2],
        conv_kernel=[10, 3, 3],
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=24,
        num_labels=5,
    ),
    "vit": _image("ViT", **_VIT),
    "dinov2": _image("Dinov2", **{k: v for k, v in _VIT.items() if k != "intermediate_size"}, mlp_ratio=2),
    "swin": _image(
        "Swin", image_size=32, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[3, 6], window_size=4, num_labels=5
    ),
    "segformer": _image(
        "Segformer",
        64,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 4, 4],
        decoder_hidden_size=32,
        num_labels=5,
    ),
    "clip": _clip,
    "detr": _detr,
    "rt_detr": _rt_detr,
    "mask2former": _mask2former,
}
