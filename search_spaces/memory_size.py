"""How large must the memory be, with and without structure?

The sizes of note 000: 128, 1,024, 4,096 and 12,288 entries. The top 100 pages, so that `partitioned` has an entry
for each even in the smallest memory; alpha 1 beside plain memorising (both ours), at 75 % of the depth.

    python -m sweep.run search_spaces/memory_size.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="memory_size",
    title="Entries of the memory: 128, 1,024, 4,096, 12,288 (note 000)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "memory_dim": [128, 1024, 4096, 12288],
        "alpha": [0, 1.0],
        "allocation": ["random", "partitioned", "simset1", "simset2"],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "num_documents": 100, "depth": 0.75},
    probes=("forgetting",),
    stages=(
        Stage(
            name="memory_size",
            axes={"model": ALL, "memory_dim": ALL, "alpha": ALL, "allocation": ALL},
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "memory_dim": [16, 64, 256],
        "allocation": ["partitioned", "simset2"],
        "num_documents": 8,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
