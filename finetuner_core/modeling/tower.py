"""One backbone of a model, and how it is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetuner_core.artifacts.saved import Base, SavedModel
from finetuner_core.catalogue.quiet import quiet_libraries
from finetuner_core.errors import FolderError, OptionError
from finetuner_core.interfaces import ForeignUse, LoadedBackbone, Preprocess
from finetuner_core.modeling import lora
from finetuner_core.modeling.encoder import Encoder, projection
from finetuner_core.values import BackboneInfo, Modality, OptionValue, Side, listed

HEAD_FILE = "head.safetensors"


class Tower(nn.Module):
    """A backbone without its head, its pooling, and perhaps a projection, for each modality that it takes.

    Args:
        info: the backbone's row.
        base: by which the backbone can be found again.
        pooling: the name of the pooling.
        pooling_options: a value for each of the pooling's options.
        encoders: an encoder for each modality.
        loaded: the backbone, for its preprocessing and for saving it.
        pretrained: whether the backbone's weights were trained, and not drawn at random.
    """

    def __init__(
        self,
        *,
        info: BackboneInfo,
        base: Base,
        pooling: str,
        pooling_options: Mapping[str, OptionValue],
        encoders: Mapping[Modality, Encoder],
        loaded: LoadedBackbone,
        pretrained: bool,
    ) -> None:
        super().__init__()
        self.info = info
        self.base = base
        self.pooling = pooling
        self.pooling_options = pooling_options
        self.pretrained = pretrained
        self.encoders = nn.ModuleDict({str(modality): encoder for modality, encoder in encoders.items()})
        self.loaded = loaded

    @property
    def output_dim(self) -> int:
        """Width of the embeddings."""
        return self.encoder(self.info.modalities[0]).output_dim

    @property
    def new_weights(self) -> list[str]:
        """Names of the backbone's parameters that its pretrained weights did not hold: they start untrained."""
        names = {id(tensor): name for name, tensor in self.loaded.network.named_parameters()}
        kept = {names[id(tensor)] for tensor in self.encoders.parameters() if id(tensor) in names}
        return [name for name in self.loaded.new_weights if name in kept]

    def encoder(self, modality: Modality) -> Encoder:
        """The encoder of a modality."""
        encoder = self.encoders[modality]
        assert isinstance(encoder, Encoder)
        return encoder

    def preprocess(self, modality: Modality, side: Side | None = None) -> Preprocess:
        """How to feed the encoder of a modality, with what asks, with what is found, or with either."""
        preprocess = self.loaded.preprocess[modality]
        return preprocess if side is None else self.loaded.sides.get(side, preprocess)

    def project(self, output_dim: int) -> None:
        """Adds a projection to a width, unless there is one to it.

        Raises:
            OptionError: if there is one to another width.
        """
        # Modalities that share a space start with the same projection, or a new one each would tear them apart.
        made: dict[int, nn.Linear] = {}
        for modality in self.info.modalities:
            encoder = self.encoder(modality)
            width = encoder.pooling.dim
            if encoder.projection is None:
                encoder.projection = copy.deepcopy(made.setdefault(width, projection(width, output_dim)))
            elif encoder.output_dim != output_dim:
                raise OptionError(
                    f"output_dim is {output_dim}, but {self.info.name} has a projection of its own, to "
                    f"{encoder.output_dim}.\nLeave output_dim out, or make it {encoder.output_dim}."
                )

    def new_parameters(self) -> list[nn.Parameter]:
        """Those of pooling and projection, where they stand beside weights that were trained before."""
        named = self.encoders.named_parameters() if self.pretrained else ()
        return [parameter for name, parameter in named if not _is_backbone(name)]

    def write_into(self, folder: Path, *, adapter: bool = False) -> ForeignUse | None:
        """Writes the tower's files into an existing, empty folder, all but the last (`describe`).

        Args:
            folder: where.
            adapter: whether to write LoRA's matrices and the name of the backbone that they belong to; else the
                backbone itself, with the matrices merged into its weights.

        Returns:
            How the folder opens in the backbone's own library, where its plugin says so.

        Raises:
            OptionError: if there are no matrices, or the backbone was drawn at random and cannot be found again.
        """
        use = None
        if adapter:
            self.check_adapter()
        try:
            with quiet_libraries():
                if adapter:
                    lora.write(self.encoders, folder)
                else:
                    network = lora.merged(self.loaded.network, self.encoders)
                    self.loaded.save(network, folder)
                    if self.loaded.publish is not None:
                        use = self.loaded.publish(network, self.pooling, self.projection, folder)
            if head := self._head():
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in head.items()}, folder / HEAD_FILE)
        except SafetensorError as error:
            # What it has to say of a full disk.
            raise OSError(str(error)) from error
        return use

    def describe(self, folder: Path, *, adapter: bool = False) -> None:
        """Writes the last file of the folder, by which the tower is found again: it names all others.

        Args:
            folder: what `write_into` wrote into.
            adapter: as there.
        """
        SavedModel(
            # The width of its row is what the model emits, with its own pooling and projection.
            info=replace(self.info, output_dim=self.output_dim),
            pooling=self.pooling,
            pooling_options=self.pooling_options,
            projection_dim=None if self.projection is None else self.output_dim,
            base=replace(self.base, sha256=lora.fingerprint(self.encoders)) if adapter else None,
        ).write(folder)

    @property
    def projection(self) -> nn.Linear | None:
        """The projection behind the pooling, that of its first modality where it has one for each."""
        return self.encoder(self.info.modalities[0]).projection

    def check_adapter(self) -> None:
        """Whether LoRA's matrices can be saved without the backbone.

        Raises:
            OptionError: if there are none, or the backbone was drawn at random and cannot be found again.
        """
        if not lora.has_matrices(self.encoders):
            raise OptionError(f"{self.info.name} has no adapter to save.\nTrain one: --lora 8 (lora=8).")
        if not self.pretrained:
            raise OptionError(f"{self.info.name} started from random weights, which no adapter can find again.")

    def read_adapter(self, folder: Path, base: Base) -> None:
        """Puts the matrices of an adapter's folder beside the backbone's layers.

        Raises:
            FolderError: if the backbone is not the one that they were trained beside.
        """
        if lora.fingerprint(self.encoders) != base.sha256:
            raise FolderError(
                f"{folder} holds an adapter for {base.name}, whose weights have changed since.\n"
                "It needs those that it was trained beside, or gives other vectors."
            )
        lora.read(self.encoders, folder)

    def read_head(self, folder: Path) -> None:
        """Reads what `write_into` wrote beside the backbone: the parameters of the pooling and the projection.

        Raises:
            FolderError: if they do not fit.
        """
        head = self._head()
        file = folder / HEAD_FILE
        try:
            saved = load_file(file) if file.is_file() else {}
        except SafetensorError as error:
            raise FolderError(f"{file} cannot be read: {error}.") from None
        expected, found = _described(head), _described(saved)
        if expected != found:
            raise FolderError(f"{file} does not fit the model: it holds {found}, and expected is {expected}.")
        with torch.no_grad():
            for name, tensor in head.items():
                tensor.copy_(saved[name])

    def _head(self) -> dict[str, Tensor]:
        """What does not belong to the backbone."""
        return {name: tensor for name, tensor in self.encoders.state_dict().items() if not _is_backbone(name)}


def _described(tensors: Mapping[str, Tensor]) -> str:
    """Names, shapes, and whether the numbers are of floating point, as whichever kind they are kept."""
    kinds = ((name, tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in sorted(tensors.items()))
    return (
        listed(f"{name} {shape}{'' if is_float else ' of whole numbers'}" for name, shape, is_float in kinds)
        or "nothing"
    )


def _is_backbone(name: str) -> bool:
    """Whether a tensor of that name among the encoders is the extractor's: `text.extractor.layer.weight`."""
    return name.split(".")[1] == "extractor"
