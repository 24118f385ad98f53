"""What a text model is, by its configuration: an encoder, a decoder, or nothing that gives a vector for each token."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from finetuner_core.plugin import TEXT_POOLINGS

# Measured on a small network of every family of transformers 5 that can be made small, or so by construction.
BATCH_DEPENDENT = frozenset(
    ("convbert", "cpmant", "fnet", "funnel", "mobilebert", "mra", "nystromformer", "perceiver", "reformer", "yoso")
)
"""Families whose vectors change with the padding: they mix tokens without regard to the mask."""

PARTLY_USED = frozenset(
    (
        *("afmoe", "deepseek_v4", "ernie4_5_moe", "hrm_text", "hy_v4", "inkling2_loop_text", "laguna"),
        *("esm", "esmc", "layoutlm", "longformer", "luke", "tapas", "xlnet", "xmod"),
    )
)
"""Families that hold parameters which no plain text reaches: of entities, boxes, languages, experts' balance."""

PACKABLE = frozenset(
    (
        *(
            "albert",
            "apertus",
            "arcee",
            "aria_text",
            "bert",
            "bert-generation",
            "biogpt",
            "bitnet",
            "camembert",
            "cohere",
        ),
        *("cohere2", "cohere2_moe", "ctrl", "cwm", "data2vec-text", "diffllama", "distilbert", "electra", "ernie"),
        *(
            "ernie4_5",
            "eurobert",
            "exaone",
            "exaone4",
            "exaone_moe",
            "flex_olmo",
            "gemma",
            "gemma3_text",
            "glm",
            "glm4",
        ),
        *("glm4_moe", "gpt2", "gpt_bigcode", "gpt_neox", "granite", "granitemoe", "granitemoeshared", "gte", "helium"),
        *("hunyuan_v1_dense", "hunyuan_v1_moe", "hyperclovax", "internlm3", "jais2", "jetmoe", "jina_embeddings_v3"),
        *("llama", "mellum", "ministral", "ministral3", "mistral", "mixtral", "modernbert", "modernbert-decoder"),
        *("nanochat", "nomic_bert", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2"),
        *("qwen2_moe", "qwen3", "qwen3_moe", "roberta", "roberta-prelayernorm", "roc_bert", "seed_oss", "smollm3"),
        *("starcoder2", "xlm-roberta", "xlm-roberta-xl"),
    )
)
"""Families of which real tokens alone are computed: all that they do beside attention, they do to each token.

Of all families that transformers lets attend by another function, those whose features and gradients were the same so,
to 1e-5, on a small network and texts of 1 to 30 tokens, longer than its window.
"""


@dataclass(frozen=True)
class Architecture:
    """How a text model is opened.

    Args:
        opener: the class of transformers that opens it without a head.
        decoder: whether it was made to continue texts. Its positions are then counted for it.
        causal: whether each token sees only those before it.
        dim: width of the last hidden state.
        packable: whether its texts can stand one after the other, without padding.
    """

    opener: type[AutoModel] | type[AutoModelForTextEncoding]
    decoder: bool
    causal: bool
    dim: int
    packable: bool = False

    @property
    def poolings(self) -> tuple[str, ...]:
        """What it supports, its default first.

        Of a causal network only the last token has seen the whole text, and the first has seen nothing but itself.
        """
        if self.causal:
            return ("last", *(pooling for pooling in TEXT_POOLINGS if pooling not in ("last", "cls")))
        return TEXT_POOLINGS


def architecture_of(config: PreTrainedConfig) -> Architecture | None:
    """How a model of that configuration is opened as a text model, `None` where it cannot be."""
    kind = config.model_type
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int) or kind in BATCH_DEPENDENT | PARTLY_USED or is_composite(config):
        return None
    encoder = MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(kind)
    if encoder is not None and encoder.endswith("EncoderModel"):
        return Architecture(AutoModelForTextEncoding, decoder=False, causal=False, dim=width)
    if config.is_encoder_decoder or kind not in MODEL_MAPPING_NAMES:
        return None
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return Architecture(
            AutoModel,
            decoder=False,
            causal=bool(getattr(config, "is_decoder", False)),
            dim=width,
            packable=kind in PACKABLE,
        )
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        # Decoders that were turned into encoders say so by one of these.
        both_ways = getattr(config, "use_bidirectional_attention", False) or getattr(config, "is_causal", True) is False
        # OPT may project its states to another width.
        width = getattr(config, "word_embed_proj_dim", None) or width
        return Architecture(AutoModel, decoder=True, causal=not both_ways, dim=width, packable=kind in PACKABLE)
    return None


def is_composite(config: PreTrainedConfig) -> bool:
    """Whether it is made of several networks, such as one for images and one for texts."""
    return any(getattr(config, name, None) is not None for name in config.sub_configs)
