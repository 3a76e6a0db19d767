"""What memories do the allocations make of the documents, before anything is trained?

Memory formation as an experiment of its own (note 002): entry sets are formed and analysed without training and without
loading the language model, only its tokenizer; seconds for a point. Allocations, groups of documents and hash functions
vary (ours) at 100 and 1,000 documents.

    python -m sweep.run search_spaces/formation.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="formation",
    title="Memories formed and analysed without training: allocation x granularity x n x documents (note 002)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "allocation": ["random", "partitioned", "simset1", "simset2", "simset3"],
        "granularity": ["dim", "token"],
        "entries_per_group": [None, 4, 16, 64, 256],
        "num_documents": [100, 1000],
    },
    fixed={"data": "fever", "method": "allocate", "memory_dim": 4096, "probes": ()},
    stages=(
        Stage(
            name="formation",
            axes={
                "model": ALL,
                "allocation": ALL,
                "granularity": ALL,
                "entries_per_group": ALL,
                "num_documents": ALL,
            },
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "entries_per_group": [None, 16],
        "num_documents": [4, 8],
        "memory_dim": 64,
        "segment_tokens": 64,
    },
)
