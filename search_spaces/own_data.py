"""Do models answer questions about your own documents better after memorising them?

The pretrained model and a memory of the documents are asked the questions that lie beside them (docs/own_data.md), how
much of each document they write by themselves, and what memorising has cost.

    python -m sweep.run search_spaces/own_data.py --data FOLDER --set num_documents=20
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="own_data",
    title="Your own documents and questions, before and after memorising",
    axes={"model": ["pythia-6.9b", "llama2-7b"], "content": ["document", "document+template"]},
    fixed={
        "data": "sample",
        "dtype": "bfloat16",
        "num_documents": 10,
        "depth": 0.75,
        "memory_dim": 4096,
        "probes": ("choices", "recall", "forgetting"),
    },
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="memory", axes={"model": ALL, "content": ALL}),
    ),
    small={
        "model": "sample-llama",
        "dtype": "float32",
        "num_documents": 4,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
