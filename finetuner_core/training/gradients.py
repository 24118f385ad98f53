"""The gradient of a loss over a whole batch, of which only a part keeps its graph at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetuner_core.interfaces import Prepared
from finetuner_core.modeling.embed import Collate, Limit, chunks, embed_chunk, in_order, tokens_of
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.training.randomness import RandomState, random_numbers_of, random_state


@dataclass(frozen=True)
class Work:
    """What one encoder embeds in a step.

    Args:
        encoder: the encoder.
        preprocess: makes tensors of its items.
        prepared: the items, of all columns that it reads.
        chunks: the positions of those that are computed together.
    """

    encoder: Encoder
    preprocess: Collate
    prepared: Sequence[Prepared]
    chunks: Sequence[Sequence[int]]

    @staticmethod
    def of(encoder: Encoder, preprocess: Collate, prepared: Sequence[Prepared], limit: Limit) -> Work:
        """Work in chunks of a size."""
        return Work(encoder, preprocess, prepared, chunks(encoder, preprocess, prepared, limit))

    def cut(self, limit: Limit) -> Work:
        """The same in chunks of another size."""
        return Work.of(self.encoder, self.preprocess, self.prepared, limit)

    def tokens(self) -> int:
        """How many tokens are computed, padding included where the encoder computes it."""
        lengths = tokens_of(self.preprocess, self.prepared)
        if self.encoder.padding_free:
            return sum(lengths)
        return sum(len(chunk) * lengths[chunk[0]] for chunk in self.chunks)

    def embed(self, chunk: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Embeddings of a chunk, float32 (len(chunk), D)."""
        # A context for each chunk: autocast keeps the weights that it cast, and one without a graph has no gradient.
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            return embed_chunk(self.encoder, self.preprocess, [self.prepared[p] for p in chunk], device)


# Of the embeddings of each work, in the order of its items, the loss.
LossOf = Callable[[Sequence[Tensor]], Tensor]


def backward(works: Sequence[Work], loss_of: LossOf, device: torch.device, dtype: torch.dtype) -> float:
    """Adds the gradients of a loss to those of all parameters, with the graph of the whole batch in memory.

    Args:
        works: what is embedded.
        loss_of: the loss of all embeddings.
        device: where.
        dtype: what the forward pass computes in.

    Returns:
        The loss.
    """
    vectors = [in_order(work.chunks, [work.embed(chunk, device, dtype) for chunk in work.chunks]) for work in works]
    loss = loss_of(vectors)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def backward_in_chunks(works: Sequence[Work], loss_of: LossOf, device: torch.device, dtype: torch.dtype) -> float:
    """The same gradients as `backward`, with the graph of one chunk in memory at a time.

    All items are embedded without a graph, the loss and its gradient in the embeddings are computed over the whole
    batch, and each chunk is then embedded once more, with a graph, which takes its part of that gradient on to the
    parameters (GradCache, Gao et al. 2021, https://arxiv.org/abs/2101.06983). Each chunk draws the same random numbers
    the second time. The last one keeps its graph from the first time.

    Args:
        works: what is embedded.
        loss_of: the loss of all embeddings. It is called once.
        device: where.
        dtype: what the forward pass computes in.

    Returns:
        The loss.
    """
    *first, last = [(number, chunk) for number, work in enumerate(works) for chunk in work.chunks]
    found: list[list[Tensor]] = [[] for _ in works]
    states: list[RandomState] = []
    with torch.no_grad():
        for number, chunk in first:
            states.append(random_state(device))
            found[number].append(works[number].embed(chunk, device, dtype))
    number, chunk = last
    with_graph = works[number].embed(chunk, device, dtype)
    found[number].append(with_graph.detach())
    vectors = [in_order(work.chunks, own).requires_grad_() for work, own in zip(works, found, strict=True)]
    del found
    loss = loss_of(vectors)
    loss.backward()  # type: ignore[no-untyped-call]
    # A loss may leave embeddings out.
    gradients = [torch.zeros_like(own) if own.grad is None else own.grad for own in vectors]
    _backward(with_graph, gradients[number][list(chunk)])
    del with_graph
    for (number, chunk), state in zip(first, states, strict=True):
        if not any(parameter.requires_grad for parameter in works[number].encoder.parameters()):
            continue
        with random_numbers_of(state, device):
            embedded = works[number].embed(chunk, device, dtype)
        _backward(embedded, gradients[number][list(chunk)])
        del embedded
    return loss.item()


def _backward(embedded: Tensor, gradient: Tensor) -> None:
    if embedded.requires_grad:  # which a tower that is frozen as a whole does not
        embedded.backward(gradient)  # type: ignore[no-untyped-call]
