"""Models of Hugging Face transformers 5, built from tiny configurations with random weights: nothing is downloaded.

transformers is imported where a model is built, so this module can be imported without it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from autoprune.task.data import Inputs

VOCAB = 40
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
DECODER = {**ENCODER, **TOKENS, "hidden_size": 32, "intermediate_size": 40, "use_cache": False}
GROUPED = {**DECODER, "num_key_value_heads": 2}
ENCODER_DECODER = {
    **TOKENS,
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "use_cache": False,
}
VISION = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


@torch.no_grad()
def stirred(model: nn.Module) -> nn.Module:
    """The model with weights of unit gain, and with scales and shifts of their own for every channel.

    The libraries start at 0.02 for matrices, 1 for norms and 0 for biases: channels would be hard to tell apart.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and not name.endswith("original0"):
            parameter.normal_(0, (parameter.shape[0] / parameter.numel()) ** 0.5)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.2)
        elif parameter.ndim:
            parameter.uniform_(0.5, 1.5)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.get_buffer("running_mean").normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def built(model: Callable[..., nn.Module], config: Callable[..., object], **options: object) -> nn.Module:
    return stirred(model(config(**options)))


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return built(BertModel, BertConfig, **ENCODER)


def bert_eager() -> nn.Module:
    """Attention by matmul and softmax, as with `attn_implementation="eager"` and its attention maps as outputs."""
    from transformers import BertConfig, BertModel

    return built(BertModel, BertConfig, **ENCODER, attn_implementation="eager", output_attentions=True)


def bert_classifier() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return built(BertForSequenceClassification, BertConfig, **ENCODER, num_labels=3)


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 16}
    return built(DistilBertForSequenceClassification, DistilBertConfig, vocab_size=VOCAB, **sizes, num_labels=3)


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24, "n_positions": 16}
    return built(GPT2LMHeadModel, GPT2Config, **TOKENS, vocab_size=VOCAB, **sizes, use_cache=False)


def llama() -> nn.Module:
    """Grouped-query attention: 4 heads share 2 heads of keys and values."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return built(LlamaForCausalLM, LlamaConfig, **GROUPED)


def llama_eager() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return built(LlamaForCausalLM, LlamaConfig, **GROUPED, attn_implementation="eager")


def qwen2() -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return built(Qwen2ForCausalLM, Qwen2Config, **GROUPED)


def t5(**options: object) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    buckets = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}
    options = {**sizes, **buckets, **options}
    return built(T5ForConditionalGeneration, T5Config, vocab_size=VOCAB, use_cache=False, **options)


def t5_gated() -> nn.Module:
    """T5 1.1 (and Flan-T5): a gated feed-forward and a head of its own."""
    return t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return built(ViTForImageClassification, ViTConfig, **VISION, num_labels=3)


def whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"num_mel_bins": 8, "max_source_positions": 6, "max_target_positions": 12}
    return built(WhisperForConditionalGeneration, WhisperConfig, **ENCODER_DECODER, **sizes, decoder_start_token_id=1)


def roberta() -> nn.Module:
    """Positions are counted from the tokens that are no padding."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    return built(RobertaForMaskedLM, RobertaConfig, **ENCODER, pad_token_id=1, bos_token_id=0, eos_token_id=2)


def albert() -> nn.Module:
    """One layer used three times, and embeddings narrower than the layers."""
    from transformers import AlbertConfig, AlbertForSequenceClassification

    options = {**ENCODER, **TOKENS, "num_hidden_layers": 3}
    return built(AlbertForSequenceClassification, AlbertConfig, **options, embedding_size=8, num_labels=3)


def electra() -> nn.Module:
    from transformers import ElectraConfig, ElectraForPreTraining

    return built(ElectraForPreTraining, ElectraConfig, **ENCODER, embedding_size=8)


def gpt_neox() -> nn.Module:
    """Query, key and value of a head lie beside each other; rotary over a part; parallel residual branches."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    return built(GPTNeoXForCausalLM, GPTNeoXConfig, **DECODER, rope_parameters=rope)


def opt() -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    options = {**DECODER, "hidden_size": 16}
    return built(OPTForCausalLM, OPTConfig, **options, ffn_dim=24, word_embed_proj_dim=12)


def mistral() -> nn.Module:
    from transformers import MistralConfig, MistralForCausalLM

    return built(MistralForCausalLM, MistralConfig, **GROUPED, sliding_window=4)


def qwen3() -> nn.Module:
    """Norms over the width of every head's query and key."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return built(Qwen3ForCausalLM, Qwen3Config, **GROUPED, head_dim=6)


def gemma2() -> nn.Module:
    """Norms before and after each branch, scales of 1 + weight, soft capping, a sliding window in every other layer."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return built(Gemma2ForCausalLM, Gemma2Config, **GROUPED, head_dim=8, query_pre_attn_scalar=8, sliding_window=4)


def phi() -> nn.Module:
    from transformers import PhiConfig, PhiForCausalLM

    return built(PhiForCausalLM, PhiConfig, **DECODER)


def bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    return built(
        BartForConditionalGeneration,
        BartConfig,
        **ENCODER_DECODER,
        max_position_embeddings=16,
        decoder_start_token_id=2,
    )


def deit() -> nn.Module:
    """Two tokens beside the patches, a head on each."""
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    return built(DeiTForImageClassificationWithTeacher, DeiTConfig, **VISION, num_labels=3)


def swin() -> nn.Module:
    """Attention in shifted windows; neighbouring patches merge between the stages."""
    from transformers import SwinConfig, SwinModel

    sizes = {"image_size": 16, "patch_size": 2, "num_channels": 3, "window_size": 4}
    return built(SwinModel, SwinConfig, **sizes, embed_dim=8, depths=[2, 2], num_heads=[2, 4])


def convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    sizes = {"num_channels": 3, "patch_size": 2, "num_stages": 3}
    return built(
        ConvNextForImageClassification,
        ConvNextConfig,
        **sizes,
        hidden_sizes=[8, 12, 16],
        depths=[1, 2, 1],
        num_labels=3,
    )


def clip() -> nn.Module:
    """Two towers that meet in one space."""
    from transformers import CLIPConfig, CLIPModel

    text = {**ENCODER, **TOKENS, "projection_dim": 12}
    vision = {**VISION, "hidden_size": 24, "projection_dim": 12}
    return built(CLIPModel, CLIPConfig, text_config=text, vision_config=vision, projection_dim=12)


def wav2vec2(**options: object) -> nn.Module:
    """Convolutions over the raw wave; the positional convolution is grouped and has weight norm."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    layers = {"conv_dim": [8, 12], "conv_stride": [4, 2], "conv_kernel": [8, 3], "num_feat_extract_layers": 2}
    positional = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    options = {**layers, **positional, **options}
    return built(Wav2Vec2Model, Wav2Vec2Config, **{**ENCODER, **options})


def wav2vec2_stable() -> nn.Module:
    """The large variant: layer norms in the feature extractor and before each branch."""
    return wav2vec2(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)


def deberta_v2() -> nn.Module:
    """Content and position attend to each other (disentangled attention)."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    return built(
        DebertaV2ForSequenceClassification,
        DebertaV2Config,
        **ENCODER,
        relative_attention=True,
        position_buckets=4,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        num_labels=3,
    )


def mpnet() -> nn.Module:
    from transformers import MPNetConfig, MPNetModel

    return built(MPNetModel, MPNetConfig, **ENCODER, **TOKENS)


def segformer() -> nn.Module:
    """Attention over keys and values of lower resolution; the decoder joins the maps of all stages."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    encoder = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16]}
    patches = {"patch_sizes": [7, 3], "strides": [4, 2]}
    heads = {"num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 12}
    return built(SegformerForSemanticSegmentation, SegformerConfig, **encoder, **patches, **heads, num_labels=3)


def mamba() -> nn.Module:
    """The selective scan in plain torch, float32 written into it: it computes and answers so in float64 too."""
    from transformers import MambaConfig, MambaForCausalLM

    sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "time_step_rank": 3}
    return built(MambaForCausalLM, MambaConfig, **TOKENS, vocab_size=VOCAB, **sizes, use_cache=False)


def falcon(**options: object) -> nn.Module:
    """Queries, keys and values of a head lie beside each other, biased by distance."""
    from transformers import FalconConfig, FalconForCausalLM

    plain = {"new_decoder_architecture": False, "multi_query": False, "parallel_attn": False, "alibi": True}
    return built(FalconForCausalLM, FalconConfig, **{**DECODER, "num_hidden_layers": 1, **plain, **options})


def falcon_multi_query() -> nn.Module:
    """One projection holds all queries, and at its end the one head of keys and values that they share."""
    return falcon(multi_query=True, parallel_attn=True, alibi=False, bias=False)


def falcon_grouped() -> nn.Module:
    """One projection holds, for each head of keys and values, the queries that share it before them."""
    return falcon(new_decoder_architecture=True, num_kv_heads=2, parallel_attn=True, alibi=False)


def ids(length: int = 6) -> torch.Tensor:
    return torch.randint(3, VOCAB, (2, length))


def tokens() -> Inputs:
    return {"input_ids": ids()}


def masked_tokens() -> Inputs:
    """The second sentence is two tokens shorter."""
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    return {"input_ids": ids(), "attention_mask": mask}


def source_and_target() -> Inputs:
    return {"input_ids": ids(), "decoder_input_ids": ids(5)}


def pixels(side: int = 8) -> Callable[[], Inputs]:
    return lambda: {"pixel_values": torch.randn(2, 3, side, side)}


HUB: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "bert": (bert, tokens),
    "bert_eager": (bert_eager, masked_tokens),
    "bert_classifier": (bert_classifier, masked_tokens),
    "distilbert": (distilbert, masked_tokens),
    "roberta": (roberta, tokens),
    "albert": (albert, tokens),
    "electra": (electra, tokens),
    "gpt2": (gpt2, tokens),
    "gpt_neox": (gpt_neox, tokens),
    "opt": (opt, masked_tokens),
    "llama": (llama, tokens),
    "llama_eager": (llama_eager, masked_tokens),
    "mistral": (mistral, tokens),
    "qwen2": (qwen2, tokens),
    "qwen3": (qwen3, tokens),
    "gemma2": (gemma2, tokens),
    "phi": (phi, tokens),
    "t5": (t5, source_and_target),
    "t5_gated": (t5_gated, source_and_target),
    "bart": (bart, source_and_target),
    "vit": (vit, pixels()),
    "deit": (deit, pixels()),
    "swin": (swin, pixels(16)),
    "convnext": (convnext, pixels(16)),
    "clip": (clip, lambda: {"input_ids": ids(), "pixel_values": torch.randn(2, 3, 8, 8)}),
    "whisper": (whisper, lambda: {"input_features": torch.randn(2, 8, 12), "decoder_input_ids": ids(5)}),
    "wav2vec2": (wav2vec2, lambda: {"input_values": torch.randn(2, 80)}),
    "wav2vec2_stable": (wav2vec2_stable, lambda: {"input_values": torch.randn(2, 80)}),
    "deberta_v2": (deberta_v2, masked_tokens),
    "mpnet": (mpnet, tokens),
    "segformer": (segformer, pixels(32)),
    "mamba": (mamba, tokens),
    "falcon": (falcon, tokens),
    "falcon_multi_query": (falcon_multi_query, tokens),
    "falcon_grouped": (falcon_grouped, tokens),
}
