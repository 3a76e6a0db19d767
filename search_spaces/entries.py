"""How many hash functions does SimSet need, so that shared entries follow similarity?

By default a document has n = memory_dim / num_clusters entries: 4 of 4,096 for 1,000 documents, with which overlaps
hardly follow the similarity of texts. Here n is an axis (4, 16, 64, 256; ours) at 1,000 documents and alpha 1, beside
plain memorising, at 75 % of the depth.

    python -m sweep.run search_spaces/entries.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="entries",
    title="Entries of a document: n = 4, 16, 64, 256 hash functions of SimSet (note 002)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "alpha": [0, 1.0],
        "allocation": ["simset1", "simset2", "simset3"],
        "entries_per_group": [4, 16, 64, 256],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "num_documents": 1000, "memory_dim": 4096, "depth": 0.75},
    probes=("forgetting",),
    stages=(
        Stage(
            name="entries",
            axes={"model": ALL, "alpha": ALL, "allocation": ALL, "entries_per_group": ALL},
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "allocation": ["simset1", "simset2"],
        "entries_per_group": [4, 16],
        "num_documents": 8,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
