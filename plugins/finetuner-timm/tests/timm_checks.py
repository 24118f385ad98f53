"""Everything that is to hold of one architecture, against networks that timm itself has made.

The sweep runs this over all of timm, the tests over the tiny models and one small model of each family.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from finetuner_core.errors import FinetunerError, OptionError
from finetuner_core.interfaces import LoadedBackbone
from finetuner_core.plugin import BackboneInfo
from finetuner_timm import plugin
from finetuner_timm.library import timm
from finetuner_timm.undrawn import undrawn
from finetuner_timm.unused import forget

SAME = 0.99999
TOO_LARGE = "Larger than the limit of the sweep"
SIZES = (64, 56, 96, 128, 192, 256)
"""Sides of images that are tried from the smallest on, until the network sees at least 3 x 3 tokens."""

_DRAWN = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))


@dataclass
class Finding:
    """What was found out of an architecture.

    Args:
        name: as timm calls it.
        outcome: `right`, `refused` with a reason, or `wrong`.
        reason: why it was refused, or what is wrong.
        recipe: what the usual recipe gives (`recipe_of`).
    """

    name: str
    family: str
    outcome: str = "right"
    reason: str = ""
    width: int | None = None
    parameters: int | None = None
    poolings: tuple[str, ...] = ()
    size: int | None = None
    checks: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def draw(network: nn.Module, pixels: Tensor) -> None:
    """Gives every parameter and every batch statistic something to do, so that a part left out shows.

    As timm initialises networks, some layers are zero and most norms do nothing; and then neither an output nor a
    gradient would tell whether they are there. The statistics are those of some images: else what differs between
    images is lost on the way through a deep network.
    """
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            noise = _noise(parameter, number * 7919)
            if parameter.ndim < 2 or parameter[0].numel() == 1:  # biases, scales and gains
                parameter.nan_to_num_(0, 0, 0).clamp_(-2, 2).add_(noise, alpha=0.1)
            else:
                parameter.copy_(noise).mul_(max(1.4 * parameter[0].numel() ** -0.5, 0.02))
            if parameter.ndim == 4 and parameter[0].numel() > 1 and parameter.shape[2] % 2 and parameter.shape[3] % 2:
                # Convolutions look at the middle most, as trained ones do; else it is soon lost what was where.
                middle = parameter[:, :, parameter.shape[2] // 2, parameter.shape[3] // 2]
                middle.mul_((parameter.shape[2] * parameter.shape[3]) ** 0.5)
                parameter.mul_(0.2)
                middle.mul_(5)
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train()
            norm.momentum = 0.9
        if norms:
            network(pixels)
        for norm in norms:
            norm.eval()


def _noise(like: Tensor, position: int) -> Tensor:
    """The same numbers over and over, which is as good here and costs no more than to copy them."""
    start, count = position % _DRAWN.numel(), like.numel()
    drawn = _DRAWN.roll(-start) if count < _DRAWN.numel() else _DRAWN
    return drawn.repeat(-(-count // drawn.numel()))[:count].view(like.shape)


def check(name: str, *, limit: int | None = None, save_limit: int = 30_000_000) -> Finding:
    """Checks one architecture.

    Args:
        name: of timm.
        limit: the number of parameters beyond which it is not built.
        save_limit: the same for being saved and opened again.
    """
    started = time.perf_counter()
    finding = Finding(name, timm.models.model_entrypoint(name).__module__.rpartition(".")[2])
    try:
        row = _row(finding, limit)
        if not _passes(finding, row, SIZES, save_limit):
            # Few tokens can hide what is there: where the smallest images fail, the model's own decide.
            _passes(finding, row, (), save_limit)
    except FinetunerError as error:
        finding.outcome, finding.reason = "refused", " ".join(str(error).split())
    except Exception as error:  # whatever it is, it is a finding
        finding.outcome, finding.reason = "wrong", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    finding.seconds = round(time.perf_counter() - started, 2)
    return finding


def _row(finding: Finding, limit: int | None) -> BackboneInfo:
    row = plugin.find_backbone(finding.name)
    if row is None:
        raise AssertionError("timm lists it, and find_backbone does not find it")
    finding.width, finding.parameters, finding.poolings = row.output_dim, row.parameters, row.poolings
    if limit is not None and row.parameters is not None and row.parameters > limit:
        raise FinetunerError(f"{TOO_LARGE}: {row.parameters:,} parameters.")
    return row


def _passes(finding: Finding, row: BackboneInfo, sizes: Sequence[int], save_limit: int) -> bool:
    finding.checks.clear()
    _check(finding, row, sizes, save_limit)
    bad = {key: value for key, value in finding.checks.items() if value != "right"}
    finding.outcome = "wrong" if bad else "right"
    finding.reason = "; ".join(f"{key}: {value}" for key, value in bad.items())
    return not bad


def _check(finding: Finding, row: BackboneInfo, sizes: Sequence[int], save_limit: int) -> None:
    size, loaded, extractor = _smallest(row, sizes)
    side = loaded.preprocess["image"].image_size  # type: ignore[attr-defined]
    finding.size = side[0]
    twin = _twin(row.name, size)
    pixels = _pixels(*side)
    draw(twin, pixels)
    if not sizes:
        # Where random weights make large numbers of small ones, what single precision rounds away shows.
        twin, pixels = twin.double(), pixels.double()
    weights = twin.state_dict()
    with torch.no_grad():
        expected = twin(pixels)
    finding.recipe = recipe_of(twin, pixels, expected)
    checks = finding.checks

    if row.has_tokens:
        tokens = _given(extractor, weights, pixels)
        checks["tokens"] = _is(
            tokens.ndim == 3 and tokens.shape[2] == extractor.dim and bool(tokens.isfinite().all()),
            f"{tuple(tokens.shape)}, a width of {extractor.dim}",
        )
        checks["order"] = _order(lambda x: extractor({"pixels": x.to(pixels.dtype)}).tokens, side)
        if checks["order"] != "right" and _stands_as_in_a_map(twin, pixels, tokens):
            checks["order"] = "right"
        checks["token gradient"] = _gradients(extractor, pixels, twin)
        if "cls" in row.poolings:
            _, extractor = _built(row, "cls", size)
            with_class = _given(extractor, weights, pixels)
            checks["class"] = _is(
                with_class.shape[1] == tokens.shape[1] + 1 and torch.equal(with_class[:, 1:], tokens),
                f"{tuple(with_class.shape)}",
            )
            if getattr(twin, "global_pool", "") == "token" and "istilled" not in type(twin).__name__:
                checks["class is native"] = _alike(with_class[:, 0], expected)
            checks["class gradient"] = _gradients(extractor, pixels, twin)
        has_head = extractor.layout.has_head
        loaded, extractor = _built(row, "native", size)

    native = _given(extractor, weights, pixels)
    checks["width"] = _is(native.shape == (2, 1, row.output_dim), f"{tuple(native.shape)}")
    if size is None:  # at another size there are more or fewer positions
        count = sum(parameter.numel() for parameter in extractor.parameters())
        checks["parameters"] = _is(count == row.parameters, f"{count}")
    checks["native"] = _alike(native[:, 0], expected)
    checks["native gradient"] = _gradients(extractor, pixels, twin)
    if row.parameters is not None and row.parameters <= save_limit and sizes:
        checks["saved"] = _saved(row, loaded, pixels, expected)
    if row.has_tokens:
        checks["unpooled"] = _unpooled(twin, pixels, tokens, has_head)


def _smallest(row: BackboneInfo, sizes: Sequence[int]) -> tuple[int | None, LoadedBackbone, Any]:
    """The side of the smallest images that it takes, and an extractor for it: of tokens, if it has any."""
    pooling = "mean" if row.has_tokens else "native"
    failures = 0
    for size in sizes:
        try:
            loaded, extractor = _built(row, pooling, size)
        except OptionError:
            failures += 1
            if failures == 3:
                break
            continue
        side = loaded.preprocess["image"].image_size  # type: ignore[attr-defined]
        if side != (size, size):
            break
        if row.has_tokens:
            with torch.no_grad():
                if extractor({"pixels": torch.zeros(1, 3, *side)}).tokens.shape[1] < 9:
                    continue
        return size, loaded, extractor
    return (None, *_built(row, pooling, None))


@contextmanager
def _unset() -> Iterator[None]:
    """`undrawn`, and not even the arithmetic around the draw."""
    leave: Callable[..., Tensor] = lambda tensor, *_, **__: tensor  # noqa: E731
    with (
        undrawn(),
        mock.patch.object(nn.init, "_no_grad_trunc_normal_", leave),
        mock.patch.object(timm.layers.weight_init, "_trunc_normal_", leave),
    ):
        yield


def _built(row: BackboneInfo, pooling: str, size: int | None) -> tuple[LoadedBackbone, Any]:
    with _unset():
        loaded = plugin.load_backbone(row, False, {"image_size": size})
        return loaded, plugin.strip_head(row, loaded, pooling)["image"]


def _twin(name: str, size: int | None) -> nn.Module:
    """A network that timm alone has made."""
    told = {"model_name": name}
    if size is not None:
        told = timm.models.resolve_model_input_args(name, {"img_size": size})
    with _unset():
        network: nn.Module = timm.create_model(num_classes=0, **told).eval()
    return network


def _given(extractor: Any, weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """What the extractor makes of images with these weights, which are now its own: no copies."""
    extractor.to(pixels.dtype).network.load_state_dict(weights, assign=True)
    extractor.requires_grad_(True)
    forget(extractor)
    with torch.no_grad():
        tokens: Tensor = extractor({"pixels": pixels}).tokens
    return tokens


def _pixels(height: int, width: int, seed: int = 1) -> Tensor:
    """Two images that are unlike each other: noise, and waves under noise."""
    y, x = torch.linspace(0, 9, height).view(-1, 1), torch.linspace(0, 7, width)
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    pixels[1] = pixels[1] / 4 + torch.stack([(x + y).sin(), (x * y / 4).cos() - 1, (x - y).sin() + 1])
    return pixels


def _is(holds: bool, otherwise: str) -> str:
    return "right" if holds else otherwise


def _alike(ours: Tensor, theirs: Tensor) -> str:
    if ours.shape != theirs.shape:
        return f"{tuple(ours.shape)} and not {tuple(theirs.shape)}"
    ours, theirs = ours.double(), theirs.double()
    if not bool(theirs.isfinite().all()) or (theirs[0] - theirs[1]).norm() < 1e-5 * theirs[0].norm():
        return "not told: random weights give the same for all images"
    cosine = torch.cosine_similarity(ours, theirs, dim=-1).min().item()
    # Vectors that have much in common are alike whatever happens; their difference is not.
    between = torch.cosine_similarity(ours[0] - ours[1], theirs[0] - theirs[1], dim=0).item()
    return _is(cosine >= SAME and between > 0.99, f"cosine {cosine:.6f}, of differences {between:.4f}")


def _gradients(extractor: Any, pixels: Tensor, twin: nn.Module) -> str:
    """Whether every parameter of the extractor gets a gradient that is not zero, one after the other.

    Some have none by the nature of the network: what is the same for all positions before a softmax changes nothing,
    in timm's own network neither.
    """
    forget(extractor)
    missing = dict(extractor.named_parameters())
    names = {id(parameter): name for name, parameter in missing.items()}

    def seen(parameter: Tensor) -> None:
        if 0 < float(parameter.grad.abs().sum()) < float("inf"):  # type: ignore[union-attr]
            missing.pop(names[id(parameter)], None)
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(seen) for parameter in extractor.parameters()]
    tokens = extractor({"pixels": pixels[:1]}).tokens
    vectors = tokens[:, 0] if getattr(extractor, "with_class", False) else tokens.mean(1)
    scale = vectors.detach().abs().max().clamp(min=1e-30)
    ((vectors / scale) * torch.linspace(-1, 2, vectors.shape[1])).sum().backward()
    for hook in hooks:
        hook.remove()
    with_class = getattr(extractor, "with_class", False)
    if len(missing) <= 8:
        own = {name: name.removeprefix("network.") for name in missing}
        missing = {name: it for name, it in missing.items() if _matters(twin, own[name], pixels, with_class=with_class)}
    return _is(not missing, f"none for {len(missing)}: {', '.join(list(missing)[:4])}")


def _matters(twin: nn.Module, name: str, pixels: Tensor, *, with_class: bool) -> bool:
    """Whether another value of a parameter changes timm's embedding, or timm's class token."""

    def given() -> Tensor:
        vectors: Tensor = twin.forward_features(pixels)[:, 0] if with_class else twin(pixels)  # type: ignore[operator]
        return vectors

    parameter = twin.get_parameter(name)
    with torch.no_grad():
        kept, before = parameter.clone(), given()
        parameter.add_(1)
        forget(twin)
        changed = (given() - before).norm() > 1e-4 * before.norm()
        parameter.copy_(kept)
        forget(twin)
    return bool(changed)


def _saved(row: BackboneInfo, loaded: LoadedBackbone, pixels: Tensor, expected: Tensor) -> str:
    """Whether what is saved opens here and in timm, and gives the same vectors."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), _unset():
        loaded.save(loaded.network, Path(folder))
        saved = replace(row, name=folder)
        opened = plugin.load_backbone(saved, True, {"image_size": None})
        extractor = plugin.strip_head(saved, opened, "native")["image"]
        ours = _alike(extractor({"pixels": pixels}).tokens[:, 0], expected)
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return ours if ours != "right" else _alike(theirs(pixels), expected)


def _order(tokens_of: Callable[[Tensor], Tensor], side: Sequence[int]) -> str:
    """Whether a change in a corner of an image shows in the tokens of that corner more than in those of the others.

    Tokens that stand column by column, mirrored, or with channels among them are found out.
    """
    height, width = side
    shows = torch.zeros(4, 4, dtype=torch.float64)
    for seed in range(16):
        images = _pixels(height, width, seed)[:1].repeat(5, 1, 1, 1)
        noise = _pixels(height, width, seed)[1]
        for image, (rows, columns) in zip(images[1:], _corners(height, width), strict=True):
            image[:, rows, columns] += noise[:, rows, columns]
        with torch.no_grad():
            tokens = tokens_of(images).double()
        count = tokens.shape[1]
        down = round((count * height / width) ** 0.5)
        if down < 2 or count % down:
            return f"{count} tokens are no grid of at least 2 x 2"
        change = (tokens[1:] - tokens[:1]).norm(dim=-1).view(4, down, count // down)
        shows += torch.stack([change[:, y, x].mean((1, 2)).log() for y, x in _corners(*change.shape[1:])], 1)
        # Some changes are larger than others, and some tokens change more whatever it is: neither is of interest.
        found = (shows - shows.mean(0) - shows.mean(1, keepdim=True)).argmax(1).tolist()
        # One image is enough for most networks; where attention with random weights mixes all of it, more tell.
        if found == [0, 1, 2, 3] and seed in (0, 15):
            return "right"
    return f"corners show at {found}"


def _stands_as_in_a_map(twin: nn.Module, pixels: Tensor, tokens: Tensor) -> bool:
    """Whether tokens are like each other where those of timm's own map (B, C, H, W) of its last features are.

    Where attention with random weights mixes all positions, no change in an image stays in its place; this then tells.
    """
    with torch.no_grad():
        maps = twin.forward_intermediates(pixels, indices=1, intermediates_only=True)[-1]  # type: ignore[operator]
    down, right = maps.shape[-2:]
    if down * right != tokens.shape[1] or down != right:
        return False
    theirs, ours = _likeness(maps.flatten(2).transpose(1, 2)), _likeness(tokens)
    places = torch.arange(down * right).view(down, right)
    turned = [torch.rot90(grid, quarters) for grid in (places, places.T) for quarters in range(4)]
    found = [
        torch.corrcoef(torch.stack([ours, theirs[:, p][:, :, p]]).flatten(1))[0, 1] for p in map(torch.flatten, turned)
    ]
    return bool(max(found) == found[0] > 0.5)


def _likeness(tokens: Tensor) -> Tensor:
    """The cosine of each token with each other of its image, (B, T, T)."""
    tokens = nn.functional.normalize((tokens - tokens.mean(1, keepdim=True)).double(), dim=-1)
    return tokens @ tokens.transpose(1, 2)


def _corners(height: int, width: int) -> list[tuple[slice, slice]]:
    """The outer thirds in both directions: top left, top right, bottom left, bottom right."""
    high, wide = max(height // 3, 1), max(width // 3, 1)
    return [(y, x) for y in (slice(high), slice(height - high, None)) for x in (slice(wide), slice(width - wide, None))]


def _unpooled(twin: nn.Module, pixels: Tensor, tokens: Tensor, has_head: bool) -> str:
    """Whether the tokens are those that timm gives where its own pooling is switched off, if it lets that be done."""
    try:
        if has_head:
            twin.reset_classifier(0, "")  # type: ignore[operator]
        with torch.no_grad():
            theirs = twin(pixels) if has_head else twin.forward_features(pixels)  # type: ignore[operator]
    except (AssertionError, TypeError, ValueError, RuntimeError):
        return "right"
    if not isinstance(theirs, Tensor) or theirs.ndim < 3:
        return "right"
    if theirs.ndim == 4:
        last = getattr(twin, "output_fmt", "NCHW") == "NHWC"
        theirs = theirs.flatten(1, 2) if last else theirs.flatten(2).transpose(1, 2)
    theirs = theirs[:, -tokens.shape[1] :]
    if theirs.shape != tokens.shape:
        return f"{tuple(theirs.shape)} and not {tuple(tokens.shape)}"
    cosine = torch.cosine_similarity(theirs.double(), tokens.double(), dim=-1).min().item()
    return _is(cosine >= SAME, f"cosine {cosine:.6f}")


def recipe_of(network: nn.Module, pixels: Tensor, expected: Tensor) -> str:
    """What the recipe of the most used tool makes of it: unpooled features, read as channels-first, and their mean.

    Returns:
        `same`, `another vector`, `another width` or `broken` (no vectors, or the means of what are no features).
    """
    try:
        with torch.no_grad():
            features = network.forward_features(pixels)  # type: ignore[operator]
        vectors = features.flatten(2).mean(2) if features.ndim == 4 else features.mean(1)
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError):
        return "broken"
    if vectors.ndim != 2 or (features.ndim == 4 and features.shape[3] == expected.shape[1] != features.shape[1]):
        return "broken"
    if vectors.shape != expected.shape:
        return "another width"
    return "same" if _alike(vectors, expected) == "right" else "another vector"


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks as small as these lose more by waiting for each other's threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
