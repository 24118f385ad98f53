"""An order of the rows in which those that conflict come into different batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from finetuner_core.data.known import Known, distinct, ranges

# So many batches are settled together: a row can change places with any of theirs.
_AT_ONCE = 4096

# What is left counts as unavoidable when so many rounds have not solved a tenth of it; and where there are few batches,
# so that a round tries little, so many tries.
_PATIENCE = 32
_TRIES = 2000

# How much an item that stands twice in a batch weighs, where one that another row claims weighs 1.
_TWICE = 10

# Claims are left out where there would be more than this many for each row; the loss still masks what they are about.
_CLAIMS_A_ROW = 4


class Spread:
    """Orders rows so that in no batch an item stands twice, nor a document that belongs to another row's anchor.

    Rows with the same item are dealt out like cards, one to each batch in turn. What still conflicts changes places
    with a random row of another batch, where that leaves no more conflicts.

    Each row has tokens: the items that it holds, and those that it claims since they are known to belong to its anchor.
    Two rows conflict if they hold the same item, or one holds what the other claims. What no other row holds, and what
    more rows hold than there are batches, needs no token; so most rows have none, and cost nothing.

    Args:
        known: what belongs together.
        rows: how many rows there are.
        batches: how many batches an epoch has.
    """

    def __init__(self, known: Known, rows: int, batches: int) -> None:
        self.rows, self.batches = rows, batches
        # For each column where its item is not that of an earlier column.
        fresh = [~(known.items[:place] == column).any(0) for place, column in enumerate(known.items)]
        held = np.zeros(known.count, np.int64)
        for column, new in zip(known.items, fresh, strict=True):
            held += np.bincount(column[new], minlength=known.count)
        # How many rows have to stand beside one with the same item, as there are more of it than batches.
        self.unavoidable = int(np.maximum(held - batches, 0).sum())
        contested = (held > 1) & (held <= batches)

        # The commonest item of each row that holds a common one: rows with the same are dealt out in turn.
        self.group = np.full(rows, -1, np.int32)
        most = np.ones(rows, np.int64)
        for column in known.items:
            more = held[column] > most
            self.group[more], most[more] = column[more], held[column[more]]
        self.groups = known.count

        tokens = [np.empty(0, np.int64)]
        width = 2 * max(known.count, 1)
        for column, new in zip(known.items, fresh, strict=True):
            holders = np.flatnonzero(new & contested[column])
            tokens.append(holders * width + 2 * column[holders].astype(np.int64))
        if known.form == "pairs":
            tokens.append(_claims(known, contested, width))
        # A row that holds an item has no need to claim it, and held comes before claimed.
        keys = distinct(np.concatenate(tokens))
        keys = keys[np.diff(keys >> 1, prepend=-1) != 0]
        self.tokens = keys % width
        self.start = np.zeros(rows + 1, np.int32 if len(keys) < 2**31 else np.int64)
        np.cumsum(np.bincount(keys // width, minlength=rows), out=self.start[1:])
        self.width = width

    def order(self, seed: tuple[int, ...], start: int = 0) -> Iterator[list[int]]:
        """The batches of one epoch, as row numbers, from batch `start` on. All of it follows from the seed."""
        rng = np.random.default_rng(seed)
        dealt = self._dealt(rng)
        hand = rng.permutation(self.batches)
        blocks = -(-self.batches // _AT_ONCE)
        for block in range(blocks):
            first, last = (self.batches * edge // blocks for edge in (block, block + 1))
            if last <= start:
                continue
            # Hand h of n has the cards h, h + n, h + 2n, ...
            hands = hand[first:last]
            edges = np.cumsum([0, *((self.rows - hands - 1) // self.batches + 1)])
            rows = np.concatenate([dealt[card :: self.batches] for card in hands.tolist()])
            self._settle(rows, edges, np.random.default_rng((*seed, block)))
            for begin, end in list(pairwise(edges.tolist()))[max(start - first, 0) :]:
                yield rows[begin:end].tolist()

    def _dealt(self, rng: np.random.Generator) -> np.ndarray:
        """All rows in random order, but those of a group behind the first of them."""
        order = np.arange(self.rows, dtype=np.int32 if self.rows < 2**31 else np.int64)
        rng.shuffle(order)
        group = self.group[order]
        places = np.flatnonzero(group >= 0)
        if not len(places):
            return order
        # Written backwards, so that what stays is the first place of each group.
        first = np.empty(self.groups, order.dtype)
        first[group[places[::-1]]] = places[::-1]
        key = np.arange(self.rows, dtype=np.int64)
        key[places] = first[group[places]]
        key <<= 32
        key |= np.arange(self.rows)
        key.sort()
        key &= 2**32 - 1
        ordered: np.ndarray = order[key]
        return ordered

    def _settle(self, rows: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> None:
        """Changes rows in place until no batch, `rows[edges[i] : edges[i + 1]]`, has a conflict that can be solved."""
        batches = len(edges) - 1
        places, batch, weight = self._conflicts(rows, edges, np.arange(batches))
        rounds = _PATIENCE + _TRIES // batches
        goal, patience = 0.9 * weight.sum(), rounds
        while len(places) and patience and batches > 1:
            # As many pairs of batches as there are with a conflict: in each a row of the left one that conflicts
            # changes places with any row of the right one. No batch is in two pairs, so that each stands for itself.
            mixed = rng.permutation(len(places))
            bad, pick = np.unique(batch[mixed], return_index=True)
            shuffled = rng.permutation(len(bad))
            others = rng.permutation(np.setdiff1d(np.arange(batches), bad, assume_unique=True))
            line = np.concatenate([bad[shuffled], others])
            count = min(len(bad), batches // 2)
            left, right = line[:count], line[count : 2 * count]
            here = places[mixed][pick[shuffled[:count]]]
            there = edges[right] + rng.integers(edges[right + 1] - edges[right])

            rows[here], rows[there] = rows[there], rows[here]
            new_places, new_batch, new_weight = self._conflicts(rows, edges, line[: 2 * count])
            before = np.bincount(batch, weight, batches)
            after = np.bincount(new_batch, new_weight, batches)
            worse = after[left] + after[right] > before[left] + before[right]
            rows[here[worse]], rows[there[worse]] = rows[there[worse]], rows[here[worse]]

            changed = np.zeros(batches, bool)
            changed[left[~worse]] = changed[right[~worse]] = True
            old, new = ~changed[batch], changed[new_batch]
            places = np.concatenate([places[old], new_places[new]])
            batch = np.concatenate([batch[old], new_batch[new]])
            weight = np.concatenate([weight[old], new_weight[new]])
            patience -= 1
            if weight.sum() <= goal:
                goal, patience = 0.9 * weight.sum(), rounds

    def _conflicts(
        self, rows: np.ndarray, edges: np.ndarray, batches: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The places of rows that conflict with others of the same batch, the batches, and how much it weighs."""
        sizes = edges[batches + 1] - edges[batches]
        places, batch = ranges(edges[batches], edges[batches + 1]), np.repeat(batches, sizes)
        start, end = self.start[rows[places]], self.start[rows[places] + 1]
        some = np.flatnonzero(end > start)
        start, end = start[some], end[some]
        places, batch = (np.repeat(each[some], end - start) for each in (places, batch))
        keys = batch * self.width + self.tokens[ranges(start, end)]
        sorting = np.argsort(keys)
        keys = keys[sorting]
        same = np.cumsum(np.diff(keys >> 1, prepend=-1) != 0) - 1
        held = keys % 2 == 0
        holders, alike = np.bincount(same, held), np.bincount(same)
        conflict = np.flatnonzero(((holders > 0) & (alike > 1))[same])
        weight = np.where(held & (holders[same] > 1), _TWICE, 1)[conflict]
        found = sorting[conflict]
        # Equal keys are sorted in one way on one processor and in another way on another.
        by_place = np.lexsort([weight, found])
        return places[found[by_place]], batch[found[by_place]], weight[by_place]


def _claims(known: Known, contested: np.ndarray, width: int) -> np.ndarray:
    """The items that rows claim, as row * width + 2 * item + 1."""
    documents = np.diff(known.start)
    # Of an anchor with one document, each row holds it.
    wanted = contested[known.documents] & np.repeat(documents > 1, documents)
    claimed = known.documents[wanted]
    start = np.concatenate([[0], np.cumsum(wanted)])[known.start]
    claims = np.diff(start)
    anchors = known.items[0]
    cost = claims * np.bincount(anchors, minlength=known.count)
    cheapest = np.argsort(cost, kind="stable")
    claims[cheapest[np.cumsum(cost[cheapest]) > _CLAIMS_A_ROW * len(anchors)]] = 0
    rows = np.flatnonzero(claims[anchors])
    first = start[anchors[rows]]
    items = claimed[ranges(first, first + claims[anchors[rows]])]
    keys: np.ndarray = np.repeat(rows, claims[anchors[rows]]) * width + 2 * items.astype(np.int64) + 1
    return keys
