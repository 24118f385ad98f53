"""How a saved folder opens in transformers and in sentence-transformers, for the model's card."""

from __future__ import annotations

from torch import nn

from finetuner_core.interfaces import ForeignUse
from finetuner_hf.prompts import Prompts

_SENTENCES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{model}")
"""

_TOKENS = """\
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{model}")
network = AutoModel.from_pretrained("{model}")
batch = tokenizer(["a text"], padding=True, truncation=True, return_tensors="pt")
states = network(**batch).last_hidden_state"""

_IMAGES = """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{model}")
network = AutoModel.from_pretrained("{model}")
output = network(**processor(Image.open("photo.jpg"), return_tensors="pt"))"""

_PAIRS = """\
from PIL import Image
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("{model}")
network = AutoModel.from_pretrained("{model}")
batch = processor(text=["a text"], images=[Image.open("photo.jpg")], padding=True, return_tensors="pt")
output = network(**batch)  # output.text_embeds and output.image_embeds"""


def of_sentence_transformers(prompts: Prompts, *, truncated: bool) -> ForeignUse:
    """That of a text model whose pooling, layers and projection that library computes.

    Args:
        prompts: what is put before texts.
        truncated: whether only the first numbers of the vector are kept, which that library does not scale again.
    """
    more = ", normalize_embeddings=True" if truncated else ""
    if prompts.of("query") != prompts.default or prompts.of("document") != prompts.default:
        calls = (
            f'queries = model.encode_query(["what is asked"]{more})\n'
            f'documents = model.encode_document(["what is found"]{more})'
        )
    else:
        calls = f'vectors = model.encode(["a text", "another"]{more})'
    return ForeignUse(
        "sentence-transformers",
        "sentence-similarity",
        _SENTENCES + calls,
        tags=("sentence-transformers", "feature-extraction"),
    )


def of_transformers(pooling: str, projection: nn.Linear | None) -> ForeignUse:
    """That of a text model for whose pooling sentence-transformers has no word."""
    also = "" if projection is None else " and the projection"
    return ForeignUse(
        "transformers",
        "feature-extraction",
        _TOKENS,
        f"These are the features of each token. sentence-transformers has no pooling {pooling}, and would take the "
        f"mean in its place: the pooling{also} are in `head.safetensors`, and only Finetuner computes them.",
    )


def of_images(pooling: str, projection: nn.Linear | None) -> ForeignUse:
    """That of an image model."""
    return ForeignUse(
        "transformers",
        "image-feature-extraction",
        _IMAGES,
        f"This is the network: the pooling {pooling}{_and(projection)} and scaling to length 1 follow in Finetuner.",
    )


def of_pairs(projection: nn.Linear | None) -> ForeignUse:
    """That of a model of texts and images."""
    rest = (
        "" if projection is None else "The projections that follow are in `head.safetensors`; Finetuner computes them."
    )
    return ForeignUse("transformers", "zero-shot-image-classification", _PAIRS, rest)


def _and(projection: nn.Linear | None) -> str:
    return "" if projection is None else ", the projection in `head.safetensors`"
