"""What shapes an entry set, as a value with a name. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import ConfigError

GROUPINGS = ("complete", "lsh")
ALL_PAIRS = 2048
"""Documents, or groups, up to which all pairs are looked at, two million: `lsh` then groups as `complete` (ours)."""
MOST_COMPLETE = 30_000
"""Documents up to which all pairs are taken for groups: the three matrices of so many hold 20 GiB (ours)."""
ALLOCATIONS = ("none", "random", "partitioned", "simset1", "simset2", "simset3")
_NAME = re.compile(
    r"(?P<allocation>[a-z]+[123]?)(?P<token>-token)?(_g(?P<g>\d+)(?P<lsh>-lsh)?)?(_n(?P<n>\d+))?(_s(?P<s>\d+))?"
)


@dataclass(frozen=True)
class SetSetting:
    """How entries are given to documents, without what cannot matter: equal settings give equal sets.

    Attributes:
        allocation: of `ALLOCATIONS`.
        granularity: `dim` or `token`; simset only.
        num_clusters: groups of documents; None for one each.
        entries_per_group: simset's hash functions; None for a default by `memory_dim`.
        mem_seed: seed; `partitioned` has none.
        grouping: of `GROUPINGS`, how groups are found where there are fewer than documents.
    """

    allocation: str
    granularity: str = "dim"
    num_clusters: int | None = None
    entries_per_group: int | None = None
    mem_seed: int = 0
    grouping: str = "complete"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SetSetting:
        """Read it off the fields of a trial; of those it is enough to have its own and `num_documents`."""
        name, clusters = values["allocation"], values["num_clusters"]
        clusters = None if clusters == values["num_documents"] else clusters
        looks_at_text = name not in ("random", "partitioned")
        return cls(
            name,
            values["granularity"] if looks_at_text else "dim",
            clusters,
            values["entries_per_group"] if looks_at_text else None,
            0 if name == "partitioned" else values["mem_seed"],
            "complete" if clusters is None else values.get("grouping", "complete"),
        )

    @property
    def name(self) -> str:
        """A short name: `simset2`, or `simset2-token_g50-lsh_n8_s1` with all that is not as by default."""
        groups = f"{self.num_clusters}-lsh" if self.grouping == "lsh" else self.num_clusters
        parts = {"g": groups, "n": self.entries_per_group, "s": self.mem_seed or None}
        tail = "".join(f"_{letter}{value}" for letter, value in parts.items() if value is not None)
        return self.allocation + ("-token" if self.granularity == "token" else "") + tail

    @classmethod
    def named(cls, name: str) -> SetSetting:
        """Undo `name`.

        Raises:
            ConfigError: not a name of a setting.
        """
        found = _NAME.fullmatch(name)
        if found is None or found["allocation"] not in ALLOCATIONS[1:]:
            raise ConfigError(
                f"leakage_sets: {name!r} names no entry set; write an allocation ({', '.join(ALLOCATIONS[1:])}), then "
                "what is not as by default: simset2-token_g50_n8_s1 (per token, 50 groups, n 8, mem_seed 1); "
                "g50-lsh for grouping=lsh"
            )
        numbers = {letter: int(found[letter]) if found[letter] else None for letter in "gns"}
        granularity, grouping = "token" if found["token"] else "dim", "lsh" if found["lsh"] else "complete"
        return cls(found["allocation"], granularity, numbers["g"], numbers["n"], numbers["s"] or 0, grouping)
