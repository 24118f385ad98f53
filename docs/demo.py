"""Fine-tunes a model on handwritten digits, by the commands that a person would type.

The digits come with scikit-learn: 1,797 pictures of 8 x 8 pixels, here as vectors of 64 numbers. Seven in ten are for
training; the others, which training never sees, are searched before and after.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path("demo-output")
FINETUNER = Path(sys.executable).with_name("finetuner")


def write_digits(file: Path) -> None:
    """Writes the digits as an archive with the arrays `vectors`, `labels` and `split`."""
    digits = load_digits()
    rows = np.arange(len(digits.target))
    _, test = train_test_split(rows, test_size=0.3, random_state=0, stratify=digits.target)
    split = np.where(np.isin(rows, test), "test", "train")
    np.savez(file, vectors=digits.data / 16, labels=digits.target, split=split)


def run(*arguments: str) -> None:
    """Shows a command and runs it."""
    print(f"\n$ finetuner {' '.join(arguments)}", flush=True)
    subprocess.run([str(FINETUNER), *arguments], check=True)


def main() -> None:
    """Writes the digits, lists what is installed, fine-tunes, and says how to go on."""
    FOLDER.mkdir(exist_ok=True)
    data, model = FOLDER / "digits.npz", FOLDER / "digits-model"
    write_digits(data)
    run("list")
    run("fit", "mlp", str(data), "--split-column", "split", "--epochs", "20", "--out", str(model))
    run("encode", str(model), str(data), "--out", str(FOLDER / "digits.npy"))
    print(
        f"\nThat was a real fine-tuning: {model} is the model, {FOLDER / 'digits.npy'} its vectors."
        "\n\nNext, your own data: photos in a folder for each label, or texts in a CSV with the columns text,label:\n"
        f"  {Path(sys.executable).with_name('uv')} pip install --python {sys.executable} "
        "-e plugins/finetuner-timm -e plugins/finetuner-hf\n"
        f"  {FINETUNER} fit resnet50 PHOTOS/ --out photo-model\n"
        f"  {FINETUNER} fit sentence-transformers/msmarco-distilbert-base-v3 TEXTS.csv --out text-model"
    )


if __name__ == "__main__":
    main()
