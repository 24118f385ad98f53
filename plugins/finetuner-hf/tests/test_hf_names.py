"""Which names and folders mean what, and what is said where one cannot be opened."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    DetrConfig,
    FNetConfig,
    LlavaConfig,
    LukeConfig,
    PatchTSTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Wav2Vec2Config,
    WhisperConfig,
)

import finetuner
from finetuner_core.errors import FinetunerError, WeightsError
from finetuner_core.plugin import TEXT_POOLINGS
from finetuner_hf import plugin, rows
from finetuner_hf.architecture import BATCH_DEPENDENT

CONFIG = BertConfig(vocab_size=128, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)

SaveModel = Callable[..., PreTrainedModel]


def lines_of(name: str) -> list[str]:
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model(name)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "name", ["bert-base-cased", "hf/nobody/nothing", "openai/clip-vit-base-patch32", "hf/bert-base-uncased"]
)
def test_what_is_not_in_the_cache_is_two_lines_with_what_to_do(name: str) -> None:
    first, second = lines_of(name)
    bare = name.removeprefix("hf/")
    assert first.startswith(f"hf/{bare} is not in the local cache, or not whole")
    assert second.startswith(f"With a network, run: hf download {bare} ")


@pytest.mark.parametrize("name", ["a/b/c", "-x..", "white space"])
def test_what_cannot_be_the_name_of_a_repository_is_refused(name: str) -> None:
    with pytest.raises(FinetunerError, match=name):
        finetuner.build_model(f"hf/{name}")


def test_a_cache_that_is_not_whole_is_refused(put_into_cache: Callable[[str], Path]) -> None:
    half = put_into_cache("someone/half")
    CONFIG.save_pretrained(half)
    # Whoever used it with transformers alone never asked for the file by which its pooling is declared.
    first, second = lines_of("hf/someone/half")
    assert first == "hf/someone/half is in the local cache, but not whether it declares a pooling (modules.json)."
    assert second.startswith("With a network, run: hf download someone/half ")
    # What the Hub has answered once, that there is none, the cache remembers.
    absent = half.parent.parent / ".no_exist" / half.name
    absent.mkdir(parents=True)
    (absent / "modules.json").touch()
    first, _ = lines_of("hf/someone/half")
    assert "hf/someone/half is not in the local cache, or not whole" in first


def test_a_name_that_is_nearly_in_the_cache() -> None:
    first, _ = lines_of("hf/bert-base-case")
    assert first.endswith('Did you mean "bert-base-cased"?')


@pytest.mark.parametrize(
    "config",
    [None, "{", "[]", '"bert"', '{"architecture": "test_vit"}', '{"format": "finetuner-mlp"}'],
)
def test_a_folder_of_another_format_is_not_claimed(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert plugin.find_backbone(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BartConfig(), "it is an encoder-decoder, and transformers has no class for its encoder alone"),
        (Wav2Vec2Config(), "it is one for sound"),
        (WhisperConfig(), "it is one for sound"),
        (DetrConfig(), "it says what is where in an image, and gives no embedding"),
        (LlavaConfig(), "it writes texts about what it is shown, and gives no embedding"),
        (FNetConfig(), "its vectors change with the padding of the batch"),
        (LukeConfig(), "it needs more than a text to use all of its parameters"),
        (PatchTSTConfig(), ""),
    ],
    ids=lambda value: value.model_type if isinstance(value, PreTrainedConfig) else "",
)
def test_a_model_that_has_no_embedding_is_refused_with_the_reason(
    config: PreTrainedConfig, reason: str, tmp_path: Path
) -> None:
    config.save_pretrained(tmp_path)
    first, second = lines_of(str(tmp_path))
    end = f": {reason}." if reason else "."
    assert first == f"{tmp_path} is a {config.model_type} model, which finetuner-hf does not open{end}"
    assert second.startswith("It opens text models (BERT, T5, Qwen3, ...)")


def test_the_families_whose_padding_matters_are_those_whose_padding_matters() -> None:
    """So that a family is not refused for what it does no longer: the shortest of them, measured."""
    torch.manual_seed(0)
    config = FNetConfig(vocab_size=128, hidden_size=32, num_hidden_layers=1, intermediate_size=48)
    network: Any = AutoModel.from_config(config).eval()  # type: ignore[no-untyped-call]
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        alone = network(input_ids=ids).last_hidden_state
        padded = network(input_ids=torch.nn.functional.pad(ids, (0, 2))).last_hidden_state[:, :3]
    assert (alone - padded).abs().max() > 1e-3
    assert "fnet" in BATCH_DEPENDENT


def set_trap(folder: Path) -> Path:
    """Puts code into a repository that leaves a file where it is run."""
    trap = folder / "executed"
    (folder / "own.py").write_text(f"open({str(trap)!r}, 'w')\n\n\nclass Own:\n    pass\n")
    return trap


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_repository_that_needs_its_own_code_is_refused_and_the_code_not_run(
    tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path, CONFIG)
    trap = set_trap(tmp_path)
    change(tmp_path / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.Own"})
    assert lines_of(str(tmp_path)) == [
        f"{tmp_path} brings Python code of its own, which finetuner-hf never runs.",
        "Choose a model whose architecture transformers itself has, such as bert-base-cased.",
    ]
    assert not trap.exists()


@pytest.mark.parametrize("sign", ["architecture", "weights"])
def test_nor_is_a_network_opened_in_the_place_of_another_of_its_name(
    sign: str, tmp_path: Path, save_text_model: SaveModel
) -> None:
    # As jinaai/jina-embeddings-v2-base-en: it calls itself a bert, and its own code makes another network of it.
    save_text_model(tmp_path, CONFIG)
    trap = set_trap(tmp_path)
    if sign == "architecture":
        change(tmp_path / "config.json", architectures=["OwnBertModel"])
    else:
        tensors = load_file(tmp_path / "model.safetensors")
        del tensors["embeddings.position_embeddings.weight"]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    change(tmp_path / "config.json", auto_map={"AutoModel": "own.Own"})
    assert lines_of(str(tmp_path))[0] == f"{tmp_path} brings Python code of its own, which finetuner-hf never runs."
    assert not trap.exists()


def test_code_that_a_repository_brings_without_need_is_not_run(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path, CONFIG)
    trap = set_trap(tmp_path)
    change(tmp_path / "config.json", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.Own"})
    change(tmp_path / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    model = finetuner.build_model(str(tmp_path))
    assert model.encode(["cat"]).shape == (1, 32)
    model.save(tmp_path / "saved")
    assert "auto_map" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not trap.exists()


def test_an_architecture_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "frobnicator"}')
    first, second = lines_of(str(tmp_path))
    assert first.startswith(f"{tmp_path} cannot be loaded: ")
    assert "frobnicator" in first
    assert second


def test_a_folder_never_stands_in_for_a_name(
    tmp_path: Path, save_text_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_text_model(tmp_path / "bert-base-cased", CONFIG)
    monkeypatch.chdir(tmp_path)
    first, second = lines_of("bert-base-cased")
    assert first.startswith("bert-base-cased is the name of a model and of a folder here")
    assert second.startswith("For the folder write ./bert-base-cased")
    assert finetuner.build_model("./bert-base-cased").output_dim == 32


def test_a_found_row_says_what_is_known(tmp_path: Path, save_text_model: SaveModel) -> None:
    save_text_model(tmp_path / "bert", CONFIG)
    row = plugin.find_backbone(str(tmp_path / "bert"))
    assert row is not None
    assert (row.task, row.output_dim, row.poolings) == ("text-to-text", 32, TEXT_POOLINGS)
    assert row.description == "bert"
    assert [option.name for option in row.options] == ["max_length", "prompt", "query_prompt", "document_prompt"]


def test_search_gives_what_the_cache_holds(put_into_cache: Callable[[str], Path]) -> None:
    assert list(plugin.find_backbone_names("*")) == sorted(row.name for row in rows.ROWS)
    CONFIG.save_pretrained(put_into_cache("someone/bert-small"))
    assert list(plugin.find_backbone_names("*bert-small")) == ["someone/bert-small"]
    assert list(plugin.find_backbone_names("bert-*")) == ["bert-base-cased"]
    assert list(plugin.find_backbone_names("resnet*")) == []


def test_opening_a_text_model_needs_nothing_of_pictures(
    tmp_path: Path, save_text_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_text_model(tmp_path, CONFIG)
    for module in ("finetuner_hf.clip", "finetuner_hf.image"):
        monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    assert finetuner.build_model(str(tmp_path)).encode(["cat"]).shape == (1, 32)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, finetuner_hf.plugin\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'tokenizers', 'PIL', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
