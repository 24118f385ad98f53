"""LoRA: a backbone stays as it is, and small matrices beside its layers are trained, by way of PEFT.

A layer y = W x becomes y = W x + (alpha / r) B A x, with A (r, in) drawn at random and B (out, r) zero, so that
training starts from the backbone as it was (Hu et al. 2021, https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetuner_core.errors import FolderError, OptionError, PluginError
from finetuner_core.untrusted import read_json
from finetuner_core.values import Option, OptionValue, quote

if TYPE_CHECKING:
    import peft

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

# What the file says beside that, without a meaning for the matrices.
_SAID = frozenset(
    ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "target_modules")
)

OPTIONS = (
    Option("alpha", "int", None, "The matrices' product is scaled by alpha / rank; 2 * rank where not set.", minimum=1),
    Option("dropout", "float", 0.0, "Share of the matrices' input that is dropped in training.", minimum=0),
    Option("targets", "str", None, "Ends of the names of the layers that get matrices, such as query,value; else all."),
)


def inject(encoders: nn.ModuleDict, rank: int, options: Mapping[str, OptionValue]) -> None:
    """Puts matrices beside the layers of the backbone, in place.

    Args:
        encoders: a tower's encoders; poolings and projections are trained in any case and get none.
        rank: r, the matrices' smaller side.
        options: a value for each of `OPTIONS`.

    Raises:
        PluginError: if PEFT is not installed.
        OptionError: if there is no layer of the kind, or PEFT cannot wrap one.
    """
    _require_peft()
    import peft

    if has_matrices(encoders):
        raise OptionError("The model has LoRA matrices already; they are trained further without lora.")
    targets = _targets(encoders, options["targets"])
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=cast("int | None", options["alpha"]) or 2 * rank,
        lora_dropout=cast("float", options["dropout"]),
        target_modules=targets,
    )
    try:
        peft.inject_adapter_in_model(config, encoders)
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"PEFT cannot put LoRA beside these layers: {reason}\nName others: targets=...") from error


def has_matrices(module: nn.Module) -> bool:
    """Whether a module has LoRA's matrices."""
    return any(is_matrix(name) for name, _ in module.named_parameters())


def is_matrix(name: str) -> bool:
    """Whether a parameter of that name is one of LoRA's matrices.

    >>> is_matrix("layer.0.query.lora_A.default.weight"), is_matrix("layer.0.query.base_layer.weight")
    (True, False)
    """
    return ".lora_" in name


def merged(network: nn.Module, encoders: nn.ModuleDict) -> nn.Module:
    """The network as it is without matrices beside it: a copy with their products added to its weights, if it has any.

    Args:
        network: a backbone.
        encoders: those that hold its layers.
    """
    if not has_matrices(encoders):
        return network
    # Copied together, so that the copies share what the originals do.
    network, encoders = copy.deepcopy((network, encoders))
    plain: dict[nn.Module, nn.Module] = {}
    for root in (encoders, network):
        _take_out(root, plain)
    return network


def _take_out(module: nn.Module, plain: dict[nn.Module, nn.Module]) -> None:
    """Puts each wrapped layer itself, with what its matrices add, in its place; `plain` has those that are done."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, child in module.named_children():
        if not isinstance(child, BaseTunerLayer):
            _take_out(child, plain)
            continue
        if child not in plain:
            # Attention of torch's own kind has to be put together anew.
            put_together = getattr(child, "unload_and_optionally_merge_module", None)
            if put_together is None:
                child.merge()
                plain[child] = child.get_base_layer()
            else:
                plain[child] = put_together(merge=True, safe_merge=False, adapter_names=None)
        setattr(module, name, plain[child])


def write(encoders: nn.ModuleDict, folder: Path) -> None:
    """Writes the matrices in PEFT's format."""
    import peft

    tensors: dict[str, Tensor] = peft.get_peft_model_state_dict(encoders, save_embedding_layers=False)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / ADAPTER_FILE)
    configs: Mapping[str, peft.LoraConfig] = vars(encoders)["peft_config"]
    configs["default"].save_pretrained(str(folder))


def read(encoders: nn.ModuleDict, folder: Path) -> None:
    """Puts the matrices that `write` has written beside the layers, in place.

    Raises:
        PluginError: if PEFT is not installed.
        FolderError: if they cannot be read, or do not fit.
    """
    _require_peft()
    import peft

    try:
        tensors = load_file(folder / ADAPTER_FILE)
        config = _read_config(folder, tensors)
        peft.inject_adapter_in_model(config, encoders)
        expected = {name: tensor.shape for name, tensor in peft.get_peft_model_state_dict(encoders).items()}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        wrong = sorted(name for name, _ in expected.items() ^ found.items())
        if not wrong:
            peft.set_peft_model_state_dict(encoders, tensors)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise FolderError(f"The adapter in {folder} cannot be read: {str(error).splitlines()[0]}") from error
    if wrong:
        raise FolderError(f"The adapter in {folder} does not fit its backbone, in {wrong[0]}.")


def _read_config(folder: Path, tensors: Mapping[str, Tensor]) -> peft.LoraConfig:
    """What `inject` sets, and nothing else: of PEFT's settings some are patterns to match, or modules to import.

    Raises:
        ValueError: if they are not what they have to be, or others are set.
    """
    import peft

    given = read_json(folder / CONFIG_FILE, strict=True)
    if not isinstance(given, dict):
        raise ValueError(f"{CONFIG_FILE} holds no object")
    alpha: Any = given.get("lora_alpha")
    dropout: Any = given.get("lora_dropout")
    rank, targets = given.get("r"), given.get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError(f"target_modules is {quote(targets)}, no list of names")
    if type(rank) is not int or any(rank != tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name):
        raise ValueError(f"r is {quote(rank)}, which is not the rank of its matrices")
    if type(alpha) not in (int, float) or type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise ValueError(f"lora_alpha is {quote(alpha)} and lora_dropout {quote(dropout)}")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    own = json.loads(json.dumps(config.to_dict(), default=list))  # type: ignore[no-untyped-call]
    other = [name for name in given if name not in _SAID and name in own and given[name] != own[name]]
    if other:
        raise ValueError(
            f"{other[0]} is {quote(given[other[0]])}, and Finetuner's adapters have {quote(own[other[0]])}"
        )
    return config


def fingerprint(encoders: nn.ModuleDict) -> str:
    """SHA-256 over the backbone's weights, by which an adapter knows the one that it was trained beside."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoders.state_dict().items()):
        if ".extractor." in name and not is_matrix(name):
            digest.update(name.replace(".base_layer.", ".").encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    flat: Tensor = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _targets(encoders: nn.ModuleDict, wanted: OptionValue) -> list[str]:
    """Names of the layers that get matrices: every linear one, or every convolution of a network that has none."""
    layers = {name: module for name, module in encoders.named_modules() if ".extractor." in f".{name}."}
    # Attention of torch's own kind calls none of its inner layers: it is wrapped whole.
    whole = [name for name, module in layers.items() if isinstance(module, nn.MultiheadAttention)]
    inside = tuple(f"{name}." for name in whole)
    plain = {name: module for name, module in layers.items() if not name.startswith(inside)} if inside else layers
    linear = [name for name, module in plain.items() if isinstance(module, nn.Linear)]
    convolutions = [name for name, m in plain.items() if isinstance(m, nn.Conv1d | nn.Conv2d) and m.groups == 1]
    found = sorted(whole + linear) or convolutions
    if wanted:
        ends = tuple(end.strip() for end in str(wanted).split(","))
        found = [name for name in layers if name.endswith(ends) and name in {*whole, *linear, *convolutions}]
    if not found:
        names = sorted({name.rpartition(".")[2] for name in linear or convolutions})
        what = f"No layer's name ends in {wanted}" if wanted else "The backbone has no layer that LoRA can stand beside"
        raise OptionError(f"{what}.\nIts layers end in: {', '.join(names) or 'none'}.")
    return found


def _require_peft() -> None:
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise PluginError(
            f"LoRA needs PEFT, which cannot be imported: {error}.\nInstall it: pip install finetuner-core[lora]"
        ) from None
