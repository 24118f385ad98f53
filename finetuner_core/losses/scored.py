"""How near the candidates of scored data are to their anchors."""

from __future__ import annotations

from torch import Tensor

from finetuner_core.errors import DataError


def similarities(embeddings: Tensor, scores: Tensor, ref_emb: Tensor) -> Tensor:
    """Dot products (B, K) of each anchor and its own candidates; of embeddings of length 1 they are cosines.

    Args:
        embeddings: float (B, D).
        scores: float (B, K).
        ref_emb: float (B, K, D).

    Raises:
        ValueError: if the shapes do not go together.
    """
    if ref_emb.ndim != 3 or scores.shape != ref_emb.shape[:2] or len(embeddings) != len(ref_emb):
        raise ValueError(
            f"Every anchor needs a score for each candidate: embeddings are {tuple(embeddings.shape)}, "
            f"candidates {tuple(ref_emb.shape)} and scores {tuple(scores.shape)}."
        )
    return (embeddings[:, None, :] * ref_emb).sum(2)


def require_candidates(scores: Tensor, name: str) -> None:
    """Refuses data in which an anchor has one candidate, between which and others nothing can be learnt.

    Args:
        scores: float (B, K).
        name: of the loss, for the message.

    Raises:
        DataError: if K is 1.
    """
    if scores.shape[1] < 2:
        raise DataError(
            f"The loss {name} compares the candidates of an anchor, and these data have one for each.\n"
            "Give two or more candidates with a score each, or take a loss for scored pairs such as cosent."
        )
