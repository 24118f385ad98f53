"""The rows of the table. Importing this imports neither torch nor transformers."""

from __future__ import annotations

from finetuner_core.plugin import TEXT_POOLINGS, BackboneInfo, Option

OPTIONS = (
    Option("max_length", "int", None, "Tokens of a text that are read, the rest cut off; else all it can.", minimum=3),
)
IMAGE_OPTIONS = (
    Option("image_size", "int", None, "Side in pixels of the square that the network sees; else its own.", minimum=1),
)
TEXT_OPTIONS = (
    *OPTIONS,
    Option("prompt", "str", None, "What is put before each text; else what the repository declares."),
    Option("query_prompt", "str", None, "What is put before a query, in place of prompt; else what is declared."),
    Option("document_prompt", "str", None, "What is put before a document, in place of prompt; else what is declared."),
)

ROWS = (
    BackboneInfo(
        name="openai/clip-vit-base-patch32",
        task="text-to-image",
        output_dim=512,
        architecture="transformer",
        description="Pretrained on text image pairs by OpenAI",
        options=(*OPTIONS, *IMAGE_OPTIONS),
        licence="MIT",
        source="https://huggingface.co/openai/clip-vit-base-patch32",
        parameters=151_277_312,
    ),
    BackboneInfo(
        name="bert-base-cased",
        task="text-to-text",
        output_dim=768,
        architecture="transformer",
        description="Pretrained on BookCorpus and English Wikipedia",
        poolings=TEXT_POOLINGS,
        options=TEXT_OPTIONS,
        licence="Apache-2.0",
        source="https://huggingface.co/bert-base-cased",
        parameters=107_719_680,
    ),
    BackboneInfo(
        name="sentence-transformers/msmarco-distilbert-base-v3",
        task="text-to-text",
        output_dim=768,
        architecture="transformer",
        description="Pretrained on Bert, fine-tuned on MS Marco",
        poolings=("native", *TEXT_POOLINGS),
        options=TEXT_OPTIONS,
        licence="Apache-2.0",
        source="https://huggingface.co/sentence-transformers/msmarco-distilbert-base-v3",
        parameters=66_362_880,
    ),
)
