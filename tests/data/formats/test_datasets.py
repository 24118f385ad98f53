"""What Hugging Face's library has in memory, has saved, and loads by name, against what it says of it itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetuner_core.data.formats import columnar, memory
from finetuner_core.data.tables import Table
from finetuner_core.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def rows_of(table: Table | None) -> list[dict[str, Any]]:
    assert table is not None
    columns: dict[str, Any] = {**table.columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{key: x.tolist() if isinstance(x, np.ndarray) else x for key, x in row.items()} for row in rows]


def make() -> Any:
    return datasets.Dataset.from_dict(
        {
            "text": [f"text {number}" for number in range(7)],
            "vectors": [[float(number), 0.5] for number in range(7)],
            "many": [["a"] * (number % 3) for number in range(7)],
        }
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: data.select([3, 3, 0]),
        lambda data: data.shuffle(seed=1).filter(lambda row: row["vectors"][0] > 2),
        lambda data: data.map(lambda row: {"more": row["text"] + "!"}).remove_columns("many"),
        lambda data: datasets.concatenate_datasets([data, data.select([1])]),
    ],
)
def test_in_memory_and_saved(change: Any, tmp_path: Path) -> None:
    data = change(make())
    expected = list(data)
    assert rows_of(memory.read(data)) == expected
    data.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    assert columnar.is_saved_dataset(tmp_path / "saved")
    assert rows_of(columnar.read_saved_dataset(tmp_path / "saved")) == expected
    assert rows_of(memory.read(datasets.load_from_disk(str(tmp_path / "saved")))) == expected


def test_images_are_their_bytes(tmp_path: Path) -> None:
    cells = [{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.jpg"}]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    data = datasets.Dataset.from_dict({"image": cells}, features=features)
    assert rows_of(memory.read(data)) == [{"image": b"x"}, {"image": "a.jpg"}]


def test_splits(tmp_path: Path) -> None:
    data = make()
    with pytest.raises(DataError, match=r'has the splits a, b; which one\?\nGive one of them: data\["a"\] or data'):
        memory.read(datasets.DatasetDict(a=data, b=data))
    assert rows_of(memory.read(datasets.DatasetDict(a=data))) == list(data)
    datasets.DatasetDict(a=data, b=data.select([2])).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"saved has the splits a, b; which one\?\nGive one of them: \S+/saved/a or"):
        columnar.read_saved_dataset(tmp_path / "saved")
    assert rows_of(columnar.read_saved_dataset(tmp_path / "saved" / "b")) == [data[2]]


def test_streams_and_nothing() -> None:
    with pytest.raises(DataError, match=r"the data set is of type IterableDataset, a stream\. Load it without"):
        memory.read(make().to_iterable_dataset())
    with pytest.raises(DataError, match=r"the data set has .*no rows"):
        memory.read(make().select([]))
    with pytest.raises(DataError, match="the data set has no splits"):
        memory.read(datasets.DatasetDict())


def test_a_column_of_a_dataset() -> None:
    assert rows_of(memory.read({"text": make()["text"]})) == [{"text": row["text"]} for row in make()]


def test_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    (folder / "train.csv").write_text("text,n\na,1\nb,2\n")
    (folder / "test.csv").write_text("text,n\nc,3\n")
    assert rows_of(columnar.read_named(f"datasets:{folder}:test")) == [{"text": "c", "n": 3}]
    assert rows_of(columnar.read_named(f"datasets:{folder}:default:test")) == [{"text": "c", "n": 3}]
    with pytest.raises(
        DataError, match=r"named has the splits train, test; which one\?\n.*named:train or \S+named:test"
    ):
        columnar.read_named(f"datasets:{folder}")
    with pytest.raises(DataError, match='named:dev" cannot be loaded: Unknown split "dev"') as caught:
        columnar.read_named(f"datasets:{folder}:dev")
    assert str(caught.value).count("\n") == 1
    with pytest.raises(DataError, match=r'"datasets:no/such:train" cannot be loaded: .*Hub') as caught:
        columnar.read_named("datasets:no/such:train")
    assert str(caught.value).count("\n") == 1
