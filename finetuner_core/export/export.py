"""`export`: a model as ONNX, measured against its own vectors before it is there."""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from finetuner_core.artifacts.folder import check_writable, replace_folder, write_json
from finetuner_core.artifacts.saved import find_row, model_name
from finetuner_core.catalogue.quiet import quiet_libraries
from finetuner_core.encoding.items import as_column
from finetuner_core.errors import ExportError, OptionError
from finetuner_core.export.graph import OUTPUT, Session, axes_of, need_libraries, write_graph
from finetuner_core.export.int8 import check_cosine, cosines, write_int8
from finetuner_core.export.parts import Part, parts_of, samples
from finetuner_core.interfaces import PortablePreprocess
from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.values import Modality, quote

FILE = "export.json"
FORMAT_VERSION = 1
TOLERANCE = 1e-4
"""How much a number of a vector may differ from the model's own."""

_MOST = 256  # items that are measured on
_BATCH = 5  # and how many at a time: of other lengths than the batch that the network was followed on


@dataclass(frozen=True)
class Exported:
    """One file of an export.

    Args:
        file: the graph, within the folder.
        items: how many items it was measured on.
        difference: the largest between a number of its vectors and of the model's, before int8.
        cosine: of its vectors to the model's, the mean; 1 in float32.
        least_cosine: the least.
        int8: whether its matrices are in int8.
    """

    file: str
    items: int
    difference: float
    cosine: float
    least_cosine: float
    int8: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Args:
        path: the folder.
        parts: its graphs.
    """

    path: Path
    parts: tuple[Exported, ...]


def export(
    model: EmbeddingModel | str | Path,
    out: str | Path,
    *,
    to: str = "onnx",
    int8: bool = False,
    data: Any = None,
    column: str | None = None,
    modality: Modality | None = None,
    encoding: str | None = None,
) -> ExportResult:
    """Writes a whole model, pooling, projection and scaling included, so that it computes without Finetuner and torch.

    The folder holds a graph for each encoder (`model.onnx`; in a folder each for texts and images, or for what asks and
    what is found), the tokenizer as `tokenizer.json`, and `export.json`, which says how the graphs are fed. Before the
    folder is there, onnxruntime's vectors are compared with the model's.

    Args:
        model: a model, the folder of a saved one, or a name.
        out: a folder that does not exist, is empty, or holds an export, which is then replaced.
        to: the form, `"onnx"`.
        int8: whether matrices and tables are written in int8: a quarter of the size, and other vectors by a little.
        data: items to compare the vectors on, in any form that `encode` takes; else a few are made up.
        column: which column of the data.
        modality: what the items are, for a model that takes more than one.
        encoding: of a file of text.

    Returns:
        What was written, with the differences.

    Raises:
        ExportError: if the network cannot be followed, or the vectors differ by more than 0.0001 (float32), or have a
            mean cosine below 0.9 (int8).
        FinetunerError: if the model or the data cannot be had, or the folder cannot be written.
    """
    if to != "onnx":
        raise OptionError(f"to is {quote(to)}; a model can be exported to onnx.")
    path = check_writable(out, FILE)
    info = model.info if isinstance(model, EmbeddingModel) else find_row(model_name(model))
    given = None if data is None else as_column(data, info, column, modality, encoding)[0]
    need_libraries()
    if not isinstance(model, EmbeddingModel):
        model = build_model(model_name(model))
    parts = parts_of(model)
    exported: list[Exported] = []

    def write(folder: Path) -> None:
        described = []
        for part in parts:
            items = None if given is None or given.modality != part.modality else given.take(range(len(given))[:_MOST])
            made, told = _write_part(part, folder, items, int8=int8)
            exported.append(made)
            described.append(told)
        content = {
            "format_version": FORMAT_VERSION,
            "model": info.full_name,
            "output_dim": model.output_dim,
            "dtype": "int8" if int8 else "float32",
            "parts": described,
            "versions": _versions(),
        }
        files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        write_json(folder / FILE, {**content, "files": files})

    replace_folder(path, write)
    return ExportResult(path, tuple(exported))


def _write_part(part: Part, folder: Path, items: Any, *, int8: bool) -> tuple[Exported, dict[str, object]]:
    """Writes one graph and measures it; what it was found to be, and what `export.json` says of it."""
    own = folder / part.folder
    own.mkdir(exist_ok=True)
    told = _feeding(part, own)
    prepared = part.preprocess.prepare(samples(part, told) if items is None else items)
    if len(prepared) < 4:
        raise ExportError(f"{len(prepared)} items are too few to compare vectors on; give 4 or more (data).")
    encoder = copy.deepcopy(part.encoder).cpu().eval()
    axes = axes_of(part.preprocess, prepared)
    batch = part.preprocess.collate(sorted(prepared, key=part.preprocess.length)[-3:])
    file = own / "model.onnx"
    with quiet_libraries():
        write_graph(encoder, batch, axes, file)
    expected = _by_torch(part, encoder, prepared)
    found = Session(file).vectors(part.preprocess, prepared, _BATCH)
    difference = float(np.abs(found - expected).max())
    what = part.folder or f"{part.modality}s"
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The graph of {what} gives other vectors than the model: a number differs by {difference:.2g}, and "
            f"{TOLERANCE} is allowed.\nOpen the saved folder in its own library instead; its card (README.md) says how."
        )
    mean, least = cosines(expected, found)
    if int8:
        whole = file.with_name("float32.onnx")
        file.rename(whole)
        write_int8(whole, file)
        for left in own.glob("float32.onnx*"):
            left.unlink()
        mean, least = cosines(expected, Session(file).vectors(part.preprocess, prepared, _BATCH))
        check_cosine(mean, least, what)
    name = file.relative_to(folder).as_posix()
    made = Exported(name, len(prepared), difference, mean, least, int8)
    dtypes = {key: str(tensor.numpy().dtype) for key, tensor in batch.items()}
    return made, {
        "modality": part.modality,
        "side": part.side,
        **asdict(made),
        "inputs": [{"name": key, "dtype": dtypes[key], "shape": shape} for key, shape in axes.items()],
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", part.encoder.output_dim]},
        "feeding": told,
    }


def _feeding(part: Part, folder: Path) -> dict[str, Any]:
    """What a preprocess says of itself, and what differs for what asks and for what is found."""
    if not isinstance(part.preprocess, PortablePreprocess):
        return {}
    usual = dict(part.preprocess.export(folder))
    sides: dict[str, Mapping[str, object]] = {}
    for side, preprocess in part.sides.items():
        if isinstance(preprocess, PortablePreprocess):
            own = preprocess.export(folder)
            sides[side] = {name: value for name, value in own.items() if usual.get(name) != value}
    return json.loads(json.dumps({**usual, **({"sides": sides} if sides else {})}))  # type: ignore[no-any-return]


def _by_torch(part: Part, encoder: Any, prepared: Any) -> np.ndarray:
    """The model's own vectors, computed as `encode` does, without padding where it can."""
    import torch

    with torch.inference_mode():
        parts = [
            encoder(part.preprocess.collate(prepared[start : start + _BATCH]))
            for start in range(0, len(prepared), _BATCH)
        ]
    vectors: np.ndarray = torch.cat(parts).numpy()
    return vectors


def _versions() -> dict[str, str]:
    names = ("finetuner-core", "torch", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
