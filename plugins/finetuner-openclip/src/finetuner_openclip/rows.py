"""The rows of the table. Importing this imports neither torch nor open_clip."""

from __future__ import annotations

from collections.abc import Mapping

from finetuner_core.plugin import BackboneInfo

DEFAULT_TAGS: Mapping[str, str] = {
    "ViT-B-32": "laion2b_s34b_b79k",
    "ViT-B-16": "datacomp_xl_s13b_b90k",
    "ViT-L-14": "datacomp_xl_s13b_b90k",
    "ViT-H-14": "laion2b_s32b_b79k",
    "convnext_base_w": "laion2b_s13b_b82k_augreg",
}
"""Which weights the name of an architecture alone means. open_clip has no default where there is more than one."""


def _clip(
    name: str, repository: str, output_dim: int, parameters: int, trained_on: str, architecture: str = "transformer"
) -> BackboneInfo:
    return BackboneInfo(
        name=name,
        task="text-to-image",
        output_dim=output_dim,
        architecture=architecture,
        description=f"CLIP, pretrained on {trained_on}",
        licence="MIT",
        source=f"https://huggingface.co/laion/{repository}",
        parameters=parameters,
    )


ROWS = (
    _clip("ViT-B-32", "CLIP-ViT-B-32-laion2B-s34B-b79K", 512, 151_277_312, "LAION-2B"),
    _clip("ViT-B-16", "CLIP-ViT-B-16-DataComp.XL-s13B-b90K", 512, 149_620_736, "DataComp-1B"),
    _clip("ViT-L-14", "CLIP-ViT-L-14-DataComp.XL-s13B-b90K", 768, 427_616_512, "DataComp-1B"),
    _clip("ViT-H-14", "CLIP-ViT-H-14-laion2B-s32B-b79K", 1024, 986_109_440, "LAION-2B"),
    _clip("convnext_base_w", "CLIP-convnext_base_w-laion2B-s13B-b82K-augreg", 640, 179_385_344, "LAION-2B", "CNN"),
)
