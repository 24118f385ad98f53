"""Why a model is not opened, in words for a person."""

from __future__ import annotations

from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto as auto

from finetuner_core.plugin import WeightsError
from finetuner_hf.architecture import BATCH_DEPENDENT, PARTLY_USED

_SOUND = (
    auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    auto.MODEL_FOR_CTC_MAPPING_NAMES,
    auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    auto.MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES,
    auto.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES,
)
_PLACES = (
    auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
    auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
    auto.MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES,
    auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES,
    auto.MODEL_FOR_MASK_GENERATION_MAPPING_NAMES,
    auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES,
)
_OTHERS = {
    "timm_wrapper": "its network is timm's, which finetuner-timm opens as timm/<architecture>",
    "vit_mae": "transformers leaves most of each image out at random",
}
_WRITERS = (auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)


def why_not_opened(name: str, config: PreTrainedConfig) -> WeightsError:
    """What to say of a model that no module of the plugin accepts."""
    return _not_opened(name, config.model_type, _reason(config))


def of_timm(name: str) -> WeightsError:
    """What to say of a network of timm, whose configuration transformers does not even read where timm is missing."""
    return _not_opened(name, "timm_wrapper", _OTHERS["timm_wrapper"])


def _not_opened(name: str, kind: str, reason: str) -> WeightsError:
    return WeightsError(
        f"{name} is a {kind} model, which finetuner-hf does not open{f': {reason}' if reason else ''}.\n"
        "It opens text models (BERT, T5, Qwen3, ...), image models (ViT, DINOv2, ...) and pairs of both (CLIP, ...); "
        "for more image models there is finetuner-timm."
    )


def _reason(config: PreTrainedConfig) -> str:
    kind = config.model_type
    if any(kind in mapping for mapping in _SOUND):
        return "it is one for sound"
    if kind in auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES:
        return "it is one for videos"
    if kind in _OTHERS:
        return _OTHERS[kind]
    if any(kind in mapping for mapping in _PLACES):
        return "it says what is where in an image, and gives no embedding"
    if kind in BATCH_DEPENDENT:
        return "its vectors change with the padding of the batch"
    if kind in PARTLY_USED:
        return "it needs more than a text to use all of its parameters"
    if config.is_encoder_decoder:
        return "it is an encoder-decoder, and transformers has no class for its encoder alone"
    if any(kind in mapping for mapping in _WRITERS):
        return "it writes texts about what it is shown, and gives no embedding"
    return ""
