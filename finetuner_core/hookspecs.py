"""The hooks that a plugin may implement, and what each must do.

A hook's verb tells what it may cost. `list_*` is light: it imports nothing heavy, asks no network, and gives the same
answer every time. `find_*` may import and may touch the disk. `load_*`, `strip_*` and `build_*` may import torch.

The core calls one plugin at a time, so no order between plugins exists. A hook may take fewer parameters than its
specification has, but none with a default and none that is keyword-only: pluggy would pass over those in silence, so
they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

from finetuner_core.values import BackboneInfo, LossInfo, Modality, OptionValue, PoolingInfo

if TYPE_CHECKING:
    from torch import nn

    from finetuner_core.interfaces import CrossEncoder, FeatureExtractor, LoadedBackbone, Pooling

PROJECT = "finetuner"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec(firstresult=True)
def list_backbones() -> Iterable[BackboneInfo]:  # type: ignore[empty-body]
    """The rows that the plugin adds to the table, as literals, in the order in which they are to be shown.

    Returns:
        Rows whose names differ from each other.

    >>> from finetuner_core.plugin import BackboneInfo, hookimpl
    >>> @hookimpl
    ... def list_backbones():
    ...     return [BackboneInfo("tiny", "text-to-text", 64, "CNN", "Letters, counted", poolings=("mean",))]
    >>> list_backbones()[0].output_dim
    64
    """


@hookspec(firstresult=True)
def find_backbone(name: str) -> BackboneInfo | None:
    """The row of a model that is not listed: another architecture, a Hub id, or a local folder.

    Args:
        name: what followed `namespace/`, or a path. A path starts with `./`, `../`, `/` or `~`, and is handed to
            every plugin: claim it only where the folder has the plugin's own format, which includes what its
            `LoadedBackbone.save` has written.

    Returns:
        The row, its `name` as given, or `None` where the plugin does not know it.

    Raises:
        WeightsError: if the plugin would know it but cannot reach what describes it.

    >>> from finetuner_core.plugin import BackboneInfo, hookimpl
    >>> @hookimpl
    ... def find_backbone(name):
    ...     width = name.removeprefix("tiny-")
    ...     return BackboneInfo(name, "text-to-text", int(width), "CNN", "") if width.isdigit() else None
    >>> find_backbone("tiny-32").output_dim
    32
    >>> find_backbone("huge") is None
    True
    """


@hookspec(firstresult=True)
def find_backbone_names(pattern: str) -> Iterable[str]:  # type: ignore[empty-body]
    """The names that `find_backbone` would know and that match a pattern, for `finetuner list --search`.

    Args:
        pattern: a shell-style pattern, such as `convnext*`.

    Returns:
        Names without the namespace, whatever can be enumerated without a network.

    >>> import fnmatch
    >>> from finetuner_core.plugin import hookimpl
    >>> @hookimpl
    ... def find_backbone_names(pattern):
    ...     return fnmatch.filter(["tiny-32", "tiny-64"], pattern)
    >>> find_backbone_names("*-64")
    ['tiny-64']
    """


@hookspec(firstresult=True)
def load_backbone(  # type: ignore[empty-body]
    info: BackboneInfo, pretrained: bool, options: Mapping[str, OptionValue]
) -> LoadedBackbone:
    """Loads the network as published, its head included, and how to feed it.

    Args:
        info: a row that the plugin gave. The row of a folder has no option that is required.
        pretrained: whether to load its weights. Where it is false, the network starts from random weights and no
            network is asked for anything that the disk holds.
        options: a value for each of `info.options`, checked.

    Raises:
        WeightsError: if the weights cannot be had; the message says how to get them.

    >>> import torch
    >>> from finetuner_core.interfaces import LoadedBackbone
    >>> from finetuner_core.plugin import BackboneInfo, hookimpl
    >>> @hookimpl
    ... def load_backbone(info, pretrained, options):
    ...     network = torch.nn.Sequential(torch.nn.Embedding(256, info.output_dim), torch.nn.Linear(64, 10))
    ...     return LoadedBackbone(network, preprocess={}, save=lambda network, folder: None)
    >>> row = BackboneInfo("tiny", "text-to-text", 64, "CNN", "")
    >>> len(load_backbone(row, pretrained=False, options={}).network)
    2
    """


@hookspec(firstresult=True)
def strip_head(  # type: ignore[empty-body]
    info: BackboneInfo, loaded: LoadedBackbone, pooling: str
) -> Mapping[Modality, FeatureExtractor]:
    """Takes the head off, and gives one extractor for each modality of the row.

    Every parameter that the extractors hold must take part in the embedding. What only the head used is gone, also from
    what `loaded.save` writes, but for what the backbone's own library needs to open the folder (a temperature, say).

    Args:
        info: the row.
        loaded: what `load_backbone` gave; it may be changed in place.
        pooling: one of `info.poolings`, or one of another plugin where `info.has_tokens`. It is known here because head
            and pooling cannot always be told apart. For `native` the extractor gives the backbone's own pooled vector
            (T = 1); for any other its token features. Of an image: for `cls` the class token first, for all others
            without the tokens that stand for no part of it (class, register). Of a text: all real tokens, the special
            ones too, as its network was trained.

    >>> import torch
    >>> from finetuner_core.interfaces import FeatureExtractor, Features, LoadedBackbone, Stage
    >>> from finetuner_core.plugin import BackboneInfo, hookimpl
    >>> class Tokens(FeatureExtractor):
    ...     def __init__(self, embedding):
    ...         super().__init__()
    ...         self.embedding, self.dim = embedding, embedding.embedding_dim
    ...     def forward(self, batch):
    ...         return Features(self.embedding(batch["ids"]), batch["mask"])
    ...     def stages(self):
    ...         return [Stage("embedding", (self.embedding,))]
    >>> @hookimpl
    ... def strip_head(info, loaded, pooling):
    ...     return {"text": Tokens(loaded.network[0])}
    >>> network = torch.nn.Sequential(torch.nn.Embedding(256, 64), torch.nn.Linear(64, 10))
    >>> row = BackboneInfo("tiny", "text-to-text", 64, "CNN", "", poolings=("mean",))
    >>> stripped = strip_head(row, LoadedBackbone(network, preprocess={}, save=lambda network, folder: None), "mean")
    >>> ids = torch.tensor([[1, 2, 0]])
    >>> stripped["text"]({"ids": ids, "mask": ids > 0}).tokens.shape
    torch.Size([1, 3, 64])
    """


@hookspec(firstresult=True)
def list_poolings() -> Iterable[PoolingInfo]:  # type: ignore[empty-body]
    """The poolings that the plugin adds.

    >>> from finetuner_core.plugin import PoolingInfo, hookimpl
    >>> @hookimpl
    ... def list_poolings():
    ...     return [PoolingInfo("first", "The first token")]
    >>> [pooling.name for pooling in list_poolings()]
    ['first']
    """


@hookspec(firstresult=True)
def build_pooling(  # type: ignore[empty-body]
    info: PoolingInfo, dim: int, options: Mapping[str, OptionValue]
) -> Pooling:
    """Builds a pooling that the plugin lists.

    Args:
        info: the row that the plugin gave.
        dim: width of the token features that it will be given.
        options: a value for each of `info.options`, checked.

    >>> import torch
    >>> from finetuner_core.interfaces import Features, Pooling
    >>> from finetuner_core.plugin import PoolingInfo, hookimpl
    >>> class First(Pooling):
    ...     def forward(self, features):
    ...         first = features.mask.int().argmax(1)  # there may be padding on the left
    ...         return features.tokens[torch.arange(len(first)), first]
    >>> @hookimpl
    ... def build_pooling(info, dim, options):
    ...     return First(dim)
    >>> pooling = build_pooling(PoolingInfo("first", "The first token"), dim=2, options={})
    >>> pooling(Features.of_vectors(torch.ones(3, 2))).shape
    torch.Size([3, 2])
    """


@hookspec(firstresult=True)
def list_losses() -> Iterable[LossInfo]:  # type: ignore[empty-body]
    """The losses that the plugin adds.

    >>> from finetuner_core.plugin import LossInfo, Option, hookimpl
    >>> @hookimpl
    ... def list_losses():
    ...     return [LossInfo("spread", "Keeps embeddings apart", (Option("weight", "float", default=1.0),))]
    >>> [loss.name for loss in list_losses()]
    ['spread']
    """


@hookspec(firstresult=True)
def build_loss(info: LossInfo, dim: int, options: Mapping[str, OptionValue]) -> nn.Module:  # type: ignore[empty-body]
    """Builds a loss that the plugin lists.

    The module is called `loss(embeddings, labels, ref_emb=None, ref_labels=None)`, as those of pytorch-metric-learning
    are, and returns a scalar. Embeddings are float (B, D) of length 1, labels int (B,). Items with equal labels belong
    together. Where `ref_emb` (R, D) and `ref_labels` (R,) are given, the pairs are formed between the two; else among
    the embeddings themselves, an item with itself left out. Where no pair can be formed, the loss is a zero that can be
    differentiated.

    A loss whose row has the form `scored` is called `loss(embeddings, scores, ref_emb=candidates)` with such data:
    scores are float (B, K) and candidates float (B, K, D), those of each anchor. K may be 1; a loss that needs more
    refuses that with a `DataError`.

    A loss may take one more argument by name, `excluded`: bool (B, R), or (B, B) without references, true for pairs
    that are neither positive nor negative whatever their labels, such as two rows with the same text. Where `forward`
    has no such parameter, the items of pairs that belong together are given one label instead. Only a loss that takes
    both `excluded` and references can be given a memory of past batches.

    Args:
        info: the row that the plugin gave.
        dim: width D of the embeddings.
        options: a value for each of `info.options`, checked.

    >>> import torch
    >>> from finetuner_core.plugin import LossInfo, Option, hookimpl
    >>> class Spread(torch.nn.Module):
    ...     def __init__(self, weight):
    ...         super().__init__()
    ...         self.weight = weight
    ...     def forward(self, embeddings, labels, ref_emb=None, ref_labels=None):
    ...         others = embeddings if ref_emb is None else ref_emb
    ...         apart = labels[:, None] != (labels if ref_labels is None else ref_labels)
    ...         return self.weight * (embeddings @ others.T)[apart].sum()
    >>> @hookimpl
    ... def build_loss(info, dim, options):
    ...     return Spread(options["weight"])
    >>> info = LossInfo("spread", "Keeps embeddings apart", (Option("weight", "float", default=1.0),))
    >>> loss = build_loss(info, dim=2, options={"weight": 0.5})
    >>> loss(torch.eye(2), torch.tensor([0, 1])).item()
    0.0
    """


@hookspec(firstresult=True)
def load_cross_encoder(name: str) -> CrossEncoder | None:
    """Opens a cross-encoder, which scores anew what a search has found (`finetuner mine --cross-encoder`).

    Args:
        name: what followed `namespace/`, a name without a namespace, or a path, which is handed to every plugin.

    Returns:
        The network, or `None` where the plugin does not know it.

    Raises:
        WeightsError: if its weights cannot be had, or it gives no single score; the message says what to do.

    >>> import torch
    >>> from finetuner_core.interfaces import CrossEncoder
    >>> from finetuner_core.plugin import hookimpl
    >>> class Shared(CrossEncoder):
    ...     def score(self, queries, documents, batch_size):
    ...         pairs = zip(queries, documents)
    ...         return torch.tensor([float(len({*query.split()} & {*text.split()})) for query, text in pairs])
    >>> @hookimpl
    ... def load_cross_encoder(name):
    ...     return Shared() if name == "shared-words" else None
    >>> load_cross_encoder("shared-words").score(["a cat"], ["the cat"], batch_size=64)
    tensor([1.])
    >>> load_cross_encoder("huge") is None
    True
    """
