"""How many documents does a memory hold, and what does SimSet change?

100 to 100,000 documents share 4,096 entries: how much of each is still known, and how far shared entries follow the
similarity of the texts when there are twenty documents for each entry. First the entry sets alone, for which no model
is loaded; then plain memorising beside the inductive loss with 64 entries a document. Counts of documents and of
entries, epochs and segments are ours. So many documents are your own (docs/own_data.md), a Wikipedia dump for one:

    python -m sweep.run search_spaces/scale.py --data FOLDER
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="scale",
    title="100 to 100,000 documents in 4,096 entries: what a memory holds, and what SimSet changes",
    axes={
        "model": ["pythia-1b", "pythia-6.9b"],
        "num_documents": [100, 1000, 10_000, 100_000],
        "alpha": [0, 1.0],
        "allocation": ["simset1", "simset2", "simset3"],
    },
    fixed={
        "data": "sample",
        "dtype": "bfloat16",
        "depth": 0.75,
        "memory_dim": 4096,
        "entries_per_group": 64,
        "max_segments": 2,
        "epochs": 5,
        "probes": ("recall",),
    },
    stages=(
        Stage(
            name="sets",
            axes={"model": ALL, "num_documents": ALL, "allocation": ALL},
            fixed={"method": "allocate", "probes": ()},
        ),
        Stage(name="memory", axes={"model": ALL, "num_documents": ALL, "alpha": ALL, "allocation": ALL}),
    ),
    small={
        "model": "sample-llama",
        "dtype": "float32",
        "num_documents": [4, 8],
        "memory_dim": 64,
        "entries_per_group": 8,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
