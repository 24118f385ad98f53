"""All that the steps of training change, taken down between two of them and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from finetuner_core.errors import FolderError
from finetuner_core.training.cut_texts import CutTexts
from finetuner_core.training.feed import Feed
from finetuner_core.training.memory import GraphBudget
from finetuner_core.training.randomness import RandomState, random_state, restore_random_state


class Epoch(TypedDict):
    """One line of the history."""

    epoch: int
    loss: float
    learning_rate: float  # in its last step
    items_per_second: float
    seconds: float


@dataclass
class Position:
    """Where a run is, between two steps.

    Args:
        done: how many steps were done in all.
        epoch: the one that it is in, from 1.
        step: how many steps of that were done.
        loss: the sum over the items of these steps.
        items: how many there were.
        seconds: how long these steps took.
        learning_rate: in the last step.
        is_over: whether training is to end here, before its last step.
        history: of the epochs that were done.
    """

    done: int = 0
    epoch: int = 1
    step: int = 0
    loss: float = 0.0
    items: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    is_over: bool = False
    history: list[Epoch] = field(default_factory=list)

    def end_epoch(self, epoch: Epoch) -> None:
        """Goes to the beginning of the next."""
        self.history.append(epoch)
        self.epoch, self.step = self.epoch + 1, 0
        self.loss, self.items, self.seconds = 0.0, 0, 0.0


@dataclass(frozen=True)
class TrainingState:
    """What a run changes in memory. Tensors are known by the names of their parameters and buffers.

    Args:
        model: of which what is trained is taken down, and buffers such as running statistics; the rest stands still.
        losses: all of them, with what they remember.
        optimizer: of both.
        budget: what it has measured decides how a batch is cut into chunks.
        feeds: for each data set where its columns come from.
        cut: how many texts were cut.
        position: where the run is.
        device: where the model is.
    """

    model: nn.Module
    losses: nn.Module
    optimizer: torch.optim.Optimizer
    budget: GraphBudget
    feeds: Sequence[Sequence[Feed]]
    cut: CutTexts
    position: Position
    device: torch.device

    def tensors(self) -> dict[str, Tensor]:
        """As they are; not copied."""
        names = {id(parameter): name for name, parameter in self._parameters()}
        moments = {
            f"optimizer.{names[id(parameter)]}.{kind}": tensor
            for parameter, kept in self.optimizer.state.items()
            for kind, tensor in kept.items()
        }
        drawn, (_, legacy, *_) = random_state(self.device), np.random.get_state()
        drawn_tensors = {"random.cpu": drawn.cpu} | ({} if drawn.device is None else {"random.device": drawn.device})
        of_python = torch.tensor(random.getstate()[1], dtype=torch.int64)
        of_numpy = torch.from_numpy(np.asarray(legacy).astype(np.int64))
        return {
            **dict(self._parameters()),
            **{name: buffer for name, _, _, buffer in self._buffers()},
            **moments,
            **drawn_tensors,
            "random.python": of_python,
            "random.numpy": of_numpy,
        }

    def numbers(self) -> dict[str, Any]:
        """The rest, as JSON holds it."""
        _, _, *numpy_rest = np.random.get_state()
        return {
            "position": asdict(self.position),
            "budget": self.budget.numbers(self._encoders()),
            "feeds": self._kinds(),
            "cut": self.cut.numbers(),
            "losses": {f"{owner}.{name}": value for owner, _, name, value in self._plain()},
            "random": {"python": random.getstate()[2], "numpy": numpy_rest},
        }

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Puts everything back.

        Raises:
            FolderError: if it is of another model or loss, or if what was cached then is not now.
        """
        self._check(tensors)
        if self._kinds() != numbers["feeds"]:
            raise FolderError(
                "What is frozen was cached when the run began, and is not now, or the other way round.\n"
                "Make room on the disk as there was then, or begin anew with another --out."
            )
        with torch.no_grad():
            for name, parameter in self._parameters():
                parameter.copy_(tensors[name])
            for name, module, own, buffer in list(self._buffers()):
                if buffer.shape == tensors[name].shape:
                    buffer.copy_(tensors[name])
                else:  # some losses put another tensor in the place of a buffer
                    setattr(module, own, tensors[name].to(buffer.device, copy=True))
            for name, parameter in self._parameters():
                prefix = f"optimizer.{name}."
                kept = {
                    key.removeprefix(prefix): tensor.to(parameter.device, copy=True)
                    for key, tensor in tensors.items()
                    if key.startswith(prefix) and "." not in key.removeprefix(prefix)
                }
                if kept:
                    self.optimizer.state[parameter] = kept
        for owner, module, name, _ in list(self._plain()):
            setattr(module, name, numbers["losses"][f"{owner}.{name}"])
        self.budget.restore(numbers["budget"], self._encoders())
        self.cut.restore(numbers["cut"])
        for name, value in numbers["position"].items():
            setattr(self.position, name, value)
        restore_random_state(RandomState(tensors["random.cpu"], tensors.get("random.device")), self.device)
        version, _, _ = random.getstate()
        random.setstate((version, tuple(tensors["random.python"].tolist()), numbers["random"]["python"]))
        legacy = tensors["random.numpy"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", legacy, *numbers["random"]["numpy"]))

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        own = {name: tensor.shape for name, tensor in self._parameters()}
        found = {name: tensor.shape for name, tensor in tensors.items() if name.startswith(("model.", "loss."))}
        # What a loss remembers may have another shape than at its beginning.
        own |= {name: found.get(name, torch.Size()) for name, *_ in self._buffers()}
        wrong = sorted(name for name, _ in own.items() ^ found.items())
        if wrong:
            raise FolderError(
                f"The checkpoint is of another model or loss: {wrong[0]} does not fit.\n"
                "Go on with the same plugins and settings as before, or begin anew with another --out."
            )

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from (("model", self.model), ("loss", self.losses))

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for owner, module in self._modules():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad or module is self.losses:
                    yield f"{owner}.{name}", parameter

    def _buffers(self) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
        """Buffers, and the tensors that a loss keeps without calling them so: name, module, name there, tensor."""
        for owner, root in self._modules():
            seen: set[int] = set()
            for path, module in root.named_modules():
                plain = vars(module).items() if root is self.losses else ()
                for name, tensor in (*module.named_buffers(recurse=False), *plain):
                    if isinstance(tensor, Tensor) and id(tensor) not in seen:
                        seen.add(id(tensor))
                        yield ".".join(filter(None, (owner, path, name))), module, name, tensor

    def _plain(self) -> Iterator[tuple[str, nn.Module, str, Any]]:
        """The numbers that a loss keeps: path, module, name there, value."""
        for path, module in self.losses.named_modules():
            for name, value in vars(module).items():
                if type(value) in (int, float, bool) and name != "training":
                    yield path, module, name, value

    def _encoders(self) -> list[nn.Module]:
        """In the order of their first column, by which a later process knows them."""
        return list(dict.fromkeys(feed.encoder for own in self.feeds for feed in own))

    def _kinds(self) -> list[list[str]]:
        return [[type(feed).__name__ for feed in own] for own in self.feeds]
