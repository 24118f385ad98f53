"""The losses of the library, as literals. Importing this imports neither torch nor pytorch-metric-learning."""

from __future__ import annotations

from dataclasses import dataclass

from finetuner_core.plugin import LossInfo, Option
from finetuner_metric_learning.parts import DISTANCE, EMBEDDING_REGULARIZER, MINER, REDUCER, WEIGHT_REGULARIZER

_ANY = tuple(DISTANCE.classes)
_SIMILARITIES = ("CosineSimilarity", "DotProductSimilarity")
_REDUCERS = tuple(REDUCER.classes)
_FLAT_REDUCERS = tuple(name for name in _REDUCERS if name != "PerAnchorReducer")

_NUM_CLASSES = Option(
    "num_classes", "int", None, "Number of classes; fit takes it from labelled data.", minimum=1, required=True
)
_EMBEDDING_REG_WEIGHT = Option("embedding_reg_weight", "float", 1.0, "What the regularizer is multiplied by.")
_WEIGHT_REG_WEIGHT = Option("weight_reg_weight", "float", 1.0, "What the regularizer is multiplied by.")


@dataclass(frozen=True)
class Loss:
    """A class of `pytorch_metric_learning.losses` that is called with embeddings and labels.

    Args:
        name: of the class, and of the loss.
        description: one line, with the paper.
        options: its own arguments.
        width: the argument that takes the width of the embeddings. A loss that has it learns vectors for the classes.
        distances: those that it can be computed with; empty where the library allows one only.
        reducers: those that it can be reduced with; empty where it is one number from the start.
        mines: whether it takes the choice of a miner.
        pairs: whether it can be formed between two sets of embeddings, as for data in the form of pairs.
        masks: whether single pairs can be left out of it, where it compares items and not classes.
    """

    name: str
    description: str
    options: tuple[Option, ...] = ()
    width: str = ""
    distances: tuple[str, ...] = ()
    reducers: tuple[str, ...] = _REDUCERS
    mines: bool = True
    pairs: bool = True
    masks: bool = True

    @property
    def info(self) -> LossInfo:
        """The row that the plugin lists."""
        options = [*((_NUM_CLASSES,) if self.width else ()), *self.options]
        options += DISTANCE.options(self.distances) if self.distances else ()
        options += REDUCER.options(self.reducers) if self.reducers else ()
        options += MINER.options(tuple(MINER.classes)) if self.mines else ()
        options += (*EMBEDDING_REGULARIZER.options(tuple(EMBEDDING_REGULARIZER.classes)), _EMBEDDING_REG_WEIGHT)
        if self.width == "embedding_size":
            options += (*WEIGHT_REGULARIZER.options(tuple(WEIGHT_REGULARIZER.classes)), _WEIGHT_REG_WEIGHT)
        forms = ("labelled", "pairs") if self.pairs and not self.width else ("labelled",)
        return LossInfo(self.name, self.description, tuple(options), forms)


def _margin(default: float, help: str) -> Option:
    return Option("margin", "float", default, help)


def _temperature(default: float) -> Option:
    return Option("temperature", "float", default, "What similarities are divided by.", minimum=1e-4)


_POS_MARGIN = Option("pos_margin", "float", 0.0, "How near positives have to be.")
_NEG_MARGIN = Option("neg_margin", "float", 1.0, "How far apart negatives have to be.")
_SCALE = Option("scale", "float", 64.0, "What similarities are multiplied by.")
_TRIPLETS = Option("triplets_per_anchor", "str", "all", "How many triplets of each anchor, drawn at random, or all.")
_INT_MARGIN = Option("margin", "int", 4, "What the angle to an item's own class is multiplied by.", minimum=1)

LOSSES = (
    Loss(
        "AngularLoss",
        "A bound on the angle at the negative of a triplet (Wang et al. 2017)",
        (Option("alpha", "float", 40.0, "The bound, in degrees."),),
        reducers=_FLAT_REDUCERS,
        masks=False,
    ),
    Loss(
        "ArcFaceLoss",
        "Softmax over classes with a margin on the angle (Deng et al. 2019)",
        (_margin(28.6, "The margin, in degrees."), _SCALE),
        width="embedding_size",
        pairs=False,
    ),
    Loss(
        "CircleLoss",
        "Each similarity weighed by how far it is from its optimum (Sun et al. 2020)",
        (
            Option("m", "float", 0.4, "How far from the optimum the boundary lies."),
            Option("gamma", "float", 80.0, "What similarities are multiplied by."),
        ),
    ),
    Loss(
        "ContrastiveLoss",
        "Positives within one margin, negatives beyond another (Hadsell et al. 2006)",
        (_POS_MARGIN, _NEG_MARGIN),
        distances=_ANY,
    ),
    Loss(
        "CosFaceLoss",
        "Softmax over classes with a margin on the cosine (Wang et al. 2018)",
        (_margin(0.35, "The margin, of a cosine."), _SCALE),
        width="embedding_size",
        pairs=False,
    ),
    Loss(
        "DynamicSoftMarginLoss",
        "Triplets weighed by how many of the past were easier (Zhang and Rusinkiewicz 2019)",
        (
            Option("min_val", "float", -2.0, "Where the histogram of differences of distances begins."),
            Option("num_bins", "int", 10, "Its bins.", minimum=2),
            Option("momentum", "float", 0.01, "The share of the current batch in it.", minimum=0),
        ),
        reducers=(),
    ),
    Loss(
        "FastAPLoss",
        "Average precision, made smooth by a histogram of distances (Cakir et al. 2019)",
        (Option("num_bins", "int", 10, "Bins of the histogram.", minimum=1),),
        pairs=False,
        masks=False,
    ),
    Loss(
        "GeneralizedLiftedStructureLoss",
        "Each item's positives against its negatives, all of them at once (Hermans et al. 2017)",
        (_NEG_MARGIN, _POS_MARGIN),
        distances=_ANY,
    ),
    Loss(
        "HistogramLoss",
        "How often a negative is more similar than a positive (Ustinova and Lempitsky 2016)",
        (
            Option("n_bins", "int", None, "Bins of the histogram; else 100.", minimum=1),
            Option("delta", "float", None, "Their width, 2 / n_bins, in its place.", minimum=1e-4),
        ),
        distances=_SIMILARITIES,
        reducers=(),
        pairs=False,
    ),
    Loss(
        "IntraPairVarianceLoss",
        "All positives equally similar, all negatives too (Yu and Tao 2019)",
        (
            Option("pos_eps", "float", 0.01, "By what share positives may fall below their mean."),
            Option("neg_eps", "float", 0.01, "By what share negatives may rise above theirs."),
        ),
        distances=_ANY,
    ),
    Loss(
        "LargeMarginSoftmaxLoss",
        "Softmax over classes with the angle multiplied (Liu et al. 2016)",
        (_INT_MARGIN, Option("scale", "float", 1.0, _SCALE.help)),
        width="embedding_size",
        pairs=False,
    ),
    Loss(
        "LiftedStructureLoss",
        "Each positive pair against all negatives of both of its items (Song et al. 2016)",
        (_NEG_MARGIN, _POS_MARGIN),
        distances=_ANY,
        reducers=_FLAT_REDUCERS,
    ),
    Loss(
        "MarginLoss",
        "Positives within a boundary, negatives beyond it, both by a margin (Wu et al. 2017)",
        (
            _margin(0.2, "How far from the boundary."),
            Option("nu", "float", 0.0, "Weight of the boundary itself, where it is trained."),
            Option("beta", "float", 1.2, "The boundary, or where it starts."),
            _TRIPLETS,
            Option("learn_beta", "bool", False, "Whether the boundary is trained."),
            Option("num_classes", "int", None, "Number of classes, for a boundary of each one's own.", minimum=1),
        ),
        distances=_ANY,
        reducers=_FLAT_REDUCERS,
    ),
    Loss(
        "MultiSimilarityLoss",
        "Pairs weighed by their own and by relative similarity (Wang et al. 2019)",
        (
            Option("alpha", "float", 2.0, "Weight in the exponent of positives.", minimum=1e-4),
            Option("beta", "float", 50.0, "Weight in the exponent of negatives.", minimum=1e-4),
            Option("base", "float", 0.5, "The similarity that divides the two."),
        ),
        distances=_ANY,
    ),
    Loss(
        "NCALoss",
        "The chance that a softmax over distances draws a positive (Goldberger et al. 2004)",
        (Option("softmax_scale", "float", 1.0, "What distances are multiplied by.", minimum=0),),
        distances=_ANY,
        masks=False,
    ),
    Loss(
        "NormalizedSoftmaxLoss",
        "Softmax over classes, their vectors of length 1 (Zhai and Wu 2019)",
        (_temperature(0.05),),
        width="embedding_size",
        distances=_ANY,
        pairs=False,
    ),
    Loss(
        "NPairsLoss",
        "One positive pair of each class, against those of the others (Sohn 2016)",
        distances=_ANY,
        pairs=False,
        masks=False,
    ),
    Loss(
        "NTXentLoss",
        "Each positive pair against the negatives of its anchor, by softmax (Chen et al. 2020)",
        (_temperature(0.07),),
        distances=_ANY,
    ),
    Loss(
        "P2SGradLoss",
        "Cosines to the classes brought to 1 and 0 (Zhang et al. 2019)",
        width="descriptors_dim",
        reducers=(),
        mines=False,
        pairs=False,
    ),
    Loss(
        "PNPLoss",
        "Negatives that stand before positives in the ranking (Li et al. 2021)",
        (
            Option("b", "float", 2.0, "Of variant Ib: how fast its weight rises."),
            Option("alpha", "float", 1.0, "Of variant Dq: its exponent."),
            Option("anneal", "float", 0.01, "Temperature of the smooth comparison.", minimum=1e-4),
            Option(
                "variant",
                "str",
                "O",
                "How the number of negatives before a positive counts.",
                choices=("Ds", "Dq", "Iu", "Ib", "O"),
            ),
        ),
        reducers=(),
        mines=False,
        pairs=False,
        masks=False,
    ),
    Loss(
        "ProxyAnchorLoss",
        "Each class's vector against all items of the batch (Kim et al. 2020)",
        (
            _margin(0.1, "The margin, of a similarity."),
            Option("alpha", "float", 32.0, "What similarities are multiplied by."),
        ),
        width="embedding_size",
        distances=_ANY,
        pairs=False,
    ),
    Loss(
        "ProxyNCALoss",
        "NCA with a vector for each class in the place of items (Movshovitz-Attias et al. 2017)",
        (Option("softmax_scale", "float", 1.0, "What distances are multiplied by.", minimum=0),),
        width="embedding_size",
        distances=_ANY,
        pairs=False,
    ),
    Loss(
        "RankedListLoss",
        "Positives within a sphere, negatives outside, hard ones weighed more (Wang et al. 2019)",
        (
            Option("margin", "float", None, "Between the two.", required=True),
            Option("Tn", "float", None, "Temperature of the negatives' weights.", required=True),
            Option("imbalance", "float", 0.5, "Share of the negatives in the loss, up to 1.", minimum=0),
            Option("alpha", "float", None, "How far negatives have to be; else 1 + margin / 2."),
            Option("Tp", "float", 0.0, "Temperature of the positives' weights."),
        ),
        distances=_ANY,
        mines=False,
        pairs=False,
        masks=False,
    ),
    Loss(
        "SignalToNoiseRatioContrastiveLoss",
        "Contrastive loss by the ratio of noise to signal (Yuan et al. 2019)",
        (_POS_MARGIN, _NEG_MARGIN),
    ),
    Loss(
        "SmoothAPLoss",
        "Average precision, made smooth by a sigmoid; batches of n classes of n items (Brown et al. 2020)",
        (_temperature(0.01),),
        pairs=False,
        masks=False,
    ),
    Loss(
        "SoftTripleLoss",
        "Softmax over classes with several vectors each (Qian et al. 2019)",
        (
            Option("centers_per_class", "int", 10, "Vectors of each class.", minimum=1),
            Option("la", "float", 20.0, "What similarities to classes are multiplied by."),
            Option("gamma", "float", 0.1, "Temperature among the vectors of a class.", minimum=1e-4),
            _margin(0.01, "The margin, of a similarity."),
        ),
        width="embedding_size",
        distances=_SIMILARITIES,
        pairs=False,
    ),
    Loss(
        "SphereFaceLoss",
        "Softmax over classes of length 1 with the angle multiplied (Liu et al. 2017)",
        (_INT_MARGIN, Option("scale", "float", 1.0, _SCALE.help)),
        width="embedding_size",
        pairs=False,
    ),
    Loss(
        "SubCenterArcFaceLoss",
        "ArcFace with several vectors for each class (Deng et al. 2020)",
        (
            _margin(28.6, "The margin, in degrees."),
            _SCALE,
            Option("sub_centers", "int", 3, "Vectors of each class.", minimum=1),
        ),
        width="embedding_size",
        pairs=False,
    ),
    Loss(
        "SupConLoss",
        "Each item's positives against all others of the batch (Khosla et al. 2020)",
        (_temperature(0.1),),
        distances=_ANY,
    ),
    Loss(
        "ThresholdConsistentMarginLoss",
        "One threshold for all classes, added to another loss as a rule (Zhang et al. 2023)",
        (
            Option("lambda_plus", "float", 1.0, "Weight of the positives."),
            Option("lambda_minus", "float", 1.0, "Weight of the negatives."),
            Option("margin_plus", "float", 0.9, "Positives less similar than this count."),
            Option("margin_minus", "float", 0.5, "Negatives more similar than this count."),
        ),
        reducers=(),
        pairs=False,
    ),
    Loss(
        "TripletMarginLoss",
        "An anchor nearer to its positive than to a negative by a margin (Schroff et al. 2015)",
        (
            _margin(0.05, "By how much nearer."),
            Option("swap", "bool", False, "Whether the negative may be compared with the positive in its place."),
            Option("smooth_loss", "bool", False, "Whether the bend at the margin is made smooth."),
            _TRIPLETS,
        ),
        distances=_ANY,
        reducers=_FLAT_REDUCERS,
    ),
    Loss(
        "TupletMarginLoss",
        "A positive pair against all negatives of its anchor, by the angle (Yu and Tao 2019)",
        (_margin(5.73, "The margin, in degrees."), _SCALE),
        reducers=_FLAT_REDUCERS,
    ),
)

LEFT_OUT = {
    "BaseLossWrapper": "no loss by itself",
    "BaseMetricLossFunction": "no loss by itself",
    "CrossBatchMemory": "wraps another loss to compare it with past batches, which Finetuner does itself: `memory`",
    "EmbeddingRegularizerMixin": "no loss by itself; see the option `embedding_regularizer`",
    "GenericPairLoss": "no loss by itself",
    "InstanceLoss": "takes the number of a class for that of an item of the batch, so that it depends on their order",
    "ManifoldLoss": "takes no labels",
    "MultipleLosses": "wraps several other losses",
    "SelfSupervisedLoss": "wraps another loss to take pairs without labels, which Finetuner does itself",
    "VICRegLoss": "takes no labels",
    "WeightRegularizerMixin": "no loss by itself; see the option `weight_regularizer`",
    "BaseMiner": "no miner by itself",
    "EmbeddingsAlreadyPackagedAsTriplets": "takes every three items for a triplet, whatever their labels",
}
"""Classes of `pytorch_metric_learning.losses` and `.miners` that are not offered, and why."""
