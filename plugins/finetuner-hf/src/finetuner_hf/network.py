"""Opens a network of transformers, without running what a repository brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedConfig, PreTrainedModel

from finetuner_hf.hub import LOADING_ERRORS, has_own_code, own_code, why_not_loaded


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Within it, what transformers raises becomes a word about the Hub id or folder of that name.

    Raises:
        WeightsError: if it cannot be had, or is not what it says.
    """
    try:
        yield
    except LOADING_ERRORS as error:
        raise why_not_loaded(name, error) from error


def open_network(
    name: str,
    config: PreTrainedConfig,
    *,
    pretrained: bool,
    opener: type[AutoModel] | type[AutoModelForTextEncoding] = AutoModel,
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The network of a Hub id or folder, in float32.

    Args:
        name: the id or the folder.
        config: its configuration.
        pretrained: whether to load its weights; else they are random.
        opener: the class of transformers that opens it without a head.

    Returns:
        The network, and the names of its parameters that the weights do not hold.

    Raises:
        WeightsError: if the weights cannot be had, or belong to a network that only the repository's own code builds.
    """
    missing: tuple[str, ...] = ()
    with loading(name):
        if pretrained:
            network, report = opener.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
            missing = tuple(sorted(report["missing_keys"]))
        else:
            network = opener.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    if has_own_code(config):
        if any(not parameter.startswith("pooler.") for parameter in missing):
            raise own_code(name)
        # Without need, as it turns out; and a saved model brings none.
        del network.config.auto_map
    return network, missing
