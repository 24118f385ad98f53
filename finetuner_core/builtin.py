"""The poolings and losses that come with the core, through the same hooks as everybody's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from finetuner_core.plugin import LossInfo, Option, OptionValue, PoolingInfo, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from finetuner_core.interfaces import Pooling


@hookimpl
def list_poolings() -> Iterable[PoolingInfo]:
    return (
        PoolingInfo("native", "The backbone's own pooled vector, as its authors made it"),
        PoolingInfo("mean", "The mean of the real tokens"),
        PoolingInfo("max", "The largest value of each feature over the real tokens"),
        PoolingInfo(
            "gem",
            "The generalised mean with a trained power, between mean and max (Radenovic et al. 2018)",
            (Option("p", "float", 3.0, "The power that training starts from; 1 is the mean.", minimum=1),),
        ),
        PoolingInfo(
            "attention",
            "A mean in which a trained query weighs the tokens; it starts as the mean",
            (Option("heads", "int", 1, "Parts of the width that are weighed each on its own.", minimum=1),),
        ),
        PoolingInfo("cls", "The first real token"),
        PoolingInfo("last", "The last real token, for networks whose tokens see only those before them"),
        PoolingInfo("weighted_mean", "The mean in which a later token counts for more (Muennighoff 2022)"),
    )


@hookimpl
def build_pooling(info: PoolingInfo, dim: int, options: Mapping[str, OptionValue]) -> Pooling:
    from finetuner_core.modeling.pooling import POOLINGS

    return POOLINGS[info.name](dim, **options)


@hookimpl
def list_losses() -> Iterable[LossInfo]:
    return (
        LossInfo(
            "infonce",
            "Each item's positive against all others of the batch (van den Oord et al. 2018)",
            (
                Option("temperature", "float", 0.05, "What similarities are divided by.", minimum=0.01),
                Option("learnable", "bool", False, "Whether the temperature is trained with the model."),
                Option("symmetric", "bool", False, "Whether positives are also asked for their anchors, as in CLIP."),
            ),
        ),
        LossInfo(
            "triplet",
            "An anchor nearer to its positive than to a negative by a margin (Schroff et al. 2015)",
            (
                Option("margin", "float", 0.2, "By how much nearer, in Euclidean distance.", minimum=0),
                Option(
                    "mining",
                    "str",
                    "hard",
                    "Which triplets of a batch count: the hardest of each anchor, or all semi-hard ones.",
                    choices=("hard", "semihard"),
                ),
            ),
        ),
        LossInfo(
            "contrastive",
            "Positives together, negatives apart by a margin (Hadsell et al. 2006)",
            (Option("margin", "float", 0.5, "How far apart negatives have to be.", minimum=0),),
        ),
        LossInfo(
            "siglip",
            "Each pair by itself, as one that belongs together or not (Zhai et al. 2023)",
            (
                Option("scale", "float", 10.0, "What similarities are multiplied by; training starts here.", minimum=1),
                Option("bias", "float", -10.0, "What is added to them; training starts here."),
            ),
        ),
        LossInfo(
            "cosent",
            "Of two pairs the one with the higher score nearer (Su 2022)",
            (Option("temperature", "float", 0.05, "What cosines are divided by.", minimum=0.01),),
            forms=("scored",),
        ),
        LossInfo(
            "cosine",
            "The cosine of a pair its score, from -1 to 1 (Reimers and Gurevych 2019)",
            forms=("scored",),
        ),
        LossInfo(
            "margin_mse",
            "Differences between candidates as a teacher sees them (Hofstätter et al. 2020)",
            (Option("scale", "float", 1.0, "What similarities are multiplied by, to the teacher's range.", minimum=0),),
            forms=("scored",),
        ),
        LossInfo(
            "kl",
            "The distribution over candidates as a teacher has it (Hinton et al. 2015)",
            (
                Option("temperature", "float", 0.05, "What similarities are divided by.", minimum=0.01),
                Option("teacher_temperature", "float", 1.0, "What the teacher's scores are divided by.", minimum=0.01),
            ),
            forms=("scored",),
        ),
    )


@hookimpl
def build_loss(info: LossInfo, options: Mapping[str, OptionValue]) -> nn.Module:
    from finetuner_core.losses import LOSSES

    return LOSSES[info.name](**options)
