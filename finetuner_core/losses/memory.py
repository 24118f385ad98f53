"""Cross-batch memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetuner_core.errors import OptionError
from finetuner_core.losses.excluded import takes_excluded


class MemoryLoss(nn.Module):
    """Compares a batch with the batches before it as well, whose embeddings have hardly changed since.

    What was embedded last, without its gradient, is given to the loss as further references (Wang et al. 2020,
    https://arxiv.org/abs/1912.06798). In the paper the batch itself is remembered before it is compared, and gets its
    gradient on the anchors' side alone; here it gets it on both, as it does without a memory.

    Of labelled data what is remembered belongs to the items of its label. Of pairs references alone are remembered, and
    none of them belongs to an anchor of another batch: they are further negatives. Whether one is a known positive of
    an anchor, or an item of the batch once more, only the caller can see: the buffer `items` has the numbers under
    which all was remembered, and `excluded` takes a column for each of them.

    All of it is in buffers: a saved state goes on where it was.

    Args:
        loss: one that takes references and `excluded`.
        dim: width D of the embeddings.
        size: how many embeddings are remembered.

    Raises:
        OptionError: if the loss takes no `excluded`.
    """

    embeddings: Tensor
    labels: Tensor
    items: Tensor
    held: Tensor

    def __init__(self, loss: nn.Module, dim: int, size: int) -> None:
        super().__init__()
        if not takes_excluded(loss):
            raise OptionError(
                f"{type(loss).__name__} cannot be told which pairs do not count, as a memory has to.\n"
                "Leave out memory, or take a loss such as infonce."
            )
        self.loss, self.size = loss, size
        try:
            embeddings = torch.zeros(size, dim)
        except RuntimeError:
            raise OptionError(
                f"{size:,} embeddings of width {dim} do not fit into memory.\nRemember fewer of them, such as 4096."
            ) from None
        self.register_buffer("embeddings", embeddings)
        self.register_buffer("labels", torch.zeros(size, dtype=torch.long))
        self.register_buffer("items", torch.full((size,), -1))
        self.register_buffer("held", torch.zeros(size, dtype=torch.bool))

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        excluded: Tensor | None = None,
        items: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar. In training what was compared is remembered.

        Args:
            embeddings: float (B, D), of length 1.
            labels: int (B,).
            ref_emb: float (R, D), of length 1.
            ref_labels: int (R,).
            excluded: bool (B, R + size), or (B, B + size) without references: pairs that do not count, those with what
                is remembered after those of the batch, in the order of `items`.
            items: int (R,), or (B,) without references: a number for each, over the whole data set and at least 0.
                Labelled data can do without.

        Raises:
            ValueError: if a shape does not fit, or pairs come without `items`.
        """
        references = embeddings if ref_emb is None else ref_emb
        of_references = labels if ref_labels is None else ref_labels
        if references.ndim != 2:
            raise ValueError("A memory is for labels and pairs, not for scores.")
        if ref_emb is not None and items is None:
            raise ValueError("Without items nobody could tell what of the memory belongs to later anchors: give them.")
        shape = (len(embeddings), len(references) + self.size)
        if excluded is not None and excluded.shape != shape:
            raise ValueError(
                f"excluded is {tuple(excluded.shape)}, and the pairs with those of the memory are {shape}."
            )
        left_out = torch.cat([self.held.new_zeros(len(references)), ~self.held]).expand(shape)
        if excluded is not None:
            left_out = left_out | excluded
        if ref_emb is None:
            itself = torch.eye(*shape, dtype=torch.bool, device=left_out.device)
            left_out = left_out | itself
        # Of pairs a label that no anchor has: theirs may be of this batch alone.
        remembered = self.labels if ref_emb is None else (labels.min() - 1).expand(self.size)
        value: Tensor = self.loss(
            embeddings,
            labels,
            ref_emb=torch.cat([references, self.embeddings.to(references.dtype)]),
            ref_labels=torch.cat([of_references, remembered]),
            excluded=left_out,
        )
        if self.training:
            self._remember(references, of_references, torch.full_like(of_references, -1) if items is None else items)
        return value

    @torch.no_grad()
    def _remember(self, embeddings: Tensor, labels: Tensor, items: Tensor) -> None:
        """Appends what is new and drops what is oldest. Nothing is changed in place: a graph may still need it."""
        new = {"embeddings": embeddings, "labels": labels, "items": items, "held": torch.ones_like(labels)}
        for name, values in new.items():
            buffer = getattr(self, name)
            setattr(self, name, torch.cat([buffer, values.detach().to(buffer)])[-self.size :])
