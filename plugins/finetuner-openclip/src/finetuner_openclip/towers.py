"""The two towers of a network of open_clip, without what only its training needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, LoadedBackbone, Stage
from finetuner_core.plugin import BackboneInfo, Modality
from finetuner_openclip.stages import stages_of


def strip(info: BackboneInfo, loaded: LoadedBackbone) -> Mapping[Modality, FeatureExtractor]:
    """Both towers with their projections; the decoder of a captioning model (CoCa) is gone.

    The temperature belongs to the loss and is in no tower. The network keeps it, since open_clip opens no folder that
    lacks it.
    """
    network, dim = loaded.network, info.output_dim
    assert dim is not None
    if hasattr(network, "text_decoder"):
        del network.text_decoder
    return {
        "text": Tower(network.get_submodule("text"), "ids", dim),
        "image": Tower(network.get_submodule("visual"), "pixels", dim),
    }


class Tower(FeatureExtractor):
    """A tower into the shared space: open_clip's own vector, projected and of whatever length.

    Args:
        tower: the network.
        key: what of a batch it is fed.
        dim: the width of the shared space.
    """

    def __init__(self, tower: nn.Module, key: str, dim: int) -> None:
        super().__init__()
        # The tower of a captioning model would give its tokens beside the vector.
        tower.output_tokens = False  # type: ignore[assignment]
        self.tower = tower
        self.key = key
        self.dim = dim

    def forward(self, batch: Batch) -> Features:
        """Features of one token (B, 1, D)."""
        vectors: Tensor = self.tower(batch[self.key])
        return Features.of_vectors(vectors)

    def stages(self) -> Sequence[Stage]:
        """Embeddings, layers, output."""
        return stages_of(self.tower)
