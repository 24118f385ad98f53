"""Vectors, texts and pictures, against open_clip's own network, tokenizer and transform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import finetuner
from finetuner_openclip.feeding import image_preprocess
from finetuner_openclip.library import open_clip

NAMES = ["tiny_vit", "tiny_resnet", "tiny_timm", "tiny_siglip", "tiny_coca", "tiny_roberta"]
TEXTS = ["a photo of a CAT", "Two  dogs, &amp; a mat!", "", "a cat and a dog on the mat " * 5, "a cat"]


def built(name: str) -> finetuner.EmbeddingModel:
    torch.manual_seed(0)
    model = finetuner.build_model(f"openclip/{name}", pretrained=False)
    with torch.no_grad():  # What starts as zero, as gates do, would hide what stands behind it.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def opened_by_open_clip(folder: Path) -> tuple[Any, Any, Any]:
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return network.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def check_same(ours: np.ndarray, theirs: torch.Tensor) -> None:
    expected = torch.nn.functional.normalize(theirs).numpy()
    assert (ours * expected).sum(1).min() >= 0.99999
    assert np.abs(ours - expected).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_a_saved_model_are_encode_text_and_encode_image_of_open_clip(
    name: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    model = built(name)
    model.save(tmp_path / "model")
    network, transform, tokenizer = opened_by_open_clip(tmp_path / "model")
    with torch.inference_mode():
        check_same(model.encode(TEXTS, modality="text"), network.encode_text(tokenizer(TEXTS)))
        images = torch.stack([transform(picture) for picture in pictures])
        check_same(model.encode(pictures, modality="image"), network.encode_image(images))


@pytest.mark.parametrize("name", NAMES)
def test_token_ids_are_open_clips_and_it_is_known_which_text_was_cut(name: str) -> None:
    preprocess: Any = built(name).preprocess("text")
    prepared = preprocess.prepare(TEXTS)
    assert torch.equal(preprocess.collate(prepared)["ids"], open_clip.get_tokenizer(name)(TEXTS))
    assert [preprocess.is_cut(text) for text in prepared] == [False, False, False, True, False]
    assert preprocess.max_length == preprocess.length(prepared[2]) == (11 if name == "tiny_coca" else 12)


@pytest.mark.parametrize("words", range(7, 13))
@pytest.mark.parametrize("name", ["tiny_vit", "tiny_siglip"])
def test_a_text_is_cut_from_one_token_too_many_on(name: str, words: int) -> None:
    preprocess: Any = built(name).preprocess("text")
    assert preprocess.is_cut(preprocess.prepare(["cat " * words])[0]) == (words + 2 > 12)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [96, (96, 96), (97, 97), (96, 127)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_prepared_as_open_clip_does_it(
    mode: str, size: int | tuple[int, int], interpolation: str, pictures: list[Image.Image]
) -> None:
    config = {"size": size, "resize_mode": mode, "interpolation": interpolation, "mean": (0.5, 0.4, 0.3)}
    theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
    ours = image_preprocess(config, size if isinstance(size, tuple) else (size, size))
    for picture in pictures:
        made, expected = ours.collate(ours.prepare([picture]))["pixels"][0], theirs(picture)
        assert made.shape == expected.shape
        assert torch.allclose(made, expected, rtol=0, atol=1e-6), picture.size


def test_a_captioning_model_leaves_its_decoder_behind(tmp_path: Path) -> None:
    built("tiny_coca").save(tmp_path / "model")
    network, _, _ = opened_by_open_clip(tmp_path / "model")
    assert type(network).__name__ == "CustomTextCLIP"
    assert not any("decoder" in name for name in network.state_dict())


@pytest.mark.parametrize(
    ("name", "text", "image"), [("tiny_vit", 2, 2), ("tiny_resnet", 2, 8), ("tiny_timm", 2, 4), ("tiny_roberta", 2, 2)]
)
def test_stages_go_from_embeddings_to_output(name: str, text: int, image: int) -> None:
    model = built(name)
    for modality, layers in (("text", text), ("image", image)):
        stages = model.encoder(modality).extractor.stages()  # type: ignore[arg-type]
        expected = ["embeddings", *(f"layer {number + 1}" for number in range(layers)), "output"]
        assert [stage.name for stage in stages] == expected
    tower = model.encoder("text").extractor.get_submodule("tower")
    if name == "tiny_vit":
        first, *_, last = model.encoder("text").extractor.stages()
        assert (first.modules, first.parameters) == ((tower.token_embedding,), (tower.positional_embedding,))
        assert (last.modules, last.parameters) == ((tower.ln_final,), (tower.text_projection,))
