"""Images in their own shape, for SigLIP 2's variant NaFlex: as many patches as fit, and no crop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from transformers import AutoImageProcessor
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    get_image_size_for_max_num_patches,
)

from finetuner_core.data.drafted import open_image
from finetuner_core.interfaces import Batch
from finetuner_core.plugin import WeightsError
from finetuner_hf.processors import Processor


def read_naflex_processor(name: str) -> Processor:
    """The image processor of a Hub id or folder of NaFlex.

    Raises:
        WeightsError: if it is of another kind.
    """
    processor: Processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
        name, backend="pil", trust_remote_code=False
    )
    whole = processor.do_resize and processor.do_rescale and processor.do_normalize
    if not isinstance(processor, Siglip2ImageProcessorPil) or not whole:
        raise WeightsError(
            f"{name} prepares images by another processor than NaFlex's, or leaves a step of it out.\n"
            "A siglip2 model needs Siglip2ImageProcessor in preprocessor_config.json, with all of its steps."
        )
    return processor


class NaflexPreprocess:
    """Resizes each image to nearly its own shape, in whole patches, and cuts it into them in the batch.

    Args:
        processor: the model's own.
    """

    def __init__(self, processor: Processor) -> None:
        self._patch = int(processor.patch_size)
        self._patches = int(processor.max_num_patches)
        self._resample = Resampling(processor.resample)
        self._scale = 255 * processor.rescale_factor
        self._mean = torch.tensor(processor.image_mean).view(-1, 1, 1)
        self._std = torch.tensor(processor.image_std).view(-1, 1, 1)
        side = math.isqrt(self._patches) * self._patch
        self.image_size = (side, side)
        """Of an image that is made square, as augmentation does; others keep their shape."""

    def prepare(self, items: Sequence[object]) -> list[Tensor]:
        """Images from paths or PIL images, uint8 (3, H, W) each."""
        return [self._prepare_one(item) for item in items]

    def length(self, prepared: Tensor) -> int:
        """1: every image has about as many patches."""
        return 1

    def collate(self, prepared: Sequence[Tensor]) -> Batch:
        """The patches of each image, row by row.

        Returns:
            `pixels`, float32 (B, N, patch * patch * 3); `pixel_attention_mask`, int (B, N), zero for what fills up; and
            `spatial_shapes`, int (B, 2), how many patches there are down and across.
        """
        cut = [self._cut(image) for image in prepared]
        mask = torch.zeros(len(cut), self._patches, dtype=torch.int32)
        pixels = torch.zeros(len(cut), self._patches, cut[0].shape[1])
        for number, patches in enumerate(cut):
            pixels[number, : len(patches)] = patches
            mask[number, : len(patches)] = 1
        shapes = [[side // self._patch for side in image.shape[-2:]] for image in prepared]
        return {"pixels": pixels, "pixel_attention_mask": mask, "spatial_shapes": torch.tensor(shapes)}

    def _prepare_one(self, item: object) -> Tensor:
        image = open_image(item)
        height, width = get_image_size_for_max_num_patches(
            image_height=image.height,
            image_width=image.width,
            patch_size=self._patch,
            max_num_patches=self._patches,
        )
        resized = np.array(image.resize((width, height), self._resample))
        return torch.from_numpy(resized).permute(2, 0, 1).contiguous()

    def _cut(self, image: Tensor) -> Tensor:
        pixels: Tensor = (image.float() / 255 * self._scale - self._mean) / self._std
        channels, height, width = pixels.shape
        patch = self._patch
        cut = pixels.view(channels, height // patch, patch, width // patch, patch)
        return cut.permute(1, 3, 2, 4, 0).reshape(-1, patch * patch * channels)
