"""What a sentence-transformers repository declares beside its network: pooling, layers, prompts, how texts are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from safetensors.torch import save_file
from torch import nn

from finetuner_core.artifacts.folder import is_saved_model
from finetuner_core.catalogue.names import is_path
from finetuner_core.plugin import WeightsError
from finetuner_core.values import quote
from finetuner_hf.hub import not_whole, read_json, read_weights
from finetuner_hf.layers import LAYERS, MODES, DeclaredPooling, Dense, Layer, Normalize, Settings, UndeclaredError
from finetuner_hf.prompts import FILE as PROMPTS_FILE
from finetuner_hf.prompts import Prompts

# A Transformer module's settings stand in the first of these that is there.
_SETTINGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")

# A pooling module says its modes in a word or a list of them; in older files by a flag of each, in this order.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

# What a Transformer module may ask of transformers without another vector coming out.
_HARMLESS = frozenset(
    ("attn_implementation", "device_map", "dtype", "padding_side", "torch_dtype", "trust_remote_code", "use_cache")
)

# Three models whose prompts are not pooled, although their files do not say so: sentence-transformers knows them too.
_INSTRUCTORS = ("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl")

# Under which names that library is told of what the core puts behind a backbone's vector.
_PROJECTION = ("projection", "projection_normalize")

# Where the declared width is kept if a projection follows it: that library's own key is for the very end.
_WIDTH_BEFORE = "truncate_dim_before_projection"

# How sentence-transformers calls the core's poolings.
MODE_OF_POOLING = {"mean": "mean", "max": "max", "cls": "cls", "last": "lasttoken", "weighted_mean": "weightedmean"}


@dataclass(frozen=True)
class LayerFile:
    """A layer as it is declared.

    Args:
        kind: its name in `LAYERS`.
        path: the folder of its files.
        settings: what is set.
    """

    kind: str
    path: str
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    """What is declared.

    Args:
        modes: how tokens are pooled, in the words of sentence-transformers; empty where nothing is declared.
        layers: what follows the pooling.
        truncate_dim: how many numbers of the vector are kept.
        pool_prompt: whether a prompt's tokens enter the pooling.
        refused: what is declared and not understood, in words for a person.
        max_length: how many tokens of a text are read.
        lower_case: whether texts are put in lower case.
        prompts: what is put before them.
    """

    modes: tuple[str, ...] = ()
    layers: tuple[LayerFile, ...] = ()
    truncate_dim: int | None = None
    pool_prompt: bool = True
    refused: str = ""
    max_length: int | None = None
    lower_case: bool = False
    prompts: Prompts = field(default_factory=Prompts)

    @staticmethod
    def of_pooling(name: str) -> Declaration:
        """What says that tokens are pooled as the core does; nothing where that library has no word for it."""
        if name not in MODE_OF_POOLING:
            return Declaration()
        return Declaration((MODE_OF_POOLING[name],), (LayerFile("Normalize", "2_Normalize"),))

    def build(self, dim: int) -> DeclaredPooling:
        """Pooling and layers, with random weights.

        Args:
            dim: width of the tokens.

        Raises:
            UndeclaredError: if they do not fit together.
        """
        width, layers = dim * len(self.modes), []
        for file in self.layers:
            layers.append(LAYERS[file.kind](file.settings, width))
            width = layers[-1].width
        return DeclaredPooling(dim, self.modes, layers, self.truncate_dim)


def read_declaration(name: str) -> Declaration:
    """What the repository or folder of that name declares.

    Raises:
        WeightsError: if its files are not as sentence-transformers writes them.
    """
    general = _settings(name, PROMPTS_FILE)
    prompts = Prompts.read(name, general)
    modules = read_json(name, "modules.json")
    if modules is None:
        return Declaration(prompts=prompts)
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise WeightsError(f"{name}: modules.json is not as sentence-transformers writes it.\nMend the file.")
    truncate_dim = _count(general, "truncate_dim")
    if is_path(name) and is_saved_model(name) and modules[-1].get("name") == _PROJECTION[-1]:
        # The core, which wrote this folder, adds its projection itself.
        modules, truncate_dim = modules[: -len(_PROJECTION)], _count(general, _WIDTH_BEFORE)
    found = (_settings(name, f"sentence_{kind}_config.json") for kind in _SETTINGS)
    reading = next((settings for settings in found if settings), {})
    try:
        _check_family(general)
        _check_reading(reading)
        modes, pool_prompt = _pooling(name, modules)
        layers = tuple(_layer(name, module) for module in modules[2:])
        refused = ""
    except UndeclaredError as error:
        modes, pool_prompt, layers, refused = (), True, (), str(error)
    return Declaration(
        modes=modes,
        layers=layers,
        truncate_dim=truncate_dim,
        pool_prompt=pool_prompt and name not in _INSTRUCTORS,
        refused=refused,
        max_length=_count(reading, "max_seq_length"),
        lower_case=reading.get("do_lower_case") is True,
        prompts=prompts,
    )


def load_layers(name: str, declaration: Declaration, pooling: DeclaredPooling) -> None:
    """Gives the layers the weights of the repository.

    Raises:
        WeightsError: if they are not there, or do not fit.
    """
    for file, layer in zip(declaration.layers, pooling.layers, strict=True):
        if layer.state_dict():
            try:
                layer.load_state_dict(read_weights(name, file.path))
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise WeightsError(
                    f"{name}: the weights in {file.path} do not fit: {reason}\nFetch or save it anew."
                ) from None


def write_declaration(
    folder: Path,
    declaration: Declaration,
    pooling: DeclaredPooling,
    dim: int,
    limit: int,
    projection: nn.Linear | None = None,
) -> None:
    """Writes the files by which sentence-transformers, and `read_declaration`, know it; the prompts apart.

    Args:
        folder: that of the network.
        declaration: what to write.
        pooling: what it describes, for its weights.
        dim: width of the tokens.
        limit: how many tokens of a text are read.
        projection: a layer that follows, before the vector is scaled to length 1.
    """
    layers = [(str(number), layer) for number, layer in enumerate(pooling.layers, 2)]
    if projection is not None:
        width = pooling.layers[-1].width if pooling.layers else dim * len(declaration.modes)
        assert isinstance(width, int)
        behind = (_dense(projection, width), Normalize({}, projection.out_features))
        layers += list(zip(_PROJECTION, behind, strict=True))
    places = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    places += [
        (name, f"{number}_{type(layer).__name__}", type(layer).__name__)
        for number, (name, layer) in enumerate(layers, 2)
    ]
    modules = [
        # The names of its first releases, which the newest still know.
        {"idx": number, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (name, path, kind) in enumerate(places)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    _write(folder / "1_Pooling" / "config.json", _pooling_settings(declaration, dim))
    for (_, path, _), (_, layer) in zip(places[2:], layers, strict=True):
        assert isinstance(layer, Layer)
        _write(folder / path / "config.json", layer.settings)
        if weights := {key: tensor.detach().cpu().contiguous() for key, tensor in layer.state_dict().items()}:
            save_file(weights, folder / path / "model.safetensors", metadata={"format": "pt"})


def write_prompts(folder: Path, prompts: Prompts, truncate_dim: int | None, *, projected: bool = False) -> None:
    """Writes the prompts and the width.

    Args:
        folder: that of the network.
        prompts: what is put before texts.
        truncate_dim: how many numbers of the vector are kept, `None` for all.
        projected: whether a projection follows those.
    """
    key = _WIDTH_BEFORE if projected else "truncate_dim"
    prompts.write(folder, {} if truncate_dim is None else {key: truncate_dim})


def _dense(projection: nn.Linear, width: int) -> Dense:
    """A projection as that library has it, over a vector that may be wider: the rest of it counts for nothing."""
    settings = {
        "in_features": width,
        "out_features": projection.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    layer = Dense(settings, width)
    with torch.no_grad():
        layer.linear.weight.zero_()[:, : projection.in_features].copy_(projection.weight)
        layer.linear.bias.copy_(projection.bias)
    return layer


def _pooling_settings(declaration: Declaration, dim: int) -> Settings:
    modes = declaration.modes
    settings: dict[str, object] = {"word_embedding_dimension": dim}
    if modes == tuple(mode for mode in MODES if mode in modes):
        settings |= {flag: mode in modes for flag, mode in _FLAGS.items()}
    else:
        # Flags have an order of their own.
        settings["pooling_mode"] = list(modes)
    return settings | {"include_prompt": declaration.pool_prompt}


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _count(settings: Settings, key: str) -> int | None:
    value = settings.get(key)
    return value if type(value) is int and value > 0 else None


def _settings(name: str, file: str) -> Settings:
    content = read_json(name, file)
    return content if isinstance(content, dict) else {}


def _check_family(general: Settings) -> None:
    if (family := general.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise UndeclaredError(f"a {family}, which gives no vector of a text")


def _check_reading(reading: Settings) -> None:
    """Whether a Transformer module feeds its network as this plugin does."""
    if (task := reading.get("transformer_task", "feature-extraction")) != "feature-extraction":
        raise UndeclaredError(f'a network for "{task}"')
    ways = reading.get("modality_config") or {}
    plain = {"method": "forward", "method_output_name": "last_hidden_state"}
    for way, how in ways.items() if isinstance(ways, Mapping) else ():
        if way == "message":
            raise UndeclaredError("texts that are put into a chat template")
        if way == "text" and how != plain:
            raise UndeclaredError(f"a network that is called in another way: {how}")
    for group in ("model", "processor", "tokenizer", "config"):
        for suffix in ("args", "kwargs"):
            asked = reading.get(f"{group}_{suffix}") or {}
            if unknown := set(asked if isinstance(asked, Mapping) else ()) - _HARMLESS:
                raise UndeclaredError(f"{group}_{suffix} with {', '.join(sorted(unknown))}")
    for key in ("processing_kwargs", "query_length", "document_length", "query_expansion"):
        if reading.get(key):
            raise UndeclaredError(f"the setting {key}")


def _pooling(name: str, modules: Sequence[Mapping[str, object]]) -> tuple[tuple[str, ...], bool]:
    kinds = [_kind(module) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise UndeclaredError(f"the modules {', '.join(kinds)}")
    if path := _folder(modules[0]):
        raise UndeclaredError(f'a network in the folder "{path}"')
    file = f"{_folder(modules[1])}/config.json"
    settings = _settings(name, file)
    if not settings:
        raise not_whole(name, file)
    asked = settings.get("pooling_mode")
    if asked is None:
        flags = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
        asked = [mode for flag, mode in _FLAGS.items() if flag in flags]
        asked += [flag for flag in flags if flag not in _FLAGS]
    modes = (asked,) if isinstance(asked, str) else tuple(map(str, asked)) if isinstance(asked, list) else ()
    for mode in modes:
        if mode not in MODES:
            raise UndeclaredError(f"the pooling {mode}")
    return modes or ("mean",), settings.get("include_prompt") is not False


def _layer(name: str, module: Mapping[str, object]) -> LayerFile:
    kind, path = _kind(module), _folder(module)
    if kind not in LAYERS:
        raise UndeclaredError(f"the module {kind}")
    return LayerFile(kind, path, _settings(name, f"{path}/config.json"))


def _folder(module: Mapping[str, object]) -> str:
    """Where a module's files are, which is inside of the repository."""
    path = str(module.get("path") or "")
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
        raise UndeclaredError(f"a folder outside of the repository, {quote(path)}")
    return path


def _kind(module: Mapping[str, object]) -> str:
    """The name of a module of that library's own; whatever else it is, its whole type."""
    kind = str(module.get("type"))
    return kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind


def build_on_meta(declaration: Declaration, dim: int) -> DeclaredPooling:
    """Pooling and layers without numbers, to count them.

    Raises:
        UndeclaredError: if they do not fit together.
    """
    with torch.device("meta"):
        return declaration.build(dim)
