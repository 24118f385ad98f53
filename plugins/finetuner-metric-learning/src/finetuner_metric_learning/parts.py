"""What a loss of the library is put together with, by name: distances, reducers, regularizers and miners.

Importing this imports neither torch nor pytorch-metric-learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetuner_core.plugin import Option


@dataclass(frozen=True)
class Kind:
    """A place that one of several classes can take, as a loss option of this name.

    Args:
        name: the option, such as `distance`; the arguments of the chosen class are options with it before their names.
        help: what it is for, with what stands there otherwise.
        classes: for each class of the library its own arguments.
    """

    name: str
    help: str
    classes: Mapping[str, tuple[Option, ...]]

    def options(self, names: Sequence[str]) -> tuple[Option, ...]:
        """What a loss that takes some of the classes declares."""
        owners: dict[str, list[str]] = {}
        first: dict[str, Option] = {}
        for name in names:
            for option in self.classes[name]:
                owners.setdefault(option.name, []).append(name)
                first.setdefault(option.name, option)
        return (
            Option(self.name, "str", None, self.help, choices=tuple(names)),
            *(
                # None says that nobody asked for it: the class has its own default, or no such argument.
                Option(
                    f"{self.name}_{name}",
                    option.type,
                    None,
                    f"{option.help} Of {', '.join(owners[name])}; else its own"
                    + (f", {option.default}." if option.default is not None else "."),
                    choices=option.choices,
                    minimum=option.minimum,
                )
                for name, option in first.items()
            ),
        )


_NORM = (
    Option("p", "float", 2.0, "The norm's exponent.", minimum=1),
    Option("power", "float", 1.0, "What the result is raised to."),
)
_NORMALIZE = Option("normalize_embeddings", "bool", True, "Whether what is compared is brought to length 1 first.")

DISTANCE = Kind(
    "distance",
    "How embeddings are compared; else the loss's own.",
    {
        "CosineSimilarity": _NORM,
        "DotProductSimilarity": (*_NORM, _NORMALIZE),
        "LpDistance": (*_NORM, _NORMALIZE),
        "SNRDistance": (*_NORM, _NORMALIZE),
    },
)

REDUCER = Kind(
    "reducer",
    "How one number is made of the losses of all pairs or items; else the loss's own.",
    {
        "AvgNonZeroReducer": (),
        "MeanReducer": (),
        "PerAnchorReducer": (),
        "SumReducer": (),
        "ThresholdReducer": (
            Option("low", "float", None, "Losses up to this do not count."),
            Option("high", "float", None, "Losses from this on do not count."),
        ),
    },
)

EMBEDDING_REGULARIZER = Kind(
    "embedding_regularizer",
    "What is added for the embeddings; else nothing.",
    {"LpRegularizer": _NORM, "ZeroMeanRegularizer": ()},
)

WEIGHT_REGULARIZER = Kind(
    "weight_regularizer",
    "What is added for the classes' vectors; else nothing.",
    {
        "CenterInvariantRegularizer": (),
        "LpRegularizer": _NORM,
        "RegularFaceRegularizer": (),
        "ZeroMeanRegularizer": (),
    },
)

_STRATEGIES = ("hard", "semihard", "easy", "all")
_MINER_DISTANCE = Option("distance", "str", None, "How embeddings are compared.", choices=tuple(DISTANCE.classes))

MINER = Kind(
    "miner",
    "What chooses the pairs or triplets that count, of those that a batch has; else all do.",
    {
        "AngularMiner": (Option("angle", "float", 20.0, "Least angle of a triplet, in degrees."),),
        "BatchEasyHardMiner": (
            Option("pos_strategy", "str", "easy", "Which positive of an anchor.", choices=_STRATEGIES),
            Option("neg_strategy", "str", "semihard", "Which negative of an anchor.", choices=_STRATEGIES),
            Option("allowed_pos_range", "str", None, "Least and greatest distance of a positive, as 0.1,0.9."),
            Option("allowed_neg_range", "str", None, "Least and greatest distance of a negative, as 0.1,0.9."),
            _MINER_DISTANCE,
        ),
        "BatchHardMiner": (
            Option("allowed_pos_range", "str", None, "Least and greatest distance of a positive, as 0.1,0.9."),
            Option("allowed_neg_range", "str", None, "Least and greatest distance of a negative, as 0.1,0.9."),
            _MINER_DISTANCE,
        ),
        "DistanceWeightedMiner": (
            Option("cutoff", "float", 0.5, "Nearer negatives are drawn as if they were this far."),
            Option("nonzero_loss_cutoff", "float", 1.4, "Negatives farther than this are not drawn."),
        ),
        "HDCMiner": (
            Option("filter_percentage", "float", 0.5, "Share of the pairs that count, the hardest first.", minimum=0),
            _MINER_DISTANCE,
        ),
        "MultiSimilarityMiner": (
            Option("epsilon", "float", 0.1, "By how much pairs may be easier than the hardest of the other kind."),
            _MINER_DISTANCE,
        ),
        "PairMarginMiner": (
            Option("pos_margin", "float", 0.2, "Positives farther than this count."),
            Option("neg_margin", "float", 0.8, "Negatives nearer than this count."),
            _MINER_DISTANCE,
        ),
        "TripletMarginMiner": (
            Option("margin", "float", 0.2, "Triplets that keep this margin do not count."),
            Option(
                "type_of_triplets",
                "str",
                "all",
                "Which of those that do not keep it; easy are those that do.",
                choices=("all", "hard", "semihard", "easy"),
            ),
            _MINER_DISTANCE,
        ),
        "UniformHistogramMiner": (
            Option("num_bins", "int", 100, "Bins between the least and the greatest distance.", minimum=1),
            Option("pos_per_bin", "int", 10, "Positives drawn from each bin.", minimum=1),
            Option("neg_per_bin", "int", 10, "Negatives drawn from each bin.", minimum=1),
            _MINER_DISTANCE,
        ),
    },
)

KINDS = (DISTANCE, REDUCER, EMBEDDING_REGULARIZER, WEIGHT_REGULARIZER, MINER)
