"""Each fault that is planted into the toy plugin fails the checks that name it, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finetuner_core.modeling.build import build_model
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.testing import backbone, weights
from finetuner_core.testing.check import BACKBONE, LOSS, METADATA, POOLING, Check, all_checks

FEEDING = ["preprocess", "pickle", "inputs"]
VECTORS = ["features", "width", "distinct", "batch", "order", "padding", "eval", "bf16"]

# Of each fault the checks that fail, the one that names it first, and a part of what that one says. Where others fail
# as well, what they look at is wrong too: dropout makes each of them see another vector.
FAULTS: dict[str, tuple[list[str], str]] = {
    "torch imported at the top": (["metadata-light_import"], 'Importing the plugin "toy" imports numpy, torch'),
    "network asked while listing": (["metadata-no_socket"], "asked the network for weights.invalid"),
    "rows that change": (["metadata-same_rows", "metadata-rows"], "and the second time 5 other ones"),
    "rows in the order of a set": (["metadata-same_rows"], "and in a new process 14 other ones"),
    "a pooling that there is not": (["metadata-rows"], 'no pooling "median"'),
    "width unknown": (["metadata-rows"], "toy/others has output_dim None"),
    "no preprocess": (
        ["modalities", *FEEDING, *VECTORS, "gradient", "save"],
        "has no extractor or no preprocess for text",
    ),
    "items prepared together": (["preprocess", "inputs", "padding"], "something else of item 0 alone"),
    "length of zero": (["preprocess"], "item 0 has length 0"),
    "batch not the first dimension": (["preprocess"], "collates 5 items into tensors of the shapes {'ids': (87, 5)}"),
    "preprocess that cannot be pickled": (["pickle"], "Pickling the preprocess of toy/words for text fails"),
    "preprocess that loses something": (["pickle"], "A pickled copy of the preprocess of toy/words"),
    "empty text refused": (["inputs"], "cannot take an empty text: IndexError"),
    "long text not cut": (["inputs"], "reads 4801 tokens of a long text, its max_length is 200"),
    "long text cut in silence": (["inputs"], "reads 200 tokens of a long text, its max_length is 200, and is_cut says"),
    "mask of floats": (["features", "inputs", *VECTORS[1:], "gradient", "save"], "the mask is torch.float32 (5, 87)"),
    "native not pooled": (
        ["features", "width", "distinct", "batch", "order", "padding", "eval", "gradient", "save"],
        "87 tokens come instead of the backbone's own vector",
    ),
    "width misreported in row": (
        ["width", *(name for name in BACKBONE if name not in ("width", "unknown_option"))],
        "emits vectors of width [16], and its row says 17",
    ),
    "width misreported everywhere": (["width"], "the extractor's dim is 17, and its tokens are 16 wide"),
    "logits given": (["width"], "the extractor's dim is 16, and its tokens are 5 wide"),
    "items not looked at": (["distinct"], "items 0 and 1 are different and have the same vector"),
    "a batch's own statistics": (["batch", "padding"], "item 0 has another vector in a batch"),
    "batch sorted by length": (["order", "padding"], "the same batch turned round differ by"),
    "mask ignored": (["padding"], "item 0 has another vector beside a much longer item than alone"),
    "batch norm left in training mode": (["eval", "batch", "padding"], "extractor.network.norm in training mode"),
    "batch norm called as in training": (["eval", "batch", "padding"], "extractor.network.norm.running_mean, "),
    "dropout left on": (["eval", "batch", "order", "padding", "save"], "two runs in evaluation differ by"),
    "overflow in bfloat16": (["bf16"], "in bfloat16 vectors hold NaN"),
    "root of zero in bfloat16": (["bf16"], "in bfloat16 the gradient of"),
    "pooled before the last norm": (["gradient"], "2 parameters have no part in the vector: text: network.last.weight"),
    "head left on": (["gradient"], "2 parameters have no part in the vector: text: network.head.weight"),
    "a layer in no stage": (["stages"], "no stage holds network.norm.weight, network.norm.bias"),
    "a layer in two stages": (["stages"], "more than one stage holds network.mix.weight, network.mix.bias"),
    "save forgets batch statistics": (["save"], "saved and loaded once, the vectors of items differ by"),
    "head left in the network": (["leftovers"], "2501 numbers are saved, and the model holds 2417"),
    "pretrained=False fetches": (["offline"], "pretrained=False asks the network for weights.invalid"),
    "pooling: width misreported": (["pooling-scaled-width"], "come torch.float32 (3, 12), and its dim is 13"),
    "pooling: mask ignored": (["pooling-scaled-padding", "pooling-scaled-gradient"], "padding on the right changes"),
    "pooling: one token too few": (["pooling-scaled-one_token"], "makes NaN or infinite numbers of one token"),
    "pooling: parameter unused": (["pooling-scaled-gradient"], "spare gets no gradient"),
    "loss: one for each pair": (
        [f"loss-spread-{name}" for name in LOSS if name != "scored"],
        "gives a tensor (72,) for a batch of 9",
    ),
    "loss: detached": (
        ["loss-spread-gradient", "loss-spread-references", "loss-spread-excluded", "loss-spread-no_pairs"],
        "no gradient reaches the embeddings",
    ),
    "loss: references ignored": (["loss-spread-references"], "no gradient reaches the references"),
    "loss: excluded ignored": (["loss-spread-excluded"], "where a reference lies elsewhere of which all pairs are"),
    "loss: scores ignored": (["loss-ranked-scored"], "for scores and for the same with the other sign"),
    "loss: divided by the spread of scores": (["loss-ranked-scored", "loss-ranked-no_pairs"], "gives tensor(inf"),
    "loss: mean of nothing": (["loss-spread-no_pairs", "loss-spread-excluded"], "gives tensor(nan"),
    "loss: labels as numbers": (["loss-spread-order"], "and with other numbers as labels"),
}
ALL = [*(f"metadata-{name}" for name in METADATA), *(f"words-{name}" for name in BACKBONE)]
ALL += [f"pooling-scaled-{name}" for name in POOLING]
ALL += [f"loss-{loss}-{name}" for loss in ("spread", "ranked") for name in LOSS]

InstallToy = Callable[[str], None]


@pytest.fixture
def install_toy(install_plugin: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> InstallToy:
    """Installs the toy plugin with a fault, or with none."""

    def install(fault: str) -> None:
        monkeypatch.setenv("TOY_FAULT", fault)
        install_plugin("toy", target="toy.plugin")

    return install


def failures(*, metadata: bool = True) -> dict[str, str]:
    """What each check of the toy plugin says that fails; those of metadata cost a process."""
    checks = all_checks("toy", backbones={"words": {}}, poolings={"scaled": {}}, losses={"spread": {}, "ranked": {}})
    assert [check.id for check in checks] == ALL
    run = [check for check in checks if metadata or not check.id.startswith("metadata-")]
    return {check.id: message for check in run if (message := failure(check))}


def failure(check: Check) -> str:
    try:
        check()
    except Exception as error:  # a CheckError, or what the toy plugin raises
        return str(error)
    return ""


def test_without_a_fault_nothing_fails(install_toy: InstallToy) -> None:
    install_toy("")
    assert failures() == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_checks_that_name_it(fault: str, install_toy: InstallToy) -> None:
    names, message = FAULTS[fault]
    names = [f"words-{name}" if name in BACKBONE else name for name in names]
    install_toy(fault)

    found = failures(metadata=names[0].startswith("metadata-"))

    assert sorted(found) == sorted(names)
    assert message in found[names[0]]
    # What was wrong, and what to do.
    assert len(found[names[0]].splitlines()) >= 2 or "misreported in row" in fault


def test_an_option_that_nobody_declared_is_seen_where_it_is_taken(
    install_toy: InstallToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No plugin can take one, since the core refuses it. Here the core does not."""
    install_toy("")

    def careless(name: str, **options: Any) -> EmbeddingModel:
        options.pop(weights.UNKNOWN_OPTION, None)
        return build_model(name, **options)

    monkeypatch.setattr(backbone, "build_model", careless)
    assert list(failures()) == ["words-unknown_option"]


def test_every_check_is_failed_by_some_fault() -> None:
    named = {f"words-{name}" if name in BACKBONE else name for names, _ in FAULTS.values() for name in names[:1]}
    # The one is failed in the tests of the metadata, and the other in the test above. Of the losses some one fails it.
    expected = {name for name in ALL if "spread" not in name} - {"metadata-entry_point", "words-unknown_option"}
    assert {name.replace("spread", "ranked") for name in named} == expected
