"""Building a network without drawing its random weights, for where they are not looked at."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# torch hands these three of its initialisers over as a whole, and the others as what they call on the tensor.
_DRAWS = frozenset(
    {nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_}
    | {getattr(Tensor, name) for name in ("normal_", "uniform_", "erfinv_", "bernoulli_", "exponential_")}
)


class undrawn(TorchFunctionMode):  # noqa: N801 - it is used as a function is
    """A context in which parameters keep whatever the memory held: to draw takes most of the time of building."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leaves out a call that draws."""
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
