"""What is to be encoded: items of one modality, from whatever a person has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finetuner_core.data.dataset import Cells, Column
from finetuner_core.data.forms import find_items
from finetuner_core.data.tables import read_table
from finetuner_core.errors import DataError, OptionError
from finetuner_core.values import BackboneInfo, Modality, quote


def as_column(
    data: Any, info: BackboneInfo, column: str | None, modality: str | None, encoding: str | None
) -> tuple[Column, str]:
    """The items, and what their source is called.

    Args:
        data: a table in whatever form `read_table` takes; or items: a `Column`, an array (N, D), a list.
        info: the row of the model that is to encode them.
        column: the header of the table's column, where it has to be said.
        modality: what the items are, where the model takes more than one thing.
        encoding: of a file of text.

    Raises:
        DataError: if there is nothing to encode, or it cannot be read.
        OptionError: if the modality has to be said, or is none of the model's.
    """
    items: Column
    if isinstance(data, Column):
        items, source = data, data.name
        _only(info, data.modality)
    elif isinstance(data, np.ndarray | Cells) or (
        isinstance(data, list | tuple) and not (data and isinstance(data[0], Mapping))
    ):
        items, source = Column("items", _only(info, modality), data), "items in memory"
    else:
        items = find_items(read_table(data, encoding), info, column, modality)
        source = f"{data if isinstance(data, str | Path) else 'data in memory'}, column {items.name}"
    if not len(items):
        raise DataError("There is nothing to encode: the data have no items.")
    return items, source


def _only(info: BackboneInfo, modality: str | None) -> Modality:
    """The modality that is said, or the model's only one."""
    fitting: list[Modality] = [own for own in info.modalities if modality in (None, own)]
    if len(fitting) != 1:
        what = "takes more than one modality" if modality is None else f"does not take {quote(modality)}"
        choices = " or ".join(f'modality="{name}"' for name in info.modalities)
        raise OptionError(f"{info.name} {what}.\nSay {choices}.")
    return fitting[0]
