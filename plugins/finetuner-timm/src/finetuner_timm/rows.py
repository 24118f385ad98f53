"""The rows of the table. Importing this imports neither torch nor timm."""

from __future__ import annotations

from finetuner_core.plugin import TOKEN_POOLINGS, BackboneInfo, Option

OPTIONS = (
    Option("image_size", "int", None, "Side in pixels of the square that the network sees; else its own.", minimum=1),
)


def _imagenet(name: str, tag: str, output_dim: int, parameters: int) -> BackboneInfo:
    """A row of the table; the tag is that of the weights which timm loads for the bare name."""
    return BackboneInfo(
        name=name,
        task="image-to-image",
        output_dim=output_dim,
        architecture="CNN",
        description="Pretrained on ImageNet",
        poolings=("native", *TOKEN_POOLINGS),
        options=OPTIONS,
        licence="Apache-2.0",
        source=f"https://huggingface.co/timm/{name}.{tag}",
        parameters=parameters,
    )


ROWS = (
    _imagenet("resnet50", "a1_in1k", 2048, 23_508_032),
    _imagenet("resnet152", "a1h_in1k", 2048, 58_143_808),
    _imagenet("efficientnet_b0", "ra_in1k", 1280, 4_007_548),
    _imagenet("efficientnet_b4", "ra2_in1k", 1792, 17_548_616),
)
