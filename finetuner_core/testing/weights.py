"""Checks of a backbone's parameters: which take part, how they are frozen, saved and loaded."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open

from finetuner_core.errors import OptionError
from finetuner_core.modeling.build import load
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.testing.backbone import build, embed, farthest, items, models_of, row_of, sides_of, stir, where
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.testing.network import watched_network

UNKNOWN_OPTION = "an_option_that_no_backbone_has"


def check_gradient(subject: Subject) -> None:
    """Every parameter of an extractor gets a gradient from its modality, with each pooling of the row.

    One that gets none is saved, counted and moved to the GPU for nothing; and most often it shows that the vector is
    not the right one: that the head was left on, or that pooling comes before a layer that ought to come first.
    """
    for pooling in row_of(subject).poolings:
        # What an unlucky draw has switched off, such as a ReLU of a small network, another one has not.
        unused = _without_gradient(subject, pooling, seed=0)
        for seed in range(1, 4):
            if unused:
                unused = [name for name in _without_gradient(subject, pooling, seed) if name in unused]
        require(
            not unused,
            f"{subject.full_name} with pooling {pooling}: {len(unused)} parameters have no part in the vector: "
            f"{', '.join(unused[:5])}.",
            "Delete in strip_head what only the head uses, and pool after the last layer that the vector needs.",
        )


def _without_gradient(subject: Subject, pooling: str, seed: int) -> list[str]:
    model = stir(build(subject, pooling, seed=seed), seed).requires_grad_(True)
    unused: list[str] = []
    for modality in model.modalities:
        model.zero_grad()
        preprocess, encoder = model.preprocess(modality), model.encoder(modality)
        vectors = encoder(preprocess.collate(preprocess.prepare(items(subject, modality))))
        torch.autograd.backward((vectors * torch.linspace(-1, 1, vectors.numel()).view(vectors.shape)).sum())
        unused += [
            f"{modality}: {name}"
            for name, parameter in encoder.extractor.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        ]
    return unused


def check_stages(subject: Subject) -> None:
    """The stages hold every parameter of the extractor, each once, so that freezing some leaves the others.

    Their modules and parameters are the extractor's own, and their names differ.
    """
    for model in models_of(subject):
        for modality in model.modalities:
            extractor, about = model.encoder(modality).extractor, where(model, modality)
            stages = list(extractor.stages())
            held = Counter(
                id(parameter)
                for stage in stages
                # A set: what two modules of one stage share is frozen with it, and no fault.
                for parameter in {*(it for module in stage.modules for it in module.parameters()), *stage.parameters}
            )
            names = {id(parameter): name for name, parameter in extractor.named_parameters()}
            missing = [name for key, name in names.items() if not held[key]]
            twice = [name for key, name in names.items() if held[key] > 1]
            require(not missing, f"{about}: no stage holds {', '.join(missing[:5])}.", "Add a stage, or add it to one.")
            require(
                not twice,
                f"{about}: more than one stage holds {', '.join(twice[:5])}.",
                "Let the stage that comes first have it.",
            )
            require(
                held.keys() <= names.keys(),
                f"{about}: a stage holds {len(held.keys() - names.keys())} parameters that the extractor does not.",
                "Make the stages of what is left after strip_head.",
            )
            titles = [stage.name for stage in stages]
            require(
                len(titles) == len(set(titles)) and all(titles),
                f"{about}: stages are named {', '.join(titles)}.",
                "Give each a name of its own.",
            )


def check_save(subject: Subject) -> None:
    """What is saved and loaded gives the same vectors, bit by bit, and so does what is saved and loaded once more."""
    for model in models_of(subject):
        with tempfile.TemporaryDirectory() as scratch:
            opened = model
            for folder in (Path(scratch) / "once", Path(scratch) / "again"):
                opened = load(opened.save(folder))
                for modality, side in ((it, side) for it in model.modalities for side in sides_of(model, it)):
                    some = items(subject, modality)
                    before, after = embed(model, modality, some, side), embed(opened, modality, some, side)
                    require(
                        torch.equal(before, after),
                        f"{where(model, modality)}: saved and loaded {folder.name}, the vectors of "
                        f"{side or 'items'} differ by {farthest(before, after):.2g}.",
                        "Let LoadedBackbone.save write the network that it is handed, buffers and settings included, "
                        "and all that the preprocess needs.",
                    )


def check_leftovers(subject: Subject) -> None:
    """What is saved holds no number that the model does not: the head is gone, also from the file.

    Single numbers are not counted: what compares vectors is often saved with one, such as CLIP's temperature.
    """
    for model in models_of(subject):
        with tempfile.TemporaryDirectory() as scratch:
            saved = _numbers_in(model.save(Path(scratch) / "model"))
        held = _numbers_of(model)
        require(
            saved <= held,
            f"{subject.full_name} with pooling {model.pooling}: {saved} numbers are saved, and the model holds {held}.",
            "Delete in strip_head what only the head uses from the network itself, of which save is handed a copy.",
        )


def check_unknown_option(subject: Subject) -> None:
    """An option that the row does not declare is refused by its name.

    The core does that for every backbone; this sees to it that no plugin gets round it.
    """
    try:
        build(subject, options={UNKNOWN_OPTION: 1})
    except OptionError as error:
        require(
            UNKNOWN_OPTION in str(error), f"{subject.full_name} refuses an option, but says only: {error}", "Name it."
        )
        return
    fail(
        f"{subject.full_name} takes the option {UNKNOWN_OPTION}, which it does not have.",
        "Declare all options in the row.",
    )


def check_offline(subject: Subject) -> None:
    """With `pretrained=False` the backbone is built without asking the network for anything."""
    with watched_network() as attempts:
        try:
            build(subject)
        except Exception as error:  # What a refused network leads to, which is told below.
            if not attempts:
                raise
            attempts.append(f"which ended in {type(error).__name__}")
    require(
        not attempts,
        f"{subject.full_name} with pretrained=False asks the network for {', '.join(attempts[:3])}.",
        "Make the configuration and the preprocess from what the plugin or the disk holds.",
    )


def _numbers_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                numbers = torch.Size(opened.get_slice(name).get_shape()).numel()
                total += numbers if numbers > 1 else 0
    return total


def _numbers_of(model: EmbeddingModel) -> int:
    """Each tensor once, also where two names or two modalities share it."""
    tensors = {id(tensor): tensor.numel() for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensors.values())
