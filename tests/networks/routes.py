"""Convolutions that take every route: kernel, stride, groups; for 6 channels."""

from omnisource.networks.kernels import Triple

ROUTES: list[tuple[Triple, Triple, int]] = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 1, 1), (2, 2, 2), 1),
    ((1, 3, 3), (1, 2, 2), 1),
    ((1, 5, 5), (1, 2, 2), 6),
    ((3, 1, 1), (1, 1, 1), 1),
    ((3, 1, 1), (2, 1, 1), 1),
    ((3, 3, 3), (1, 1, 1), 1),
    ((3, 3, 3), (1, 1, 1), 6),
    ((3, 3, 3), (2, 2, 2), 6),
    ((5, 7, 7), (2, 2, 2), 1),
]
