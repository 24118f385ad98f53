"""Checks of the vectors that a backbone gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from finetuner_core.interfaces import Features
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.testing.backbone import (
    TOLERANCE,
    build,
    embed,
    farthest,
    features,
    items,
    models_of,
    row_of,
    vector_width,
    where,
)
from finetuner_core.testing.check import Subject, fail, require
from finetuner_core.testing.samples import neighbour_of
from finetuner_core.values import Modality


def check_features(subject: Subject) -> None:
    """The extractor gives tokens, float (B, T, D), and their mask, bool (B, T), with a real token for each item.

    The backbone's own vector, with the pooling `native`, is one token.
    """
    for model in models_of(subject):
        for modality in model.modalities:
            some = items(subject, modality)
            about = where(model, modality)
            with torch.inference_mode():
                given = features(model, modality, some)
            require(
                isinstance(given, Features),
                f"{about}: the extractor gives {type(given).__name__}.",
                "Give finetuner_core.interfaces.Features.",
            )
            tokens, mask = given.tokens, given.mask
            require(
                tokens.is_floating_point() and tokens.ndim == 3 and tokens.shape[0] == len(some),
                f"{about}: the tokens of {len(some)} items are {tokens.dtype} {tuple(tokens.shape)}.",
                "Give them as float (B, T, D); a map (B, D, H, W) is flatten(2).transpose(1, 2) of it.",
            )
            require(
                mask.dtype == torch.bool and mask.shape == tokens.shape[:2],
                f"{about}: the mask is {mask.dtype} {tuple(mask.shape)}, and the tokens are {tuple(tokens.shape)}.",
                "Give it as bool (B, T), true where a token is real.",
            )
            without = [position for position, real in enumerate(mask.any(1).tolist()) if not real]
            require(
                not without,
                f"{about}: the mask leaves item {without[:1]} no real token.",
                "Where only special tokens are left, let these count.",
            )
            require(
                bool(tokens[mask].isfinite().all()),
                f"{about}: real tokens hold NaN or infinite numbers.",
                "Look for a division by zero, or a softmax over nothing.",
            )
            require(
                model.pooling != "native" or tokens.shape[1] == 1,
                f"{about}: {tokens.shape[1]} tokens come instead of the backbone's own vector.",
                "Give Features.of_vectors(...) where strip_head is asked for native.",
            )


def check_width(subject: Subject) -> None:
    """The vectors are as wide as the row says with its first pooling, and as the extractor's `dim` says with any."""
    row = row_of(subject)
    for model in models_of(subject):
        for modality in model.modalities:
            about, some = where(model, modality), items(subject, modality)
            with torch.inference_mode():
                emitted = features(model, modality, some).tokens.shape[-1]
            vectors, dim = embed(model, modality, some), model.encoder(modality).extractor.dim
            require(
                emitted == dim,
                f"{about}: the extractor's dim is {dim}, and its tokens are {emitted} wide.",
                "Let dim be the width of what forward gives; if that is the number of classes, the head is still on.",
            )
            require(
                vectors.shape[-1] == model.output_dim,
                f"{about}: the model's output_dim is {model.output_dim}, and its vectors are {vectors.shape[-1]} wide.",
                "Let a pooling's dim be the width of what it gives.",
            )
            require(
                model.pooling != row.poolings[0] or row.output_dim in (None, vectors.shape[-1]),
                f"{about}: the row says {row.output_dim}, and the vectors are {vectors.shape[-1]} wide.",
                "Correct output_dim of the row.",
            )


def check_distinct(subject: Subject) -> None:
    """Different items have different vectors, of length 1: the network sees what it is fed."""
    for model in models_of(subject):
        for modality in model.modalities:
            vectors = embed(model, modality, items(subject, modality))
            lengths = vectors.norm(dim=1)
            require(
                farthest(lengths, torch.ones_like(lengths)) < TOLERANCE,
                f"{where(model, modality)}: vectors have the lengths {lengths.tolist()}.",
                "See that features are finite, and not all zero.",
            )
            for one in range(len(vectors)):
                for other in range(one):
                    require(
                        farthest(vectors[one], vectors[other]) > 1e-6,
                        f"{where(model, modality)}: items {other} and {one} are different and have the same vector.",
                        "See that forward uses all of the batch, and prepare all of an item.",
                    )


def check_batch(subject: Subject) -> None:
    """A batch of n gives what n batches of one give, for items of one length: no item sees another.

    What breaks this is most often a batch norm in training mode, or a mean over the wrong dimension.
    """
    for model in models_of(subject):
        for modality in model.modalities:
            some = _of_one_length(model, modality, items(subject, modality))
            _compare_with_alone(
                model,
                modality,
                some,
                embed(model, modality, some),
                "in a batch with others of its length",
                "Compute each item by itself: no statistics, means or norms over the first dimension.",
            )


def check_order(subject: Subject) -> None:
    """Vectors come in the order of the items, whatever that is: turned round, the batch gives them turned round."""
    for model in models_of(subject):
        for modality in model.modalities:
            some = list(items(subject, modality))
            there, back = embed(model, modality, some), embed(model, modality, some[::-1]).flip(0)
            difference = farthest(there, back)
            require(
                difference < TOLERANCE,
                f"{where(model, modality)}: vectors of a batch and of the same batch turned round differ "
                f"by {difference:.2g}.",
                "Undo in forward whatever sorting collate does, and use no position in the batch.",
            )


def check_padding(subject: Subject) -> None:
    """What stands beside a much longer item has the vector that it has alone: padding is masked everywhere.

    A text is padded to the longest of its batch. Pictures and vectors are not; beside these stands a much larger
    picture, and a vector of much larger numbers, which must not show either.
    """
    for model in models_of(subject):
        for modality in model.modalities:
            some = list(items(subject, modality))
            beside = [*some, neighbour_of(modality, vector_width(subject, modality))]
            _compare_with_alone(
                model,
                modality,
                some,
                embed(model, modality, beside)[:-1],
                "beside a much longer item",
                "Hand the attention mask to the network, and give it as the mask of the features.",
            )


def check_eval(subject: Subject) -> None:
    """In evaluation nothing is random and nothing is counted: two runs agree bit by bit, and no buffer changes.

    Every module is in evaluation mode once the model is built; dropout is off, and batch norms use their statistics.
    """
    for model in models_of(subject):
        training = [name for name, module in model.named_modules() if module.training]
        require(
            not training,
            f"{subject.full_name} is built with {', '.join(training[:3])} in training mode.",
            "Leave train() and eval() as torch has them, and hold every module as a child of the extractor.",
        )
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        for modality in model.modalities:
            some = items(subject, modality)
            first, second = embed(model, modality, some), embed(model, modality, some)
            require(
                torch.equal(first, second),
                f"{where(model, modality)}: two runs in evaluation differ by {farthest(first, second):.2g}.",
                "Use nn.Dropout, or F.dropout with training=self.training; draw no random numbers in forward.",
            )
        changed = [name for name, buffer in model.named_buffers() if not _same(buffer, buffers[name])]
        require(
            not changed,
            f"{subject.full_name} with pooling {model.pooling}: evaluation changes {', '.join(changed[:3])}.",
            "Let batch norms follow eval(), and call none with training=True.",
        )


def check_bf16(subject: Subject) -> None:
    """Vectors and gradients are finite under autocast in bfloat16, in which training may run."""
    model = build(subject)
    for modality in model.modalities:
        preprocess = model.preprocess(modality)
        batch = preprocess.collate(preprocess.prepare(items(subject, modality)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            vectors: Tensor = model.encoder(modality)(batch)
        require(
            bool(vectors.isfinite().all()),
            f"{where(model, modality)}: in bfloat16 vectors hold NaN or infinite numbers.",
            "Mask with torch.finfo(scores.dtype).min, and compute norms, powers and exponentials in float32.",
        )
        torch.autograd.backward((vectors * torch.linspace(-1, 1, vectors.numel()).view(vectors.shape)).sum())
    wrong = [name for name, it in model.named_parameters() if it.grad is not None and not it.grad.isfinite().all()]
    require(
        not wrong,
        f"{subject.full_name}: in bfloat16 the gradient of {', '.join(wrong[:3])} holds NaN or infinite numbers.",
        "Take no root or logarithm of zero, and compute norms, powers and exponentials in float32.",
    )


def _of_one_length(model: EmbeddingModel, modality: Modality, some: Sequence[object]) -> list[object]:
    """Different items of which the network sees equally many tokens, as many as can be found."""
    if modality != "text":
        return list(some)
    # Word by word, so that there are enough of one length whatever the tokenizer makes of them.
    candidates = dict.fromkeys(part for text in some for part in (text, *str(text).split()))
    preprocess = model.preprocess(modality)
    by_length = defaultdict(list)
    for text in candidates:
        by_length[preprocess.length(preprocess.prepare([text])[0])].append(text)
    return max(by_length.values(), key=len)[:6]


def _compare_with_alone(
    model: EmbeddingModel, modality: Modality, some: Sequence[object], together: Tensor, how: str, cure: str
) -> None:
    if len(some) < 2:
        fail(f"{where(model, modality)}: no two items have the same length.", "Let length count what the network sees.")
    for position, item in enumerate(some):
        difference = farthest(embed(model, modality, [item])[0], together[position])
        require(
            difference < TOLERANCE,
            f"{where(model, modality)}: item {position} has another vector {how} than alone, by {difference:.2g}.",
            cure,
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
