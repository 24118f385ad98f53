"""What one step computes: the gradient of the loss over all of a batch, in as much memory as there is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from finetuner_core.data.known import Rows
from finetuner_core.errors import TrainingError
from finetuner_core.interfaces import Prepared
from finetuner_core.modeling.embed import Limit, tokens_at_once
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.training.checkpointing import checkpointed
from finetuner_core.training.feed import Feed
from finetuner_core.training.gradients import LossOf, Work, backward, backward_in_chunks
from finetuner_core.training.memory import GraphBudget, is_out_of_memory, learns_statistics
from finetuner_core.training.objective import Objective
from finetuner_core.training.randomness import random_state, restore_random_state

logger = logging.getLogger("finetuner")


class Step:
    """Computes gradients, in as many parts as memory asks for.

    Args:
        trained: what gets the gradients.
        device: where.
        dtype: what the forward pass computes in.
        chunk_size: the most items that keep their graph at once, `None` for as many as fit.
    """

    def __init__(
        self,
        trained: Sequence[nn.Parameter],
        device: torch.device,
        dtype: torch.dtype,
        chunk_size: int | None = None,
    ) -> None:
        self.trained, self.device, self.dtype = trained, device, dtype
        self.budget = GraphBudget(trained, device, chunk_size)
        self._said = False

    def backward(
        self, objective: Objective, feeds: Sequence[Feed], prepared: Sequence[Sequence[Prepared]], rows: Rows
    ) -> float:
        """Adds the gradients of a batch's loss to those of all parameters.

        The batch is embedded in chunks of like length, and the loss sees all of it in its order. Where its graph does
        not fit into memory, chunks are computed twice instead, and a single item that does not fit is computed stage by
        stage; the gradients are the same.

        Args:
            objective: what is learned.
            feeds: one for each column of its data.
            prepared: what each feed made ready.
            rows: of the data.

        Returns:
            The loss.

        Raises:
            TrainingError: if a single item is too large for the memory.
        """
        by_encoder: dict[Encoder, list[int]] = {}
        for number, feed in enumerate(feeds):
            by_encoder.setdefault(feed.encoder, []).append(number)
        columns_of = list(by_encoder.values())
        works = [
            Work.of(
                encoder,
                feeds[numbers[0]],
                [item for number in numbers for item in prepared[number]],
                self._at_once(encoder),
            )
            for encoder, numbers in by_encoder.items()
        ]

        def loss_of(vectors: Sequence[Tensor]) -> Tensor:
            columns: dict[int, Tensor] = {}
            for numbers, own in zip(columns_of, vectors, strict=True):
                columns.update(zip(numbers, torch.split(own, len(rows)), strict=True))
            return objective.loss_of([columns[number] for number in range(len(feeds))], rows)

        drawn, remembered = random_state(self.device), objective.buffers()
        while True:
            try:
                limit = self.budget.limit(works, self.dtype)
                if limit is None:
                    return backward(works, loss_of, self.device, self.dtype)
                return self._in_chunks(works, loss_of, limit)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.budget.bytes == 0:
                    raise _too_large(self.device) from error
            # Out of the except clause, whose error holds on to what was computed.
            for parameter in self.trained:
                parameter.grad = None
            restore_random_state(drawn, self.device)
            objective.restore(remembered)
            self.budget.halve()

    def _at_once(self, encoder: Encoder) -> Limit:
        # The statistics of a batch norm that learns are those of the whole batch.
        return Limit(sys.maxsize) if learns_statistics(encoder) else Limit(tokens_at_once(self.device))

    def _in_chunks(self, works: Sequence[Work], loss_of: LossOf, limit: Limit) -> float:
        for work in works:
            if learns_statistics(work.encoder):
                raise TrainingError(
                    "A batch of this size has to be computed in chunks, and the network's batch norms learn from whole "
                    "batches.\nTake a smaller batch_size, or start from pretrained weights, whose statistics stay."
                )
        if not self._said and self.budget.items is None:
            self._said = True
            logger.warning(
                "a batch does not fit into memory at once: it is computed in chunks of %s tokens, each of them twice",
                f"{limit.tokens:,}",
            )
        with ExitStack() as stack:
            for work in works:
                if self.budget.is_larger(work):
                    stack.enter_context(checkpointed(work.encoder.extractor))
            return backward_in_chunks([work.cut(limit) for work in works], loss_of, self.device, self.dtype)


def _too_large(device: torch.device) -> TrainingError:
    return TrainingError(
        f"There is not enough memory on {device} for one item alone.\n"
        "Cut texts shorter (--model-option max_length=256), freeze stages (--freeze 4), or take a smaller model."
    )
