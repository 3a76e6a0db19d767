"""Does it help to give each document its own entries of the memory?

Note 001: entries outside a document's set are silenced (`mode=hard`), in training and, with the set of a claim's
evidence page, when claims are asked. Block 24 of the 7B models, the top 500 pages (449 remain there). The note
compares memories with and without LayerNorm and gate; here that is an axis. `memory_dim` is 4,096, since
`partitioned` needs an entry for each page (ours).

    python -m sweep.run search_spaces/structure.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="structure",
    title="Entry sets of documents: none, disjoint or by similarity, per document or per token (note 001)",
    axes={
        "model": ["llama2_chat-7b", "llama2-7b"],
        "allocation": ["none", "partitioned", "simset1", "simset2"],
        "granularity": ["dim", "token"],
        "norm_and_gate": [True, False],
    },
    fixed={
        "data": "fever",
        "dtype": "bfloat16",
        "num_documents": 500,
        "layer": 24,
        "memory_dim": 4096,
        "mode": "hard",
    },
    probes=("forgetting",),
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(
            name="structure",
            axes={"model": ALL, "allocation": ALL, "granularity": ALL, "norm_and_gate": ALL},
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "num_documents": 4,
        "layer": 4,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
