"""Text models without a head: a feature for each token, or the vector that a repository declares."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import PreTrainedModel

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_hf.architecture import Architecture
from finetuner_hf.layers import DeclaredPooling
from finetuner_hf.packing import first_position, last_hidden_state, pack, unpack
from finetuner_hf.stages import transformer_stages


class TokenExtractor(FeatureExtractor):
    """The last hidden state of a network, a feature for each token.

    Args:
        encoder: the network.
        architecture: how it is fed.
    """

    def __init__(self, encoder: PreTrainedModel, architecture: Architecture) -> None:
        super().__init__()
        self.encoder = encoder
        self.architecture = architecture
        self.dim = architecture.dim
        self.padding_free = architecture.packable
        self._takes = frozenset(inspect.signature(encoder.forward).parameters)
        if self.padding_free:
            pack(encoder)
            self._first_position = first_position(encoder)

    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D), padding masked, on whichever side it stands."""
        mask = batch["attention_mask"]
        if self.padding_free:
            real = mask.bool()
            return Features(last_hidden_state(self.encoder, batch["input_ids"], real, self._first_position), real)
        more: dict[str, object] = {}
        if self.architecture.decoder:
            # Counted from the first real token, where a decoder counts from the first column. What it would keep to
            # continue the text is of no use here.
            more = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0), "use_cache": False}
            more = {name: value for name, value in more.items() if name in self._takes}
        tokens = self.encoder(input_ids=batch["input_ids"], attention_mask=mask, **more).last_hidden_state
        return Features(tokens, mask.bool())

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers, and what follows them."""
        return transformer_stages(self.encoder)

    @contextmanager
    def traceable(self) -> Iterator[None]:
        """Within it, texts stand side by side and are padded, as transformers itself computes them."""
        was_packed = self.padding_free
        if was_packed:
            unpack(self.encoder)
            self.padding_free = False
        try:
            yield
        finally:
            if was_packed:
                pack(self.encoder)
                self.padding_free = True


class PooledExtractor(TokenExtractor):
    """The vector that a sentence-transformers repository declares.

    Args:
        encoder: the network.
        architecture: how it is fed.
        pooling: what is declared.
    """

    def __init__(self, encoder: PreTrainedModel, architecture: Architecture, pooling: DeclaredPooling) -> None:
        super().__init__(encoder, architecture)
        self.pooling = pooling
        self.dim = pooling.dim

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        features = super().forward(batch)
        pooled = batch["pooled"].bool() if "pooled" in batch else features.mask
        return Features.of_vectors(self.pooling(features, pooled))

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers, what follows them, and the declared layers over the vector."""
        own = [Stage("declared layers", (self.pooling,))] if any(True for _ in self.pooling.parameters()) else []
        return [*super().stages(), *own]
