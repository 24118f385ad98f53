"""Encodes, searches, and scores anew: each stage goes on where it, in a run that was stopped, has come to."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from finetuner_core.data.dataset import Column
from finetuner_core.interfaces import CrossEncoder
from finetuner_core.mining.fingerprint import of_weights
from finetuner_core.mining.report import Progress
from finetuner_core.mining.search import nearest
from finetuner_core.mining.task import Places, Task
from finetuner_core.mining.work import Records, Work
from finetuner_core.modeling.embedding_model import EmbeddingModel
from finetuner_core.values import Side

# What is done between two writes. The scores of a block of queries with a block of documents are 16 MiB.
_ENCODED = 1024
_SEARCHED = 2048
_DOCUMENTS = 2048
_RESCORED = 16


@dataclass(frozen=True)
class Found:
    """What the stages have found, all of it on disk.

    Args:
        places: for each query its nearest documents, int32 (Q, K), -1 where there are no more.
        scores: and their scores, float32 (Q, K), from the vectors or the cross-encoder.
        positives: the score of each row's positive, float32 (R, 1).
    """

    places: Records
    scores: Records
    positives: Records


def find(
    model: EmbeddingModel,
    task: Task,
    top_k: int,
    cross_encoder: CrossEncoder | None,
    work: Work,
    *,
    batch_size: int | None,
    progress: Progress,
) -> Found:
    """The nearest documents of each query that are not known to belong to it, and what they score.

    Args:
        model: what encodes.
        task: what is to be mined.
        top_k: how many documents for each query.
        cross_encoder: what scores them anew, if anything does.
        work: where vectors and scores are put.
        batch_size: how many items are computed at a time.
        progress: what the person sees.
    """
    documents = work.records("documents.f32", np.float32, model.output_dim, _ENCODED)
    _encode(model, task.documents, task.sides[1], documents, batch_size, progress)
    queries = documents
    if not task.is_labelled:
        queries = work.records("queries.f32", np.float32, model.output_dim, _ENCODED)
        _encode(model, task.queries, task.sides[0], queries, batch_size, progress)
    places = work.records(f"places-{top_k}.i32", np.int32, top_k, _SEARCHED)
    scores = work.records(f"scores-{top_k}.f32", np.float32, top_k, _SEARCHED)
    _search(task, queries, documents, places, scores, model.device, progress)
    # The same pairs may stand in rows of another order, and a labelled item's positive follows from the seed.
    rows = hashlib.sha256(np.stack(task.rows).tobytes()).hexdigest()[:16]
    if cross_encoder is None:
        positives = work.records(f"positives-{rows}.f32", np.float32, 1, _SEARCHED)
        _score_positives(task, queries, documents, positives)
        return Found(places, scores, positives)
    name = of_weights(cross_encoder)[:16]
    again = work.records(f"scores-{top_k}-{name}.f32", np.float32, top_k, _RESCORED)
    positives = work.records(f"positives-{rows}-{name}.f32", np.float32, 1, _RESCORED * 32)
    score = functools.partial(_score, task, cross_encoder, 64 if batch_size is None else batch_size)
    with progress.bar("Scoring anew", len(task.queries), again.resume(len(task.queries))) as step:
        for asked in again.missing(len(task.queries)):
            found = places[asked]
            line, column = np.nonzero(found >= 0)
            block = np.full(found.shape, -np.inf, np.float32)
            block[line, column] = score(asked[line], found[line, column])
            again.append(block)
            step(len(asked))
    with progress.bar("Scoring positives", len(task.rows[0]), positives.resume(len(task.rows[0]))) as step:
        for own in positives.missing(len(task.rows[0])):
            positives.append(score(task.rows[0][own], task.rows[1][own]))
            step(len(own))
    return Found(places, again, positives)


def _encode(
    model: EmbeddingModel,
    column: Column,
    side: Side | None,
    records: Records,
    batch_size: int | None,
    progress: Progress,
) -> None:
    done, cut = records.resume(len(column)), 0
    with progress.bar("Encoding queries" if side == "query" else "Encoding documents", len(column), done) as step:
        for rows in records.missing(len(column)):
            vectors, more = model.encode_and_count(
                column.take(rows), modality=column.modality, side=side, batch_size=batch_size
            )
            records.append(vectors)
            cut += more
            step(len(rows))
    model.warn_of_cut(cut, len(column) - done, modality=column.modality, side=side)


def _search(
    task: Task,
    queries: Records,
    documents: Records,
    places: Records,
    scores: Records,
    device: torch.device,
    progress: Progress,
) -> None:
    done = min(places.resume(len(queries)), scores.resume(len(queries)))
    places.cut(done)
    scores.cut(done)

    def blocks() -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(0, len(documents), _DOCUMENTS):
            yield start, torch.from_numpy(documents[start : start + _DOCUMENTS]).to(device)

    with progress.bar("Searching", len(queries), done) as step:
        for rows in places.missing(len(queries)):

            def barred(found: range, asked: range = range(rows[0], rows[-1] + 1)) -> list[Places]:
                return [task.known.within(asked, found), task.same.within(asked, found)]

            best, where = nearest(torch.from_numpy(queries[rows]).to(device), blocks(), barred, places.width)
            places.append(where.cpu().numpy())
            scores.append(best.cpu().numpy())
            step(len(rows))


def _score_positives(task: Task, queries: Records, documents: Records, positives: Records) -> None:
    positives.resume(len(task.rows[0]))
    for rows in positives.missing(len(task.rows[0])):
        asked, found = queries[task.rows[0][rows]], documents[task.rows[1][rows]]
        positives.append(np.einsum("bd,bd->b", asked, found))


def _score(
    task: Task, cross_encoder: CrossEncoder, batch_size: int, asked: np.ndarray, found: np.ndarray
) -> np.ndarray:
    queries = [str(text) for text in task.queries.take(asked)]
    documents = [str(text) for text in task.documents.take(found)]
    with torch.inference_mode():
        scores: np.ndarray = cross_encoder.score(queries, documents, batch_size).float().cpu().numpy()
    return scores
