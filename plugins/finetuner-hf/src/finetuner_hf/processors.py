"""Image processors of transformers, in the two halves that Finetuner asks for; without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import transformers
from PIL import ImageOps
from PIL.Image import Image, Resampling
from transformers import AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from finetuner_core.data.pixels import PixelPreprocess
from finetuner_core.plugin import OptionError, WeightsError

Processor: TypeAlias = Any
"""A `PilBackend` of transformers. Its settings are attributes that it makes when it is made, and so without types."""

# What a processor can be told to do. The last two are done to every image that is read, and to no image.
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels")

# Below this size ConvNeXt's processor crops, from here on it squeezes.
_CONVNEXT_SQUEEZES_FROM = 384

# The library's processor of DINOv3 needs torchvision. It resizes in floating point, which differs from this by up to
# one grey level, a quarter on average; these are the values it takes where the repository's file gives none.
_DINOV3 = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": Resampling.BILINEAR}


def read_processor(name: str) -> Processor:
    """The image processor of a Hub id or folder, in the variant that is built on Pillow.

    Pillow is what the published weights were trained and measured with; torchvision's resizing gives other pixels.

    Raises:
        WeightsError: if it does more than to resize, crop and normalise.
        OSError: if there is none.
    """
    settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    if str(settings.get("image_processor_type")).startswith("DINOv3ViT"):
        return ViTImageProcessorPil.from_dict(_DINOV3 | {k: v for k, v in settings.items() if v is not None})
    # AutoImageProcessor needed torchvision for its own sake until late in transformers 5; the classes do not.
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    kind = kind.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    opener: Any = getattr(transformers, f"{kind}Pil", None) if kind else None
    if opener is not None:
        processor: Processor = opener.from_pretrained(name)
    else:
        processor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            name, backend="pil", trust_remote_code=False
        )
    steps = [step for step, value in {**settings, **vars(processor)}.items() if step.startswith("do_") and value]
    strange = [step for step in steps if step not in _STEPS]
    if strange or not _is_plain(processor):
        kind = kind or type(processor).__name__
        what = f"the step {strange[0]} of its {kind}" if strange else f"the steps of its {kind}"
        raise WeightsError(
            f"{name} prepares images by {what}, which finetuner-hf does not know.\n"
            "It knows how to resize, crop, rescale and normalise; choose another model."
        )
    return processor


def _is_plain(processor: Processor) -> bool:
    """Whether the processor's class resizes, crops and normalises, and nothing else."""
    kind = type(processor)
    if kind is ConvNextImageProcessorPil:
        # It crops when it resizes; once more would be another place.
        return not processor.do_center_crop
    if kind is BeitImageProcessorPil:
        return True
    names = ("process_image", "resize", "center_crop", "rescale", "normalize", "_preprocess")
    return isinstance(processor, PilBackend) and all(getattr(kind, name) is getattr(PilBackend, name) for name in names)


def set_image_size(processor: Processor, size: int) -> None:
    """Makes the processor give square images of another size; what it crops away stays the same share."""
    if isinstance(processor, ConvNextImageProcessorPil):
        processor.size = {"shortest_edge": size}
    elif processor.do_center_crop:
        old = processor.crop_size["height"]
        if processor.do_resize:
            given = {key: value for key, value in dict(processor.size).items() if value is not None}
            processor.size = {key: round(value * size / old) for key, value in given.items()}
        processor.crop_size = {"height": size, "width": size}
    else:
        processor.do_resize = True
        processor.size = {"height": size, "width": size}


def image_preprocess(processor: Processor, name: str) -> PixelPreprocess:
    """What an image processor does with an image.

    Args:
        processor: as `read_processor` gives it.
        name: the model's, for the messages.

    Raises:
        WeightsError: if images that went through it would not all be of one size.
    """
    size = {key: value for key, value in dict(processor.size or {}).items() if value is not None}
    crop = _height_and_width(processor.crop_size) if processor.do_center_crop else None
    if not processor.do_resize:
        resize = None
    elif isinstance(processor, ConvNextImageProcessorPil):
        edge = size["shortest_edge"]
        squeezes = edge >= _CONVNEXT_SQUEEZES_FROM
        resize = (edge, edge) if squeezes else int(edge / processor.crop_pct)
        crop = (edge, edge)
    else:
        resize = size["shortest_edge"] if size.keys() == {"shortest_edge"} else _height_and_width(size)
    seen = crop or (resize if isinstance(resize, tuple) else None)
    if seen is None or (processor.do_resize and resize is None):
        raise WeightsError(
            f"{name} prepares images to the size {size}, which is another one for each image.\n"
            "An embedding model needs one size: set height and width, or a crop, in preprocessor_config.json."
        )
    resample = processor.resample
    # Values between 0 and 255 are scaled, shifted and scaled: in one step with the scale put into mean and std.
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    mean = _of_channels(processor.image_mean) if processor.do_normalize else [0.0] * 3
    std = _of_channels(processor.image_std) if processor.do_normalize else [1.0] * 3
    return PixelPreprocess(
        resize=_Resize(resize, Resampling.BILINEAR if resample is None else Resampling(resample), seen),
        image_size=seen,
        mean=[value / scale for value in mean],
        std=[value / scale for value in std],
        offset=_half,
    )


class _Resize:
    """Resizes as an image processor does; a class, so that it can be pickled.

    Args:
        size: the length of the shorter side, or height and width, or `None` for an image as it is.
        resample: how.
        least: height and width that black is put around an image to reach.
    """

    def __init__(self, size: int | tuple[int, int] | None, resample: Resampling, least: tuple[int, int]) -> None:
        self.size, self.resample, self.least = size, resample, least

    def __call__(self, image: Image) -> Image:
        if isinstance(self.size, tuple):
            image = image.resize(self.size[::-1], self.resample)
        elif self.size is not None:
            # The longer side is rounded down.
            edge, shorter = self.size, min(image.size)
            width, height = (edge if side == shorter else int(edge * side / shorter) for side in image.size)
            image = image.resize((width, height), self.resample)
        across, down = (max(0, least - side) for least, side in zip(self.least[::-1], image.size, strict=True))
        # Of an odd number of rows the processor puts the greater part before the image.
        before, above = (across + 1) // 2, (down + 1) // 2
        return ImageOps.expand(image, (before, above, across - before, down - above)) if across or down else image


def _half(excess: int) -> int:
    """Where the processor's crop begins: at half of what is too much, rounded down."""
    return excess // 2


def _height_and_width(size: object) -> tuple[int, int] | None:
    given = dict(size) if size else {}  # type: ignore[call-overload]
    height, width = given.get("height"), given.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _of_channels(values: float | Sequence[float]) -> Sequence[float]:
    return [float(values)] * 3 if isinstance(values, int | float) else values


def check_image_size(name: str, size: int, config: PreTrainedConfig) -> None:
    """Whether an image of that size, if it is not the network's own, can be cut into patches without a rest.

    Raises:
        OptionError: if it cannot: what is left over would not be seen, unnoticed.
    """
    patch_size = getattr(config, "patch_size", None)
    if isinstance(patch_size, int) and size % patch_size and size != getattr(config, "image_size", None):
        below = size - size % patch_size
        raise OptionError(
            f'hf/{name} cannot see images of image_size="{size}": it cuts them into patches of {patch_size} pixels.\n'
            f"Choose a multiple of that, such as {max(below, patch_size)} or {below + patch_size}."
        )
