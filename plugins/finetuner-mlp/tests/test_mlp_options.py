"""What a person may say of an MLP, and what the network then is."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import finetuner
from finetuner_core.errors import OptionError


def layers(model: finetuner.EmbeddingModel) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_the_row_is_listed_under_its_bare_name() -> None:
    row = next(row for row in finetuner.list_models("all") if row.name == "mlp")
    assert (row.output_dim, row.modalities, row.poolings) == (None, ("vector",), ("native",))


def test_input_size_has_to_be_given() -> None:
    with pytest.raises(OptionError, match="needs the option input_size"):
        finetuner.build_model("mlp")


@pytest.mark.parametrize(("sizes", "widths"), [((8,), [(5, 8)]), ("16,8,4", [(5, 16), (16, 8), (8, 4)])])
def test_hidden_sizes_are_the_widths_of_the_layers_and_the_last_is_the_embeddings(
    sizes: object, widths: list[tuple[int, int]]
) -> None:
    model = finetuner.build_model("mlp", input_size=5, hidden_sizes=sizes)
    assert [(layer.in_features, layer.out_features) for layer in layers(model)] == widths
    assert model.output_dim == widths[-1][1]
    assert model.encode([[0.0, 1, 2, 3, 4]]).shape == (1, widths[-1][1])


def test_the_default_is_two_layers_with_gelu_and_bias() -> None:
    model = finetuner.build_model("mlp", input_size=3)
    assert [layer.out_features for layer in layers(model)] == [512, 256]
    assert all(layer.bias is not None for layer in layers(model))
    assert sum(isinstance(module, nn.GELU) for module in model.modules()) == 1


def test_without_bias_no_layer_has_one() -> None:
    assert all(layer.bias is None for layer in layers(finetuner.build_model("mlp", input_size=3, bias=False)))


def test_dropout_stands_between_the_layers_and_never_behind_the_last() -> None:
    model = finetuner.build_model("mlp", input_size=3, hidden_sizes=(4, 4, 4), dropout=0.25)
    order = [type(module) for module in model.modules() if not list(module.children())]
    linear_act_drop = [nn.Linear, nn.GELU, nn.Dropout]
    assert [kind for kind in order if kind in linear_act_drop] == [*linear_act_drop * 2, nn.Linear]
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, 'input_size is "0"; it must be at least 1'),
        ({"input_size": "wide"}, 'input_size takes a whole number, not "wide"'),
        ({"hidden_sizes": ()}, "hidden_sizes is empty"),
        ({"hidden_sizes": ""}, "hidden_sizes is empty"),
        ({"hidden_sizes": (4, 0)}, "hidden_sizes is .*; it must be at least 1"),
        ({"activation": "sine"}, 'activation is "sine"; allowed are relu, gelu, silu, tanh'),
        ({"bias": "perhaps"}, 'bias takes true or false, not "perhaps"'),
        ({"dropout": -0.1}, 'dropout is "-0.1"; it must be at least 0'),
        ({"dropout": 1.0}, "dropout is 1.0; it must be less than 1"),
        ({"dropout": float("nan")}, r'dropout .*"nan"'),
        ({"droput": 0.1}, 'no option "droput". Did you mean "dropout"'),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        finetuner.build_model("mlp", **{"input_size": 3, **options})
