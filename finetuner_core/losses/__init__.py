"""What training minimises. Each loss is called `loss(embeddings, labels, ref_emb=None, ref_labels=None)`.

Embeddings are float (B, D) of length 1 and labels int (B,); items with equal labels belong together. With `ref_emb`
(R, D) and `ref_labels` (R,) pairs are formed between the two, else among the embeddings, none with itself. This is the
signature of pytorch-metric-learning (https://kevinmusgrave.github.io/pytorch-metric-learning/losses/), so that a loss
can come from there as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.triplet import TripletLoss

LOSSES: Mapping[str, Callable[..., nn.Module]] = {
    "infonce": InfoNCELoss,
    "triplet": TripletLoss,
    "contrastive": ContrastiveLoss,
}
