"""Keeps the backbone, or its first stages, as they are."""

from __future__ import annotations

from torch import nn

from finetuner_core.errors import OptionError
from finetuner_core.interfaces import Stage
from finetuner_core.modeling.embedding_model import EmbeddingModel


def freeze(model: EmbeddingModel, what: str | int | None) -> list[nn.Module]:
    """Marks parameters as not to be trained.

    Args:
        model: its parameters all become trainable, and then those that are frozen do not.
        what: `"backbone"` for all of it, a number for its first stages (of each modality's tower), or `None`.

    Returns:
        The modules that stay in evaluation mode: dropout in a frozen part would only add noise, and batch statistics
        would move on although the weights do not.

    Raises:
        OptionError: if there are not so many stages, or nothing is left to train.
    """
    model.requires_grad_(True)
    modules: list[nn.Module] = []
    for modality in model.modalities if what is not None else ():
        stages = list(model.encoder(modality).extractor.stages())
        if isinstance(what, int) and what > len(stages):
            names = ", ".join(stage.name for stage in stages)
            raise OptionError(f"freeze is {what}, but {model.info.name} has {len(stages)} stages: {names}.")
        for stage in stages if what == "backbone" else stages[: int(what or 0)]:
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
    if not model.pretrained:
        return []
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _freeze_stage(stage: Stage) -> tuple[nn.Module, ...]:
    for module in stage.modules:
        module.requires_grad_(False)
    for parameter in stage.parameters:
        parameter.requires_grad_(False)
    return stage.modules
