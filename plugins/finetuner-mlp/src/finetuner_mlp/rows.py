"""The row of the table. Importing this imports no torch."""

from __future__ import annotations

from finetuner_core.plugin import BackboneInfo, Option

ROW = BackboneInfo(
    name="mlp",
    task="all",
    output_dim=None,
    architecture="MLP",
    description="Simple MLP encoder trained from scratch",
    options=(
        Option(
            "input_size", "int", None, "Width of the vectors; fit takes it from the data.", minimum=1, required=True
        ),
        Option("hidden_sizes", "ints", (512, 256), "Width of each layer; the last is the embedding's.", minimum=1),
        Option("activation", "str", "gelu", "Between the layers.", choices=("relu", "gelu", "silu", "tanh")),
        Option("bias", "bool", True, "Whether layers have a bias."),
        Option("dropout", "float", 0.0, "Share of values dropped after each activation in training.", minimum=0),
    ),
    licence="Apache-2.0",
    source="finetuner-mlp",
)
