"""Map to four sequences and back: the orders in which SegMAN's scan reads a map.

Direction 0 reads rows, 1 reads columns, 2 and 3 read the same backwards (Liu et al., VMamba,
NeurIPS 2024; order checked against the published kernels).
"""

import torch
from torch import Tensor

DIRECTIONS = 4


def cross_scan(x: Tensor) -> Tensor:
    """Return the four sequences of a map.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, 4, C, H*W): by rows, by columns, by rows reversed, by columns reversed.
    """
    rows = x.flatten(2)  # (N, C, L)
    columns = x.transpose(2, 3).flatten(2)  # (N, C, L)
    both = torch.stack([rows, columns], dim=1)  # (N, 2, C, L)
    return torch.cat([both, both.flip(-1)], dim=1)


def cross_merge(ys: Tensor, height: int, width: int) -> Tensor:
    """Return the sum of four sequences, each put back to its place in the map.

    Args:
        ys: (N, 4, C, H*W), in the order of `cross_scan`.
        height: H.
        width: W.

    Returns:
        (N, C, H, W).
    """
    both = ys[:, :2] + ys[:, 2:].flip(-1)  # (N, 2, C, L)
    rows = both[:, 0].unflatten(-1, (height, width))
    columns = both[:, 1].unflatten(-1, (width, height)).transpose(2, 3)
    return rows + columns
