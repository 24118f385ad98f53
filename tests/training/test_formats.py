"""Fine-tuning on images that stay in tars."""

from __future__ import annotations

import csv
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetuner_core.training.fit import fit

pytestmark = pytest.mark.usefixtures("acme")

FAST: dict[str, Any] = {"batch_size": 16, "learning_rate": 0.1, "quiet": True, "device": "cpu"}


def picture(green: int, rng: random.Random) -> bytes:
    """What is asked for is in the green of a picture, beside a red that varies far more."""
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 20, (20, 20, 3))
    pixels[..., 0] += rng.randrange(230)
    pixels[..., 1] += green
    content = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(content, "png")
    return content.getvalue()


def write_shards(folder: Path, samples: list[dict[str, bytes]]) -> str:
    for shard in range(3):
        with tarfile.open(folder / f"shard-{shard:03}.tar", "w") as tar:
            for number, sample in enumerate(samples[shard::3]):
                for extension, content in sample.items():
                    member = tarfile.TarInfo(f"{number:04}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return str(folder / "shard-{000..002}.tar")


def labelled(folder: Path) -> str:
    rng = random.Random(0)
    return write_shards(
        folder, [{"png": picture(45 * (n % 6), rng), "cls": str(n % 6).encode()} for n in rng.sample(range(60), 60)]
    )


def captioned(folder: Path) -> str:
    rng = random.Random(0)
    greens = [number % 30 for number in range(90)]
    return write_shards(
        folder, [{"png": picture(8 * n, rng), "txt": f"{'G' * n}{'x' * (30 - n)}".encode()} for n in greens]
    )


def unpacked(folder: Path) -> Path:
    """The same samples, in the same order, as files that a table names."""
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        for path in sorted(folder.glob("*.tar")):
            with tarfile.open(path) as tar:
                contents = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
            for name in [name for name in contents if name.endswith(".png")]:
                image = f"{path.stem}-{name}"
                (folder / image).write_bytes(contents[name])
                header, other = next(
                    (header, contents[other].decode())
                    for extension, header in (("cls", "label"), ("txt", "text"))
                    if (other := name.replace("png", extension)) in contents
                )
                if not file.tell():
                    rows.writerow(["image", header])
                rows.writerow([image, other])
    return folder / "table.csv"


@pytest.mark.parametrize(("name", "make", "epochs"), [("pixels", labelled, 6), ("both", captioned, 10)])
def test_it_learns_from_shards_what_it_learns_from_files(
    name: str, make: Callable[[Path], str], epochs: int, tmp_path: Path
) -> None:
    shards = make(tmp_path)
    result = fit(name, shards, out=tmp_path / "model", epochs=epochs, **FAST)
    assert result.after["map"] > result.before["map"] + 0.15
    of_files = fit(name, unpacked(tmp_path), out=tmp_path / "other", epochs=epochs, **FAST)
    assert (result.before, result.after) == (of_files.before, of_files.after)
