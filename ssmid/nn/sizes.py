"""Sizes of language models by name, as published (Poli et al. 2023, table A.3; Massaroli et al. 2023, section 5)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
    """width and depth of the stack, hidden units of the perceptrons, heads of attention"""

    width: int
    depth: int
    hidden: int
    heads: int


CONVOLUTIONS = {
    "125M": Size(768, 12, 3072, 12),
    "153M": Size(864, 18, 1728, 12),
    "355M": Size(1024, 36, 2048, 16),
    "1.3B": Size(2048, 36, 4096, 16),
}
TRANSFORMERS = {
    "125M": Size(768, 12, 3072, 12),
    "355M": Size(1024, 24, 4096, 16),
    "1.3B": Size(2048, 24, 8192, 16),
}
"""As many parameters in fewer blocks, each of which has four times its width between."""


def size_named(name: str, mixer: object) -> Size:
    """The size of that name, for models of that mixer; ValueError that lists those there are."""
    known = TRANSFORMERS if mixer == "attention" else CONVOLUTIONS
    if name not in known:
        raise ValueError(f"size: expected one of {', '.join(known)}, got {name!r}")
    return known[name]
