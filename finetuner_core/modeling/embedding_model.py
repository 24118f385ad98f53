"""The embedding model: raw items in, vectors of length 1 out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetuner_core.artifacts.card import Subject, read_papers, write_papers
from finetuner_core.artifacts.folder import write_folder
from finetuner_core.artifacts.push import check_repository, push
from finetuner_core.artifacts.saved import joined_row, write_towers
from finetuner_core.data.ahead import prepare_ahead
from finetuner_core.data.dataset import Cells
from finetuner_core.errors import DataError, OptionError
from finetuner_core.interfaces import Prepared, Preprocess, TextPreprocess
from finetuner_core.modeling.embed import Limit, chunks, embed_chunk, in_order, tokens_at_once
from finetuner_core.modeling.encoder import Encoder
from finetuner_core.modeling.tower import Tower
from finetuner_core.values import SIDES, BackboneInfo, Modality, Side, quote

logger = logging.getLogger("finetuner")

# Items are prepared this many at a time, so that encoding needs memory for a few times as many and not for all.
_WINDOW: dict[Modality, int] = {"text": 1024, "image": 64, "vector": 4096}


class EmbeddingModel(nn.Module):
    """One tower that takes all of a model's modalities, or two: one for what asks and one for what is found.

    Args:
        document: the tower of what is found, and of what asks as well where there is no other.
        query: the tower of what asks, `None` where that is the same.

    Raises:
        OptionError: if the two do not go together, or emit vectors of different widths.
    """

    def __init__(self, document: Tower, query: Tower | None = None) -> None:
        super().__init__()
        self.towers = nn.ModuleList([document] if query is None else [query, document])
        self._said_of_cut: set[tuple[int, int]] = set()
        self.papers: Mapping[str, str] = {}
        self.info: BackboneInfo = document.info if query is None else joined_row(query.info, document.info)
        if query is not None and query.output_dim != document.output_dim:
            raise OptionError(
                f"Two towers share one space, but they emit vectors of widths {query.output_dim} and "
                f"{document.output_dim}.\nGive both the same output_dim."
            )

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model takes, that of the query first."""
        return self.info.modalities

    @property
    def output_dim(self) -> int:
        """Width of the embeddings."""
        return self.sided_towers()[-1][1].output_dim

    @property
    def pooling(self) -> str:
        """The name of the pooling, of both where there are two towers."""
        return " and ".join(tower.pooling for _, tower in self.sided_towers())

    @property
    def pretrained(self) -> bool:
        """Whether the weights of every backbone were trained, and not drawn at random."""
        return all(tower.pretrained for _, tower in self.sided_towers())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    @property
    def new_weights(self) -> list[str]:
        """Names of the backbones' parameters that their pretrained weights did not hold: they start untrained."""
        return [name for _, tower in self.sided_towers() for name in tower.new_weights]

    def new_parameters(self) -> list[nn.Parameter]:
        """Those of poolings and projections, where they stand beside weights that were trained before."""
        return [parameter for _, tower in self.sided_towers() for parameter in tower.new_parameters()]

    def sided_towers(self) -> list[tuple[Side | None, Tower]]:
        """Each tower with the side that it serves, `None` where there is one for both."""
        towers = [tower for tower in self.towers if isinstance(tower, Tower)]
        return [(None, towers[0])] if len(towers) == 1 else list(zip(SIDES, towers, strict=True))

    def tower(self, modality: Modality, side: Side | None = None) -> Tower:
        """The tower for items of a modality.

        Args:
            modality: one that the model takes.
            side: what the items are for; it has to be said where a tower for each takes the modality.

        Raises:
            OptionError: if it has to be said and was not.
        """
        fitting = {own: tower for own, tower in self.sided_towers() if modality in tower.info.modalities}
        if len(fitting) > 1 and side is None:
            raise OptionError(
                f'{self.info.name} reads what asks and what is found with a tower each.\nSay side="query" or '
                'side="document"; data for it are pairs of both (anchor, positive).'
            )
        return fitting[side] if len(fitting) > 1 else next(iter(fitting.values()))

    def encoder(self, modality: Modality, side: Side | None = None) -> Encoder:
        """The encoder of a modality; `side` as in `tower`."""
        return self.tower(modality, side).encoder(modality)

    def preprocess(self, modality: Modality, side: Side | None = None) -> Preprocess:
        """How to feed the encoder of a modality, with what asks (`query`), with what is found, or with either."""
        return self.tower(modality, side).preprocess(modality, side)

    def forward(self, modality: Modality, prepared: Sequence[Prepared], side: Side | None = None) -> Tensor:
        """Embeddings of prepared items, in their order, on the model's device.

        Args:
            modality: what they are.
            prepared: what the modality's preprocess made of them.
            side: what they are for, where it makes a difference.

        Returns:
            float32 (B, output_dim), each of length 1.
        """
        encoder, preprocess = self.encoder(modality, side), self.preprocess(modality, side)
        parts = chunks(encoder, preprocess, prepared, Limit(tokens_at_once(self.device)))
        vectors = [embed_chunk(encoder, preprocess, [prepared[p] for p in part], self.device) for part in parts]
        return in_order(parts, vectors) if vectors else torch.empty(0, self.output_dim, device=self.device)

    def encode(
        self,
        items: Sequence[object] | Cells | np.ndarray,
        *,
        modality: Modality | None = None,
        side: Side | None = None,
        batch_size: int | None = None,
        width: int | None = None,
    ) -> np.ndarray:
        """Embeddings of raw items.

        A text that is longer than the model reads is cut at its end; how many were is said on the log.

        Args:
            items: texts; images as paths or PIL images; or an array (N, D) of vectors; a list, or a column's items.
            modality: what they are; it has to be given where the model takes more than one and no side tells it.
            side: `query` for what asks, `document` for what is found. It makes a difference for a model that puts
                prompts before its texts, and for one that has two towers.
            batch_size: the most that are computed at a time; else as many as fill the device.
            width: how many numbers of each vector are kept, the first ones, brought to length 1 again: for a model that
                was trained with widths of that kind (`matryoshka`).

        Returns:
            float32 (N, output_dim), or (N, width), each row of length 1, in the order of the items.

        Raises:
            OptionError: if the modality is none that the model takes, or was not said; or if the vectors are not that
                wide.
            DataError: if an item cannot be read.
        """
        vectors, cut = self.encode_and_count(items, modality=modality, side=side, batch_size=batch_size, width=width)
        if (cut, len(items)) not in self._said_of_cut:  # evaluation encodes the same texts before and after
            self._said_of_cut.add((cut, len(items)))
            self.warn_of_cut(cut, len(items), modality=modality, side=side)
        return vectors

    def encode_and_count(
        self,
        items: Sequence[object] | Cells | np.ndarray,
        *,
        modality: Modality | None = None,
        side: Side | None = None,
        batch_size: int | None = None,
        width: int | None = None,
    ) -> tuple[np.ndarray, int]:
        """As `encode`, for many items a part at a time: it logs nothing, and gives the number of texts cut as well."""
        modality = self._checked_modality(modality, side)
        if isinstance(items, str | bytes | Path) or not hasattr(items, "__len__"):
            raise DataError(f"encode takes a list of items, not one {type(items).__name__}: write encode([...]).")
        if batch_size is not None and batch_size < 1:
            raise OptionError(f"batch_size is {batch_size}; it must be at least 1.")
        kept = self.output_dim if width is None else width
        if not 1 <= kept <= self.output_dim:
            raise OptionError(f"width is {kept}; the model's vectors are {self.output_dim} wide.")
        vectors = np.empty((len(items), kept), dtype=np.float32)
        encoder, preprocess = self.encoder(modality, side), self.preprocess(modality, side)
        limit = Limit(tokens_at_once(self.device), batch_size)
        window_size = _WINDOW[modality]

        def prepare(start: int) -> list[Prepared]:
            end = min(start + window_size, len(items))
            window = items.take(range(start, end)) if isinstance(items, Cells) else items[start:end]
            if modality == "text":
                _check_texts(window, start)
            return preprocess.prepare(window)  # type: ignore[arg-type]

        cut = 0
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        starts = range(0, len(items), window_size)
        try:
            with torch.inference_mode(), closing(prepare_ahead(starts, prepare, workers=1)) as windows:
                for start, prepared in zip(starts, windows, strict=True):
                    cut += count_cut(preprocess, prepared)
                    for rows in chunks(encoder, preprocess, prepared, limit):
                        embedded = embed_chunk(encoder, preprocess, [prepared[row] for row in rows], self.device)
                        if kept < self.output_dim:
                            embedded = F.normalize(embedded[:, :kept], dim=1)
                        vectors[[start + row for row in rows]] = embedded.cpu().numpy()
        finally:
            for module, training in modes:
                module.training = training
        return vectors, cut

    def warn_of_cut(self, cut: int, items: int, *, modality: Modality | None = None, side: Side | None = None) -> None:
        """Says on the log how many of some texts were cut, if any were; `modality` and `side` as for `encode`."""
        warn_of_cut(self.preprocess(self._checked_modality(modality, side), side), cut, items)

    def save(self, path: str | Path, *, adapter: bool = False) -> Path:
        """Writes the model into a folder that `finetuner.load` opens: safetensors and JSON only.

        The folder is written beside its place and renamed into it, so that it is whole or not there.

        Args:
            path: a folder that does not exist, is empty, or holds a saved model, which is then replaced.
            adapter: for a model that was trained with LoRA, whether to write the small matrices alone, which need the
                backbone again; else they are merged into its weights.

        Returns:
            The folder.

        Raises:
            FolderError: if the folder holds something else, or cannot be written.
            OptionError: if an adapter is asked for, and there is none or its backbone cannot be found again.
        """
        return write_folder(path, lambda folder: self.write_into(folder, adapter=adapter))

    def write_into(self, folder: Path, *, adapter: bool = False) -> None:
        """Writes the model's files and its card into an existing folder; of two towers, each into a folder of its own.

        What `training.json` in that folder says of a training is put into the card.
        """
        written = []
        for side, tower in self.sided_towers():
            own = folder if side is None else folder / side
            own.mkdir(exist_ok=True)
            use = tower.write_into(own, adapter=adapter)
            written.append((side, tower.info, tower.pooling, tower.projection is not None, use))
        write_papers(folder, self.papers, Subject(self.info, self.output_dim, written, adapter))
        self.papers = read_papers(folder)
        for side, tower in self.sided_towers():
            tower.describe(folder if side is None else folder / side, adapter=adapter)
        if len(self.towers) > 1:
            write_towers(folder)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload an embedding model made with Finetuner",
    ) -> str:
        """Saves the model and uploads it to the Hugging Face Hub.

        Args:
            repository: its name there, `user/name`; it is made where it does not exist.
            private: whether only its owner sees it, for one that is made; `None` for the account's own setting.
            token: of an account that may write; else the one of `hf auth login`.
            message: of the commit.

        Returns:
            Where it is.

        Raises:
            HubError: if the name is none, nobody is logged in, or the Hub cannot be reached or refuses.
        """
        check_repository(repository)
        with TemporaryDirectory(prefix="finetuner-") as scratch:
            folder = self.save(Path(scratch) / "model")
            return push(folder, repository, private=private, token=token, message=message)

    def train(self, mode: bool = True) -> EmbeddingModel:
        """As every module's. What was said of the model when it was opened does not hold once it is trained."""
        if mode:
            self.papers = {}
        return super().train(mode)

    def _checked_modality(self, modality: Modality | None, side: Side | None) -> Modality:
        if side not in (None, *SIDES):
            raise OptionError(f'side is {quote(side)}; it is "query" for what asks, or "document" for what is found.')
        if modality is None and (len(self.modalities) == 1 or side is not None):
            return self.modalities[0 if side == "query" else -1]
        if modality not in self.modalities:
            choices = " or ".join(f'modality="{name}"' for name in self.modalities)
            what = "takes more than one modality" if modality is None else f"does not take {quote(modality)}"
            raise OptionError(f"{self.info.name} {what}.\nSay {choices}.")
        return modality


def count_cut(preprocess: Preprocess, prepared: Sequence[Prepared]) -> int:
    """How many of some prepared texts were cut; 0 for what is no text."""
    return sum(map(preprocess.is_cut, prepared)) if isinstance(preprocess, TextPreprocess) else 0


def warn_of_cut(preprocess: Preprocess, cut: int, items: int) -> None:
    """Says how many texts were cut, if any were."""
    if cut and isinstance(preprocess, TextPreprocess):
        logger.warning(
            "%s of %s texts are longer than the %s tokens that are read of each: their ends were left out",
            f"{cut:,}", f"{items:,}", preprocess.max_length,
        )  # fmt: skip


def _check_texts(items: Sequence[object] | np.ndarray, start: int) -> None:
    for position, item in enumerate(items, start):
        if not isinstance(item, str):
            raise DataError(f"Item {position} is a {type(item).__name__}, not a text: {quote(item)}.")
