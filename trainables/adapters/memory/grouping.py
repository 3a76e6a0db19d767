"""Grouping of documents: similar documents may share one allocation (notes 001, 002: `num_clusters`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainables.adapters.memory.shingles import jaccard_matrix
from trainables.errors import ConfigError


def group_documents(documents_tokens: Sequence[Sequence[int]], num_clusters: int) -> list[int]:
    """Return the group of each document, 0 … num_clusters - 1, numbered in order of first appearance.

    As many groups as documents: each its own. Fewer: agglomerative clustering with complete linkage over the
    exact Jaccard distance of the documents' sets of tokens (ours; the notes name the number only).

    Args:
        documents_tokens: Token ids of each document.
        num_clusters: Number of groups, 1 … number of documents.

    Raises:
        ConfigError: `num_clusters` is out of range.
    """
    num_documents = len(documents_tokens)
    if not 1 <= num_clusters <= num_documents:
        raise ConfigError(
            f"num_clusters is {num_clusters} but there are {num_documents} documents: choose 1 to {num_documents}"
        )
    if num_clusters == num_documents:
        return list(range(num_documents))
    from sklearn.cluster import AgglomerativeClustering

    distance = 1.0 - jaccard_matrix([np.unique(np.asarray(tokens)) for tokens in documents_tokens])
    clustering = AgglomerativeClustering(n_clusters=num_clusters, metric="precomputed", linkage="complete")
    labels: list[int] = clustering.fit_predict(distance).tolist()
    number = {label: group for group, label in enumerate(dict.fromkeys(labels))}
    return [number[label] for label in labels]
