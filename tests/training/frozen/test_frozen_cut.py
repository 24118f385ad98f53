"""Networks of all shapes are cut behind their frozen stages, or it is said why they cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetuner_core.interfaces import Batch, FeatureExtractor, Features, Stage
from finetuner_core.training.frozen.cut import (
    Cut,
    batch_of,
    evaluating,
    in_precision,
    mask_of,
)
from finetuner_core.training.frozen.find import Probe, find_cut
from finetuner_core.training.frozen.layout import NotCachedError

WIDTH, SIDE = 8, 6
CPU = torch.device("cpu")


class Images:
    def length(self, prepared: Tensor) -> int:
        return 1

    def collate(self, prepared: Sequence[Tensor]) -> Batch:
        return {"pixels": torch.stack(list(prepared))}


class Texts:
    """Ids from 1 on, padded with 0 on one side."""

    def __init__(self, left: bool = False) -> None:
        self.left = left

    def length(self, prepared: list[int]) -> int:
        return len(prepared)

    def collate(self, prepared: Sequence[list[int]]) -> Batch:
        longest = max(map(len, prepared))
        none = [[0] * (longest - len(ids)) for ids in prepared]
        rows = [pad + ids if self.left else ids + pad for ids, pad in zip(prepared, none, strict=True)]
        return {"ids": torch.tensor(rows), "mask": (torch.tensor(rows) > 0).long()}


class Network(FeatureExtractor):
    """Blocks that are called as a function says; the first two are its first stage."""

    dim = WIDTH

    def __init__(self, run: Callable[[Any, Batch], Features]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(50, WIDTH)
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.first = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.list = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)])
        self.act = nn.ReLU(inplace=True)
        self.pair = Pair()
        self.last = nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Parameter(torch.zeros(WIDTH))
        self.run = run
        self.eval()
        self.requires_grad_(False)
        self.last.requires_grad_(True)
        self.gate.requires_grad_(True)

    def forward(self, batch: Batch) -> Features:
        return self.run(self, batch)

    def frozen(self) -> list[nn.Module]:
        return [self.embed, self.stem, self.first, self.list, self.pair]

    def stages(self) -> Sequence[Stage]:
        return [Stage("first", tuple(self.frozen())), Stage("last", (self.last, self.act), (self.gate,))]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> tuple[Tensor, dict[str, Tensor], None]:
        return self.linear(hidden), {"twice": 2 * hidden, "ids": hidden.argsort(-1)}, None


def of_map(hidden: Tensor) -> Features:
    tokens = hidden.flatten(2).transpose(1, 2)
    return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def on_map(module: nn.Module, hidden: Tensor) -> Tensor:
    out: Tensor = module(hidden.movedim(1, -1)).movedim(-1, 1)
    return out


def image_plain(net: Any, batch: Batch) -> Features:
    return of_map(on_map(net.last, on_map(net.first, net.act(net.stem(batch["pixels"])))))


def image_written_into(net: Any, batch: Batch) -> Features:
    # What is trained writes into what was kept.
    return of_map(on_map(net.last, net.act(on_map(net.first, net.stem(batch["pixels"])))))


def image_skip(net: Any, batch: Batch) -> Features:
    early = net.stem(batch["pixels"])
    return of_map(on_map(net.last, on_map(net.first, early)) + early)


def image_gated_skip(net: Any, batch: Batch) -> Features:
    # At first the gate lets nothing through, and it is trained.
    early = net.stem(batch["pixels"])
    return of_map(on_map(net.last, on_map(net.first, early)) + early * net.gate.view(-1, 1, 1))


def image_list(net: Any, batch: Batch) -> Features:
    hidden = net.stem(batch["pixels"])
    for layer in net.list:
        hidden = on_map(layer, hidden)
    return of_map(on_map(net.last, hidden))


def image_shared(net: Any, batch: Batch) -> Features:
    hidden = net.stem(batch["pixels"])
    for _ in range(3):
        hidden = on_map(net.first, hidden)
    return of_map(on_map(net.last, hidden) + on_map(net.list[0], net.stem(batch["pixels"])))


def image_sizes_read(net: Any, batch: Batch) -> Features:
    early = net.stem(batch["pixels"])
    count, _, height, width = early.shape
    hidden = on_map(net.first, early).reshape(count, -1, height, width)
    return of_map(on_map(net.last, hidden))


def image_tuple(net: Any, batch: Batch) -> Features:
    hidden, more, _ = net.pair(net.stem(batch["pixels"]).movedim(1, -1))
    tokens = net.last(hidden + more["twice"]).flatten(1, 2)
    return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def image_constant(net: Any, batch: Batch) -> Features:
    positions = net.first(net.embed(torch.arange(SIDE * SIDE)))
    tokens = net.stem(batch["pixels"]).flatten(2).transpose(1, 2)
    return Features(net.last(tokens + positions), torch.ones(tokens.shape[:2], dtype=torch.bool))


def image_between_items(net: Any, batch: Batch) -> Features:
    tokens = net.stem(batch["pixels"]).flatten(1)
    hidden = net.first((tokens @ tokens.T).unsqueeze(-1).expand(-1, -1, WIDTH))
    return Features(net.last(hidden), torch.ones(hidden.shape[:2], dtype=torch.bool))


def image_of_the_batch(net: Any, batch: Batch) -> Features:
    hidden = net.first(net.stem(batch["pixels"]).movedim(1, -1).flatten(0, 2))
    return Features(net.last(hidden).view(len(batch["pixels"]), -1, WIDTH), torch.ones(len(batch["pixels"]), 36) > 0)


def text_positions(net: Any, batch: Batch) -> Features:
    # A frozen table, of which what is trained reads as much as the batch is wide.
    at = torch.arange(batch["ids"].shape[1])
    positions = net.embed(at[:, None] - at[None] + 25)
    hidden = net.first(batch["mask"].unsqueeze(-1) * net.list[1](torch.ones(WIDTH)) + batch["ids"].unsqueeze(-1))
    mask = batch["mask"].bool()
    weights = positions.sum(-1).masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
    return Features(net.last(weights @ hidden), mask)


def text_padded(net: Any, batch: Batch) -> Features:
    mask = batch["mask"].bool()
    hidden = net.first(net.embed(batch["ids"]))
    mean = (hidden * mask.unsqueeze(-1)).sum(1, keepdim=True) / mask.sum(1).view(-1, 1, 1)
    return Features(net.last(hidden) + mean, mask)


def text_packed(net: Any, batch: Batch) -> Features:
    mask = batch["mask"].bool()
    order = mask.sum(1).argsort(descending=True, stable=True)
    at = torch.cat([number * mask.shape[1] + mask[number].nonzero()[:, 0] for number in order])
    hidden = net.last(net.first(net.embed(batch["ids"].flatten()[at].unsqueeze(0))))
    tokens = hidden.new_zeros(mask.numel(), WIDTH).index_copy(0, at, hidden[0]).view(*mask.shape, -1)
    return Features(tokens, mask)


def text_pooled(net: Any, batch: Batch) -> Features:
    # Padding cannot be told from what comes out.
    mask = batch["mask"].bool()
    hidden = net.last(net.first(net.embed(batch["ids"])))
    return Features.of_vectors((hidden * mask.unsqueeze(-1)).sum(1))


def text_ids_read_again(net: Any, batch: Batch) -> Features:
    mask = batch["mask"].bool()
    weights = (batch["ids"] % 3).unsqueeze(-1)
    return Features(net.last(net.first(net.embed(batch["ids"])) * weights), mask)


IMAGE = [value for name, value in globals().items() if name.startswith("image_")]
TEXT = [value for name, value in globals().items() if name.startswith("text_")]


def images(count: int = 12) -> list[Tensor]:
    return list(torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))


def texts(lengths: Sequence[int] = (3, 9, 1, 4, 4, 12, 2, 7)) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, 50, (length,), generator=generator).tolist() for length in lengths]


def cut(run: Callable[[Any, Batch], Features], feed: Images | Texts, items: Sequence[Any]) -> Cut:
    network = Network(run)
    return find_cut(network, network.frozen(), Probe(feed, items, CPU))


def check(cut: Cut, feed: Images | Texts, items: Sequence[Any], dtype: torch.dtype = torch.float32) -> None:
    """After training changed what is trained, features and gradients of items from several batches are the same."""
    network = cut.extractor
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    records: dict[int, Any] = {}
    for own in ([0, 1, 2], [3, 4], [5, 6, 7]):
        batch = feed.collate([items[number] for number in own])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            kept = cut.compute(batch)
        mask = mask_of(cut.layout, batch, [feed.length(items[number]) for number in own])
        records.update(zip(own, cut.layout.records(kept, mask), strict=True))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for own in ([7, 2, 5, 0], [1], [4, 4, 6, 3, 2]):
        batch = feed.collate([items[number] for number in own])
        found = []
        for extractor, fed in (
            (network, batch),
            (cut.rest, batch_of(*cut.layout.tensors([records[number] for number in own]), CPU)),
        ):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                features = extractor(fed)
            tokens = features.tokens[features.mask].float()
            gradients = torch.autograd.grad(tokens.sin().sum(), trained, allow_unused=True)
            found.append([tokens, *(torch.zeros(()) if own is None else own for own in gradients)])
        torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("run", IMAGE)
def test_networks_for_images_are_the_same_without_their_frozen_part(run: Callable[[Any, Batch], Features]) -> None:
    check(cut(run, Images(), images()), Images(), images())


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("run", TEXT)
def test_networks_for_texts_are_the_same_without_their_frozen_part(
    run: Callable[[Any, Batch], Features], left: bool
) -> None:
    check(cut(run, Texts(left), texts()), Texts(left), texts())


@pytest.mark.parametrize(("run", "feed"), [(image_skip, Images()), (text_packed, Texts()), (text_padded, Texts())])
def test_in_bfloat16_what_is_kept_is_what_training_would_see(
    run: Callable[[Any, Batch], Features], feed: Images | Texts
) -> None:
    items: Sequence[Any] = images() if isinstance(feed, Images) else texts()
    found = cut(run, feed, items)
    lower = in_precision(found, feed.collate(items[:2]), torch.bfloat16, CPU)
    assert {part.dtype for part in lower.layout.parts if part.dtype.is_floating_point} >= {torch.bfloat16}
    check(lower, feed, items, torch.bfloat16)


def test_one_tensor_is_kept_where_one_is_enough_and_two_where_a_path_leads_around_the_boundary() -> None:
    def kept(run: Callable[[Any, Batch], Features]) -> list[Any]:
        return [part.axes for part in cut(run, Images(), images()).layout.parts]

    assert kept(image_plain) == [("B", SIDE, SIDE, WIDTH)]
    assert kept(image_shared) == [("B", SIDE, SIDE, WIDTH)] * 2
    assert kept(image_skip) == kept(image_gated_skip) == [("B", WIDTH, SIDE, SIDE), ("B", SIDE, SIDE, WIDTH)]


def test_what_comes_before_the_boundary_is_not_computed_again() -> None:
    found = cut(image_plain, Images(), images())
    tensors, mask = found.layout.tensors(found.layout.records(found.compute(Images().collate(images()[:3])), ONES))
    seen: list[tuple[int, ...]] = []
    network = found.extractor
    assert isinstance(network, Network)
    network.act.register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape)))
    for module in network.frozen():
        module.register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape)))
    found.rest(batch_of(tensors, mask, CPU))
    # What stands between frozen modules runs over no items at all; hooks of replaced modules see what they give.
    assert seen == [(0, WIDTH, SIDE, SIDE), (0, WIDTH, SIDE, SIDE), (3, SIDE, SIDE, WIDTH)]


def test_what_comes_behind_the_boundary_is_not_computed_when_the_cache_is_filled() -> None:
    found = cut(image_plain, Images(), images())
    found.extractor.get_submodule("last").register_forward_hook(lambda *_: pytest.fail("it was computed"))
    found.compute(Images().collate(images()[:3]))


ONES = torch.ones(3, 1, dtype=torch.bool)


def trained_first(net: Any, batch: Batch) -> Features:
    return of_map(on_map(net.first, on_map(net.last, net.stem(batch["pixels"]))))


def input_again(net: Any, batch: Batch) -> Features:
    return of_map(on_map(net.last, net.stem(batch["pixels"])) + batch["pixels"].mean(1, keepdim=True))


def not_of_constants(net: Any, batch: Batch) -> Features:
    early = net.stem(batch["pixels"])
    if not early.requires_grad and not early.grad_fn and early.is_leaf:
        return of_map(on_map(net.last, early))
    raise KeyError("early")


def unused(net: Any, batch: Batch) -> Features:
    return of_map(on_map(net.last, torch.ones(len(batch["pixels"]), WIDTH, 1, 1)))


def as_it_falls(net: Any, batch: Batch) -> Features:
    hidden = net.stem(batch["pixels"])
    for _ in range(len(hidden)):
        hidden = on_map(net.first, hidden)
    return of_map(on_map(net.last, hidden))


def sign_of_frozen(net: Any, batch: Batch) -> Features:
    # No gradient tells that this depends on the stem.
    early = net.stem(batch["pixels"])
    return of_map(on_map(net.last, on_map(net.first, early)) + (early > 0).float())


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (trained_first, "a part that is trained comes before a frozen one"),
        (input_again, "what is trained reads the network's input again"),
        (not_of_constants, "without its frozen part it fails: KeyError: 'early'"),
        (unused, "its frozen part gives nothing of an item's own"),
        (as_it_falls, "its frozen modules are called differently from batch to batch"),
        (sign_of_frozen, "without its frozen part it does not give the same"),
    ],
)
def test_what_cannot_be_cut_is_said(run: Callable[[Any, Batch], Features], reason: str) -> None:
    with pytest.raises(NotCachedError, match=reason):
        cut(run, Images(), images())


def test_texts_of_one_length_are_items_of_one_shape_and_others_are_refused_later() -> None:
    found = cut(text_padded, Texts(), texts([5] * 8))
    assert {part.axes for part in found.layout.parts} == {("B", 5), ("B", 5, WIDTH)}
    check(found, Texts(), texts([5] * 8))
    longer = Texts().collate(texts([6] * 2))
    with pytest.raises(NotCachedError, match="some items give"):
        found.layout.records(found.compute(longer), mask_of(found.layout, longer, [6, 6]))


def test_a_module_that_is_no_longer_called_is_an_error_and_no_silence() -> None:
    found = cut(image_plain, Images(), images())
    tensors, mask = found.layout.tensors(found.layout.records(found.compute(Images().collate(images()[:3])), ONES))
    network = found.extractor
    assert isinstance(network, Network)
    network.first = nn.Sequential(nn.Identity())
    with pytest.raises(RuntimeError, match="not called as often as when its features were cached"):
        found.rest(batch_of(tensors, mask, CPU))
    assert "forward" not in vars(network.stem)


def test_modes_are_as_before_when_all_is_done() -> None:
    network = Network(image_plain)
    network.train()
    network.first.eval()
    modes = [module.training for module in network.modules()]
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == modes
