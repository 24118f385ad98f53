"""What a plugin's loaded network has to offer. This module imports torch: a plugin imports it beside its network.

The light half of the contract, which a plugin imports at discovery, is `finetuner_core.plugin`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from finetuner_core.values import Modality, Side

Batch: TypeAlias = Mapping[str, Tensor]
"""What a network is fed: tensors by name, each with the batch as its first dimension."""

Prepared: TypeAlias = Any
"""What a plugin's `prepare` makes of an item and its `collate` takes. Only an image's form is known to the core."""


@dataclass(frozen=True)
class Features:
    """What every backbone gives, whatever it is: a sequence of token features for each item.

    Args:
        tokens: float (B, T, D). A feature map has T = H * W in row-major order, a text T tokens, a vector or a
            backbone's own pooled output T = 1.
        mask: bool (B, T), true where a token is real and false where it is padding.
    """

    tokens: Tensor
    mask: Tensor

    @staticmethod
    def of_vectors(vectors: Tensor) -> Features:
        """Vectors (B, D) as sequences of one token."""
        return Features(vectors.unsqueeze(1), torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))


class Preprocess(Protocol):
    """How to feed a network, in two halves: what can be done ahead, item by item, and what needs the whole batch.

    It can be pickled, so that processes beside the one that trains can run it.
    """

    def prepare(self, items: Sequence[object]) -> list[Prepared]:
        """Makes cheap, picklable things of raw items: token ids, a decoded and resized image.

        Args:
            items: texts (`str`), images (a path, or a `PIL.Image.Image`), or vectors (array of D numbers).

        Returns:
            One prepared item for each, in the same order.

        Raises:
            DataError: if an item cannot be read; the message names it.
        """
        ...

    def length(self, prepared: Prepared) -> int:
        """How many tokens the network will see of it, so that batches can be made of items of like length."""
        ...

    def collate(self, prepared: Sequence[Prepared]) -> Batch:
        """Makes the tensors of one batch."""
        ...


@runtime_checkable
class TextPreprocess(Preprocess, Protocol):
    """A preprocess of the modality `text` that knows what it left out, so that it can be counted and said.

    An empty text is prepared like any other: as its special tokens, or as one token where there are none.
    """

    max_length: int
    """How many tokens of a text are read, special ones included."""

    def is_cut(self, prepared: Prepared) -> bool:
        """Whether the text had more tokens than are read, and its end was left out."""
        ...


@runtime_checkable
class PortablePreprocess(Preprocess, Protocol):
    """A preprocess that can say how the network is fed without Finetuner, for `finetuner export`."""

    def export(self, folder: Path) -> Mapping[str, object]:
        """Writes what feeds the network (`tokenizer.json`), and says the rest.

        Args:
            folder: an existing one, where files may lie that the same model's other preprocess has written.

        Returns:
            What JSON can hold: `max_length` and `prompt` of a text, `size`, `mean` and `std` of an image, the `width`
            of a vector.
        """
        ...


class ImagePreprocess(Preprocess, Protocol):
    """The preprocess of the modality `image`.

    `prepare` gives uint8 tensors (3, H, W), resized but not cropped; `collate` cuts what has not the network's size
    to it and normalises. Between the two the core augments training images.
    """

    image_size: tuple[int, int]
    """Height and width in pixels of what the network sees."""


@dataclass(frozen=True)
class Stage:
    """A part of a network, from its input to its output, that can be frozen as one.

    Args:
        name: as a person would call it.
        modules: the modules that belong to it, dropout and batch statistics included.
        parameters: parameters of it that no such module holds (a class token, position embeddings).
    """

    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...] = ()


class FeatureExtractor(nn.Module, ABC):
    """A network without its head, for one modality."""

    dim: int
    """Width D of the token features."""

    padding_free: bool = False
    """Whether padding costs nothing: items of any lengths can then share a batch, and are not sorted into chunks."""

    @abstractmethod
    def forward(self, batch: Batch) -> Features:
        """Features (B, T, D) of a collated batch."""

    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """The network's parts from input to output. Together they hold every parameter of the extractor."""

    def traceable(self) -> AbstractContextManager[None]:
        """Within it, `forward` computes the same by steps that do not hang on what is in the batch.

        An export (`finetuner export`) follows `forward` once and keeps its steps for batches of any size and length.
        """
        return nullcontext()


class Pooling(nn.Module, ABC):
    """Makes one vector of each sequence of token features."""

    dim: int
    """Width of the vectors that come out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Vectors (B, dim) of features (B, T, D). Padding must not change them."""


@dataclass(frozen=True)
class ForeignUse:
    """How a saved folder opens in another library, for the model's card.

    Args:
        library: as the Hub calls it, such as `sentence-transformers` or `timm`.
        pipeline_tag: the Hub's word for what the model does, such as `sentence-similarity`.
        code: Python that opens it, with `{model}` where its name on the Hub or its folder belongs, and `{folder}` where
            it has to be the folder.
        rest: what that code leaves out of the embedding, in a sentence for a person; empty where nothing.
        tags: more words by which it is found.
    """

    library: str
    pipeline_tag: str
    code: str
    rest: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedBackbone:
    """A network as it was published, and how to feed and keep it.

    Args:
        network: the network, its head included, in float32.
        preprocess: how to feed it, for each modality of the row.
        save: writes a network and all that its preprocess needs into a folder that `find_backbone` recognises, and that
            needs no options to be loaded again: safetensors and JSON only. It is handed `network`, or a copy of it,
            as it is after `strip_head` and training.
        new_weights: names of parameters that the pretrained weights did not hold and that therefore start untrained.
        sides: another preprocess for what asks and for what is found, where they are fed differently: texts with the
            prompt "query: " before them, say. Where a side is not here, `preprocess` serves it.
        publish: called after `save` with the network, the name of the pooling, the projection behind it or `None`, and
            the folder. It writes what the backbone's own library needs to compute these as well, where that has words
            for them, and says how the folder opens there. The folder has to be loaded as if it had not been called.
    """

    network: nn.Module
    preprocess: Mapping[Modality, Preprocess]
    save: Callable[[nn.Module, Path], None]
    new_weights: tuple[str, ...] = ()
    sides: Mapping[Side, Preprocess] = field(default_factory=dict)
    publish: Callable[[nn.Module, str, nn.Linear | None, Path], ForeignUse] | None = None


class CrossEncoder(nn.Module, ABC):
    """A network that reads a query and a document together and gives one score for the two: slow and exact."""

    @abstractmethod
    def score(self, queries: Sequence[str], documents: Sequence[str], batch_size: int) -> Tensor:
        """How well each document answers the query beside it.

        Args:
            queries: N texts.
            documents: N texts.
            batch_size: how many pairs are computed at a time.

        Returns:
            float32 (N,), on the CPU, higher for what fits better.
        """
