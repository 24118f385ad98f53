"""The embedding model: raw items in, vectors of length 1 out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetuner_core.artifacts.folder import SavedModel, write_folder
from finetuner_core.catalogue.quiet import quiet_libraries
from finetuner_core.errors import DataError, FolderError, OptionError
from finetuner_core.interfaces import LoadedBackbone, Prepared, Preprocess
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.values import BackboneInfo, Modality, quote

HEAD_FILE = "head.safetensors"

# Items are prepared this many at a time, so that encoding needs memory for these and not for all.
_WINDOW = 1024


class EmbeddingModel(nn.Module):
    """A backbone without its head, its pooling, and perhaps a projection, for each modality that it takes.

    Args:
        info: the backbone's row.
        pooling: the name of the pooling.
        encoders: an encoder for each modality.
        loaded: the backbone, for its preprocessing and for saving it.
        pretrained: whether the backbone's weights were trained, and not drawn at random.
    """

    def __init__(
        self,
        *,
        info: BackboneInfo,
        pooling: str,
        encoders: Mapping[Modality, Encoder],
        loaded: LoadedBackbone,
        pretrained: bool,
    ) -> None:
        super().__init__()
        self.info = info
        self.pooling = pooling
        self.pretrained = pretrained
        self.encoders = nn.ModuleDict({str(modality): encoder for modality, encoder in encoders.items()})
        self._loaded = loaded

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model takes."""
        return self.info.modalities

    @property
    def output_dim(self) -> int:
        """Width of the embeddings."""
        return self.encoder(self.modalities[0]).output_dim

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    @property
    def new_weights(self) -> list[str]:
        """Names of the backbone's parameters that its pretrained weights did not hold: they start untrained."""
        names = {id(tensor): name for name, tensor in self._loaded.network.named_parameters()}
        kept = {names[id(tensor)] for tensor in self.encoders.parameters() if id(tensor) in names}
        return [name for name in self._loaded.new_weights if name in kept]

    def encoder(self, modality: Modality) -> Encoder:
        """The encoder of a modality."""
        encoder = self.encoders[modality]
        assert isinstance(encoder, Encoder)
        return encoder

    def preprocess(self, modality: Modality) -> Preprocess:
        """How to feed the encoder of a modality."""
        return self._loaded.preprocess[modality]

    def forward(self, modality: Modality, prepared: Sequence[Prepared]) -> Tensor:
        """Embeddings of prepared items, in their order, on the model's device.

        Args:
            modality: what they are.
            prepared: what the modality's preprocess made of them.

        Returns:
            float32 (B, output_dim), each of length 1.
        """
        batch = self.preprocess(modality).collate(prepared)
        vectors: Tensor = self.encoder(modality)({name: tensor.to(self.device) for name, tensor in batch.items()})
        return vectors

    def encode(
        self, items: Sequence[object] | np.ndarray, *, modality: Modality | None = None, batch_size: int | None = None
    ) -> np.ndarray:
        """Embeddings of raw items.

        Args:
            items: texts; images as paths or PIL images; or an array (N, D) of vectors.
            modality: what they are; it has to be given where the model takes more than one.
            batch_size: how many are computed at a time.

        Returns:
            float32 (N, output_dim), each row of length 1, in the order of the items.

        Raises:
            OptionError: if the modality is none that the model takes, or was not said.
            DataError: if an item cannot be read.
        """
        modality = self._checked_modality(modality)
        if isinstance(items, str | bytes | Path) or not hasattr(items, "__len__"):
            raise DataError(f"encode takes a list of items, not one {type(items).__name__}: write encode([...]).")
        size = 64 if batch_size is None else batch_size
        if size < 1:
            raise OptionError(f"batch_size is {size}; it must be at least 1.")
        vectors = np.empty((len(items), self.output_dim), dtype=np.float32)
        preprocess = self.preprocess(modality)
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(items), _WINDOW):
                    window = items[start : start + _WINDOW]
                    if modality == "text":
                        _check_texts(window, start)
                    prepared = preprocess.prepare(window)  # type: ignore[arg-type]
                    # Items of like length share a batch, so that little of it is padding.
                    order = sorted(range(len(prepared)), key=lambda i: preprocess.length(prepared[i]), reverse=True)
                    for at in range(0, len(order), size):
                        rows = order[at : at + size]
                        embedded = self(modality, [prepared[row] for row in rows])
                        vectors[[start + row for row in rows]] = embedded.cpu().numpy()
        finally:
            for module, training in modes:
                module.training = training
        return vectors

    def save(self, path: str | Path) -> Path:
        """Writes the model into a folder that `finetuner.load` opens: safetensors and JSON only.

        The folder is written beside its place and renamed into it, so that it is whole or not there.

        Args:
            path: a folder that does not exist, is empty, or holds a saved model, which is then replaced.

        Returns:
            The folder.

        Raises:
            FolderError: if the folder holds something else, or cannot be written.
        """
        return write_folder(path, self.write_into)

    def write_into(self, folder: Path) -> None:
        """Writes the model's files into an existing, empty folder."""
        try:
            with quiet_libraries():
                self._loaded.save(self._loaded.network, folder)
            if head := self._head():
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in head.items()}, folder / HEAD_FILE)
        except SafetensorError as error:
            # What it has to say of a full disk.
            raise OSError(str(error)) from error
        has_projection = self.encoder(self.modalities[0]).projection is not None
        # The width of its row is what the model emits, with its own pooling and projection.
        info = replace(self.info, output_dim=self.output_dim)
        SavedModel(info, self.pooling, self.output_dim if has_projection else None).write(folder)

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
        expected = {name: tuple(tensor.shape) for name, tensor in head.items()}
        found = {name: tuple(tensor.shape) for name, tensor in saved.items()}
        if expected != found:
            raise FolderError(f"{file} does not fit the model: it holds {found}, and {expected} is expected.")
        with torch.no_grad():
            for name, tensor in head.items():
                tensor.copy_(saved[name])

    def _head(self) -> dict[str, Tensor]:
        """What does not belong to the backbone."""
        return {
            name: tensor for name, tensor in self.encoders.state_dict().items() if name.split(".")[1] != "extractor"
        }

    def _checked_modality(self, modality: Modality | None) -> Modality:
        if modality is None and len(self.modalities) == 1:
            return self.modalities[0]
        if modality not in self.modalities:
            choices = " or ".join(f'modality="{name}"' for name in self.modalities)
            what = "takes more than one modality" if modality is None else f"does not take {quote(modality)}"
            raise OptionError(f"{self.info.name} {what}.\nSay {choices}.")
        return modality


def _check_texts(items: Sequence[object] | np.ndarray, start: int) -> None:
    for position, item in enumerate(items, start):
        if not isinstance(item, str):
            raise DataError(f"Item {position} is a {type(item).__name__}, not a text: {quote(item)}.")
