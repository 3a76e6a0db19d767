"""What if similar documents share their entries?

`num_clusters` below `num_documents` (note 002): 1,000 documents in 10 to 1,000 groups, plain memorising beside two
strengths of the inductive loss, at 75 % of the depth. Group counts and strengths are ours.

    python -m sweep.run search_spaces/clustering.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="clustering",
    title="Fewer groups than documents: similar documents share entries (note 002)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "alpha": [0, 0.2, 1.0],
        "allocation": ["random", "partitioned", "simset1", "simset2"],
        "num_clusters": [10, 50, 100, 500, 1000],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "num_documents": 1000, "memory_dim": 4096, "depth": 0.75},
    probes=("forgetting",),
    stages=(
        Stage(
            name="clustering",
            axes={"model": ALL, "alpha": ALL, "allocation": ALL, "num_clusters": ALL},
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "alpha": [0, 1.0],
        "num_documents": 8,
        "num_clusters": [2, 4, 8],
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
