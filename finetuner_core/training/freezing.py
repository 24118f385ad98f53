"""Keeps the backbone, or its first stages, as they are."""

from __future__ import annotations

from torch import nn

from finetuner_core.errors import OptionError
from finetuner_core.interfaces import Stage
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.modeling.lora import has_matrices, is_matrix


def freeze(model: EmbeddingModel, what: str | int | None) -> list[nn.Module]:
    """Marks parameters as not to be trained.

    Args:
        model: its parameters all become trainable, and then those that are frozen do not. Where LoRA's matrices stand
            beside a backbone, they are trained and the backbone is not.
        what: `"backbone"` for all of it; `"text"`, `"image"`, `"query"` or `"document"` for the backbone of that
            modality or side; a number for its first stages (of each modality's tower); or `None`.

    Returns:
        The modules that stay in evaluation mode: dropout in a frozen part would only add noise, and batch statistics
        would move on although the weights do not.

    Raises:
        OptionError: if there are not so many stages, no such tower, or nothing is left to train.
    """
    model.requires_grad_(True)
    for _, tower in model.sided_towers():
        if has_matrices(tower.encoders):
            for name, parameter in tower.encoders.named_parameters():
                parameter.requires_grad_(".extractor." not in name or is_matrix(name))
    named = [
        ({"backbone", modality, side}, tower.encoder(modality).extractor)
        for side, tower in model.sided_towers()
        for modality in tower.info.modalities
    ]
    modules: list[nn.Module] = []
    if isinstance(what, str) and not any(what in names for names, _ in named):
        known = sorted({name for names, _ in named for name in names if name})
        raise OptionError(f"freeze is {what}, but {model.info.name} has only {', '.join(known)}.")
    for names, extractor in named if what is not None else ():
        stages = list(extractor.stages())
        if isinstance(what, int) and what > len(stages):
            listed = ", ".join(stage.name for stage in stages)
            raise OptionError(f"freeze is {what}, but {model.info.name} has {len(stages)} stages: {listed}.")
        if isinstance(what, int) or what in names:
            for stage in stages[:what] if isinstance(what, int) else stages:
                modules.extend(_freeze_stage(stage))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OptionError(
            f"freeze is {what}, which leaves nothing of {model.info.name} to train.\n"
            "Freeze fewer stages, or add a projection: --output-dim 256 (output_dim=256)."
        )
    return modules


def batch_statistics(model: EmbeddingModel) -> list[nn.Module]:
    """The batch norms of a pretrained backbone, which keep the statistics that they came with.

    A batch for retrieval is small and made of a few classes, so its statistics are not those of the data: a network
    that is trained on them is another one in evaluation. Metric learning keeps them fixed (Roth et al. 2020,
    https://arxiv.org/abs/2002.08473); scale and shift are still trained. From random weights there are none to keep.
    """
    return [
        module
        for _, tower in model.sided_towers()
        if tower.pretrained
        for module in tower.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]


def _freeze_stage(stage: Stage) -> tuple[nn.Module, ...]:
    for module in stage.modules:
        module.requires_grad_(False)
    for parameter in stage.parameters:
        parameter.requires_grad_(False)
    return stage.modules
