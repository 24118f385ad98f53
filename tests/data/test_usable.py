from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from finetuner_core.data.dataset import Column, Dataset
from finetuner_core.data.usable import usable
from finetuner_core.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    Image.new("RGB", (3, 3)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    return {name: tmp_path / f"{name}.png" for name in ("good", "bad", "gone")}


def test_leaves_alone_what_can_be_read(images: dict[str, Path]) -> None:
    texts = Dataset((Column("text", "text", ["no", "image"]),), ["x", "y"])
    assert usable(texts, skip_bad_items=False) == (texts, 0)
    data = Dataset((Column("image", "image", [images["good"]] * 3),), ["x", "y", "x"])
    assert usable(data, skip_bad_items=True) == (data, 0)


def test_names_the_first_and_counts_the_others(images: dict[str, Path]) -> None:
    data = Dataset((Column("image", "image", [images[name] for name in ("good", "gone", "bad")]),), ["x", "y", "x"])
    with pytest.raises(DataError) as caught:
        usable(data, skip_bad_items=False)
    assert str(caught.value) == (
        f'The image "{images["gone"]}" cannot be read: there is no such file. (2 of 3 images)\n'
        "Mend or remove it, or go on without: --skip-bad-items"
    )
    with pytest.raises(DataError, match=r"no such file\.\nMend"):
        usable(data.select([0, 1]), skip_bad_items=False)


def test_says_where_an_image_stands_unless_its_name_does(images: dict[str, Path]) -> None:
    data = Dataset((Column("image", "image", [images["good"], images["gone"]]),), ["x", "y"])
    with pytest.raises(DataError) as caught:
        usable(data, skip_bad_items=False, where=lambda row: f"a.csv, line {row + 2}")
    assert str(caught.value).startswith(f'a.csv, line 3: The image "{images["gone"]}" cannot be read: ')
    with pytest.raises(DataError, match=r"^The image "):
        usable(data, skip_bad_items=False, where=lambda row: str(images["gone"]))


def test_skips_and_counts(images: dict[str, Path]) -> None:
    names = ["bad", "good", "gone", "good"]
    labelled = Dataset((Column("image", "image", [images[name] for name in names]),), ["w", "x", "y", "z"])
    kept, skipped = usable(labelled, skip_bad_items=True)
    assert (kept.labels, skipped) == (["x", "z"], 2)
    assert kept.columns[0].items == [images["good"]] * 2


def test_a_pair_goes_as_a_whole_and_counts_once(images: dict[str, Path]) -> None:
    anchors, positives = ["good", "bad", "good", "bad"], ["good", "good", "gone", "gone"]
    columns = tuple(
        Column(name, "image", [images[item] for item in items])
        for name, items in (("anchor", anchors), ("positive", positives))
    )
    kept, skipped = usable(Dataset(columns), skip_bad_items=True)
    assert ([column.items for column in kept.columns], skipped) == ([[images["good"]]] * 2, 3)


def test_with_nothing_left_there_is_nothing_to_go_on_with(images: dict[str, Path]) -> None:
    data = Dataset((Column("image", "image", [images["bad"]] * 2),), ["x", "x"], "my.csv")
    with pytest.raises(DataError) as caught:
        usable(data, skip_bad_items=True)
    assert str(caught.value).startswith(f'No image of my.csv can be read. The first: The image "{images["bad"]}"')
