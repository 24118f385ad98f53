"""Folders of models that somebody has made to do harm. Each is refused, with a word that says why."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finetuner_core.artifacts.folder import check_writable
from finetuner_core.errors import FolderError
from finetuner_core.modeling.build import build_model, load
from tests.security.conftest import Bomb, refused, refused_by_command

pytestmark = pytest.mark.usefixtures("acme")

FILE, HEAD, WEIGHTS = "finetuner.json", "head.safetensors", "model.safetensors"
DEEP = "[" * 100_000 + "]" * 100_000
SAVE = {"pooling": "mean", "output_dim": 6}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return build_model("letters", **SAVE).save(tmp_path / "saved")  # type: ignore[arg-type]


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / FILE
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def row(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        backbone = json.loads((folder / FILE).read_text())["backbone"]
        edit(backbone=backbone | changes)(folder)

    return change


def text(content: str, name: str = FILE) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(content)

    return change


def sparse(name: str) -> Callable[[Path], None]:
    """A gigabyte that takes no room."""
    return lambda folder: os.truncate(folder / name, 1 << 30)


def replaced(name: str, content: Callable[[Path], bytes]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content(folder))

    return change


def linked(name: str, target: str) -> Callable[[Path], None]:
    def link(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return link


def tensors(name: str, header: object, body: bytes = b"", length: int | None = None) -> Callable[[Path], None]:
    """A file of safetensors with a header of any kind."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return replaced(name, lambda _: struct.pack("<Q", len(content) if length is None else length) + content + body)


def of(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def weights(name: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / name)), folder / name)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "tokenizer.json")


def _many(folder: Path) -> None:
    for number in range(1001):
        (folder / f"{number}.json").touch()


ZOO: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a gigabyte of finetuner.json": (sparse(FILE), "bytes, and no such file has more than"),
    "a gigabyte of config.json": (sparse("config.json"), "bytes, and no such file has more than"),
    "a hundred thousand levels": (text(DEEP), "nested too deep"),
    "two hundred levels": (text('{"format_version": ' + "[" * 200 + "]" * 200 + "}"), "nested more than 100 deep"),
    "no JSON": (text("\0\0\0"), "cannot be read"),
    "no UTF-8": (replaced(FILE, lambda _: b"\xff\xfe\xff"), "cannot be read"),
    "a list": (text("[]"), "cannot be read"),
    "NaN": (text('{"format_version": NaN}'), "NaN is no JSON"),
    "a key that stands twice": (text('{"format_version": 1, "format_version": 2}'), '"format_version" stands twice'),
    "a number of ten thousand digits": (text('{"format_version": ' + "9" * 10_000 + "}"), "cannot be read"),
    "a newer format": (edit(format_version=99), 'format version "99"'),
    "a format of another type": (edit(format_version=[1]), "format version"),
    "a plugin by path": (edit(plugin="../../evil"), 'needs the plugin "../../evil"'),
    "a plugin with escapes": (edit(plugin="\x1b[2Jevil"), "\\x1b[2Jevil"),
    "a plugin of another type": (edit(plugin={"a": 1}), "needs the plugin"),
    "a pooling of another type": (edit(pooling=5), "must be a text"),
    "a pooling that nobody has": (edit(pooling="os.system"), "os.system"),
    "options of another type": (edit(pooling_options=3), "cannot be read"),
    "options that nobody has": (edit(pooling_options={"__class__": "os"}), "__class__"),
    "a projection as a text": (edit(projection_dim="6"), "no positive whole number"),
    "a projection below zero": (edit(projection_dim=-1), "no positive whole number"),
    "another projection": (edit(projection_dim=7), "does not fit the model"),
    "a row of another type": (edit(backbone=7), "cannot be read"),
    "a name of two lines": (row(name="a\nError: b"), "must be a text on one line"),
    "a description with escapes": (row(description="\x1b]0;evil\x07"), "must be a text on one line"),
    "a width as a text": (row(output_dim="16"), "must be a positive whole number"),
    "towers that are not there": (edit(towers=["query", "document"]), "holds no saved model"),
    "a base of another type": (edit(base=[1]), "cannot be read"),
    "a base without a name": (
        edit(base={"name": 7, "options": {}, "sha256": ""}),
        "not a name, options and a checksum",
    ),
    "a base with more than that": (
        edit(base={"name": "a", "options": {}, "sha256": "", "run": "evil"}),
        "cannot be read",
    ),
    "a base that is another's": (
        edit(base={"name": "acme/letters", "options": {}, "sha256": "0" * 64}),
        "changed since",
    ),
    "weights that are a link": (linked(WEIGHTS, "../outside"), "leads out of it, to"),
    "weights that are a link to nothing": (linked(WEIGHTS, "/nowhere"), "leads out of it, to"),
    "weights that are a device": (linked(WEIGHTS, "/dev/zero"), "leads out of it, to"),
    "finetuner.json that is a link": (linked(FILE, "../outside"), "leads out of it, to"),
    "a folder that is a link": (linked("query", ".."), "leads out of it, to"),
    "a link to itself": (linked("loop", "loop"), "cannot be read"),
    "a pipe": (_pipe, "a device or a pipe"),
    "a thousand files": (_many, "more than 1,000 files"),
    "shards of another folder": (
        text('{"weight_map": {"a": "../../outside.safetensors"}}', "model.safetensors.index.json"),
        "no file of it",
    ),
    "shards by a whole path": (
        text('{"weight_map": {"a": "/etc/passwd"}}', "pytorch_model.bin.index.json"),
        "no file of it",
    ),
    "shards that are no names": (text('{"weight_map": {"a": 5}}', "model.safetensors.index.json"), "no file of it"),
    "an index of a thousand levels": (text(DEEP, "model.safetensors.index.json"), "nested too deep"),
    "a head that is a text": (text("hello", HEAD), "cannot be read"),
    "a head that is empty": (text("", HEAD), "cannot be read"),
    "a head with a huge header": (tensors(HEAD, b"{}", length=1 << 62), "cannot be read"),
    "a head with a header beyond its end": (tensors(HEAD, {"a": of()}, length=10_000), "cannot be read"),
    "a head with a deep header": (tensors(HEAD, DEEP.encode()), "cannot be read"),
    "a head whose header is a list": (tensors(HEAD, []), "cannot be read"),
    "a head without its numbers": (tensors(HEAD, {"a": of()}), "cannot be read"),
    "a head with more than its numbers": (tensors(HEAD, {"a": of()}, bytes(16)), "cannot be read"),
    "a head that overlaps itself": (tensors(HEAD, {"a": of(), "b": of(offsets=(4, 12))}, bytes(12)), "cannot be read"),
    "a head with a false size": (tensors(HEAD, {"a": of(shape=(1 << 40,))}, bytes(8)), "cannot be read"),
    "a head whose size overflows": (tensors(HEAD, {"a": of(shape=(1 << 63, 4))}, bytes(8)), "cannot be read"),
    "a head below zero": (tensors(HEAD, {"a": of(shape=(-2,))}, bytes(8)), "cannot be read"),
    "a head that runs backwards": (tensors(HEAD, {"a": of(offsets=(8, 0))}, bytes(8)), "cannot be read"),
    "a head of a type that is none": (tensors(HEAD, {"a": of("PICKLE")}, bytes(8)), "cannot be read"),
    "a head with a key that stands twice": (
        tensors(
            HEAD,
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            bytes(8),
        ),
        HEAD,
    ),
    "a head of other tensors": (tensors(HEAD, {"../../a": of()}, bytes(8)), "does not fit the model"),
    "a head with escapes": (tensors(HEAD, {"\x1b[2J": of()}, bytes(8)), "\\x1b[2J"),
    "a head of ten thousand tensors": (
        tensors(HEAD, {f"t{n}": of(shape=(0,), offsets=(0, 0)) for n in range(10_000)}),
        "does not fit the model",
    ),
    "a head of other shapes": (weights(HEAD, lambda t: {k: v[:1] for k, v in t.items()}), "does not fit the model"),
    "a head of whole numbers": (weights(HEAD, lambda t: {k: v.long() for k, v in t.items()}), "of whole numbers"),
    "a head of NaN": (weights(HEAD, lambda t: {k: v * np.nan for k, v in t.items()}), "hold NaN"),
    "weights of NaN": (weights(WEIGHTS, lambda t: {k: v * np.nan for k, v in t.items()}), "hold NaN"),
}


@pytest.mark.parametrize("animal", ZOO)
def test_a_hostile_folder_is_refused(animal: str, saved: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copy(saved / WEIGHTS, outside)
    harm, expected = ZOO[animal]
    harm(saved)
    before = sorted(tmp_path.rglob("[a-z]*"))
    with refused(expected):
        load(saved)
    assert sorted(tmp_path.rglob("[a-z]*")) == before


@pytest.mark.parametrize(
    "animal", ["a hundred thousand levels", "a plugin with escapes", "weights that are a link", "a head with escapes"]
)
def test_the_command_says_so(animal: str, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    (tmp_path / "data.csv").write_text("text,label\na,b\n")
    ZOO[animal][0](saved)
    assert "saved" in refused_by_command("encode", saved, tmp_path / "data.csv", "--out", tmp_path / "out.npy")


@pytest.mark.parametrize("name", [HEAD, WEIGHTS])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_weights_is_not_read(name: str, how: str, saved: Path, bomb: Bomb) -> None:
    if how == "pickle":
        (saved / name).write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"a": bomb}, saved / name)
    with refused():
        load(saved)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "head.pkl", "model.npy"])
def test_a_pickle_beside_the_weights_is_not_looked_at(name: str, saved: Path, bomb: Bomb) -> None:
    (saved / name).write_bytes(pickle.dumps(bomb))
    assert load(saved).output_dim == 6


@pytest.mark.parametrize(
    "name", ["modeling_evil.py", "conftest.py", "sitecustomize.py", "acme.py", "json.py", "torch/__init__.py"]
)
def test_python_in_the_folder_is_not_imported(
    name: str, saved: Path, bomb: Bomb, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved / name).parent.mkdir(exist_ok=True)
    (saved / name).write_text(f"open({str(bomb.canary)!r}, 'w')")
    monkeypatch.chdir(saved)
    assert load(".").output_dim == 6


def test_a_folder_of_the_hubs_cache_has_links_and_opens(saved: Path, tmp_path: Path) -> None:
    """A download lies in `blobs`, and `snapshots/COMMIT` links to it."""
    snapshot, blobs = tmp_path / "models--me--mine" / "snapshots" / "0123", tmp_path / "models--me--mine" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(saved.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert load(snapshot).output_dim == 6
    (tmp_path / "outside").touch()
    linked("more.json", "../../../outside")(snapshot)
    with refused("leads out of it"):
        load(snapshot)


def test_a_link_within_the_folder_is_its_own(saved: Path) -> None:
    linked("again.safetensors", WEIGHTS)(saved)
    assert load(saved).output_dim == 6


def test_a_link_to_the_folder_itself_is_a_persons(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(saved)
    assert load(tmp_path / "latest").output_dim == 6


@pytest.mark.parametrize("files", [["../outside", "/etc/passwd"], DEEP, 7, [7], "outside", {"a": 1}])
def test_files_that_a_folder_claims_are_not_touched(files: object, saved: Path, tmp_path: Path) -> None:
    """A model that is written over another removes what that one says it has written, in its folder and there alone."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (saved / "mine.txt").write_text("mine")
    if files is DEEP:
        text(DEEP)(saved)
    else:
        edit(files=files)(saved)
    with pytest.raises(FolderError, match="holds something else than a saved model"):
        check_writable(saved)
    assert outside.read_text() == "mine"


def test_a_model_over_links_replaces_the_links_alone(saved: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    linked(WEIGHTS, "../outside")(saved)
    build_model("letters").save(saved)
    assert outside.read_text() == "mine"
    assert not (saved / WEIGHTS).is_symlink()


ADAPTERS: dict[str, tuple[dict[str, object], str]] = {
    "a module to import": ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_"),
    "a pattern that never ends": ({"target_modules": "(a+)+$"}, "no list of names"),
    "a pattern for ranks": ({"rank_pattern": {"(a+)+$": 3}}, "rank_pattern"),
    "a rank of billions": ({"r": 1 << 40}, "not the rank of its matrices"),
    "a rank of another type": ({"r": "2"}, "not the rank of its matrices"),
    "a scale of another type": ({"lora_alpha": "os"}, "lora_alpha"),
    "a dropout of all": ({"lora_dropout": 1.5}, "lora_dropout"),
    "another method": ({"use_dora": True}, "use_dora"),
    "weights that are computed": ({"init_lora_weights": "eva"}, "init_lora_weights"),
    "layers that are not there": ({"target_modules": ["nothing"]}, "cannot be read"),
}


@pytest.mark.parametrize("animal", ADAPTERS)
def test_a_hostile_adapter_is_refused(animal: str, tmp_path: Path, bomb: Bomb, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft", reason="LoRA needs PEFT")
    from tests.modeling.test_lora import with_lora

    folder = with_lora().save(tmp_path / "adapter", adapter=True)
    assert load(folder).output_dim == 16
    (tmp_path / "evil.py").write_text(f"open({str(bomb.canary)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    changes, expected = ADAPTERS[animal]
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with refused("adapter", expected):
        load(folder)
