"""What training minimises. How a loss is called follows from the form of the data.

    labelled    loss(embeddings, labels)
    pairs       loss(anchors, labels, ref_emb=references, ref_labels=their_labels)
    scored      loss(anchors, scores, ref_emb=candidates)

Embeddings are float (B, D) of length 1 and labels int (B,); items with equal labels belong together. With references
(R, D) and their labels (R,) pairs are formed between the two, else among the embeddings, none with itself. This is the
signature of pytorch-metric-learning (https://kevinmusgrave.github.io/pytorch-metric-learning/losses/), so that a loss
can come from there as well. Where `forward` has a parameter `excluded`, bool (B, R) or (B, B), it is also given the
pairs that count as neither positive nor negative. Candidates are float (B, K, D), and scores float (B, K).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from finetuner_core.losses.contrastive import ContrastiveLoss
from finetuner_core.losses.cosent import CoSENTLoss
from finetuner_core.losses.cosine import CosineLoss
from finetuner_core.losses.infonce import InfoNCELoss
from finetuner_core.losses.kl import KLLoss
from finetuner_core.losses.margin_mse import MarginMSELoss
from finetuner_core.losses.siglip import SigLIPLoss
from finetuner_core.losses.triplet import TripletLoss

LOSSES: Mapping[str, Callable[..., nn.Module]] = {
    "infonce": InfoNCELoss,
    "triplet": TripletLoss,
    "contrastive": ContrastiveLoss,
    "siglip": SigLIPLoss,
    "cosent": CoSENTLoss,
    "cosine": CosineLoss,
    "margin_mse": MarginMSELoss,
    "kl": KLLoss,
}
