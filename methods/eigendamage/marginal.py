"""What one more direction costs and saves, given what is gone already.

The damage of a direction is a sum over the entries of its row or column, and what it saves is the part of the core that
it carries. Both shrink as directions of the other side go: entries that are gone are neither lost nor saved once
more. The prices of the whole layer, ``sum_s Theta[r,s]`` over the multiply-accumulates of a full row, overrate both,
and not by the same factor. Here a layer gives up one direction after the other, always the one that costs least for
what it saves *then*.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from methods.eigendamage.kronecker import Directions

Price = Callable[[int, int], float]
"""What a layer with some input and output directions costs, such as its multiply-accumulates; grows with both."""


def find_marginal_scores(found: Directions, price: Price) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Score directions by damage over saving at the moment at which they are the next to go.

    Behind a dear direction there may be a cheap one, which cannot go before it. So a score is the largest ratio up to
    that direction, and a threshold on the scores of several layers removes the same from a layer as the layer's own
    sequence does up to there.

    Args:
        found: The directions of the layer, and the damage of keeping the first ones of both sides.
        price: What is saved by keeping fewer.

    Returns:
        Scores of input and of output directions, each descending, in units of loss per unit of the price. The first
        direction of a side, which always stays, has the largest score of the layer.
    """
    kept = found.kept_damage.tolist()
    columns, rows = len(found.column_scores), len(found.row_scores)
    inputs, outputs = [0.0] * columns, [0.0] * rows
    largest = 0.0
    while columns > 1 or rows > 1:
        # Entries of the last column, and of the last row, among those that are left, over what the two save.
        held, paid = kept[rows][columns], price(columns, rows)
        column = (held - kept[rows][columns - 1]) / (paid - price(columns - 1, rows)) if columns > 1 else inf
        row = (held - kept[rows - 1][columns]) / (paid - price(columns, rows - 1)) if rows > 1 else inf
        largest = max(largest, min(column, row))
        if column <= row:
            columns -= 1
            inputs[columns] = largest
        else:
            rows -= 1
            outputs[rows] = largest
    inputs[0] = outputs[0] = largest
    return tuple(inputs), tuple(outputs)
