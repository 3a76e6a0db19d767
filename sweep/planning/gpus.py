"""GPUs as planning knows them: how fast, how much memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU type: peak FLOP/s by how products are computed, and the share of it that such training reaches.

    The share is measured on an H100 in bfloat16: 41 % with the shape of pythia-6.9b, 20 % with that of pythia-410m
    (`python -m benchmarks gpu`, of the maker's figure); on others it is taken to be the same.

    Attributes:
        name: of the type.
        flop_per_s: of dense matrix products, from the maker's data sheet: `bfloat16`, `tf32`, `float32`.
        utilisation: share of that.
        memory_bytes: of the card.
    """

    name: str
    flop_per_s: Mapping[str, float]
    utilisation: float
    memory_bytes: float

    def seconds(self, flops: Mapping[str, float]) -> float:
        """Return how long so many FLOPs take, given by how they are computed."""
        return sum(count / (self.flop_per_s[name] * self.utilisation) for name, count in flops.items())


A100 = Gpu(
    "A100-80GB", {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12}, utilisation=0.4, memory_bytes=80e9
)  # fmt: skip
H100 = Gpu("H100-80GB", {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12}, utilisation=0.4, memory_bytes=80e9)
