"""Does training all weights, without a memory, do what the memory does?

Note 000 did it for two small Pythias. It gives no learning rate: 2e-5 is ours, since the memory's 1e-3 would undo
the pretraining. The weights are held in float32, as training needs.

    python -m sweep.run search_spaces/full_update.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="full_update",
    title="All weights trained, on templates or on documents and templates (note 000)",
    axes={
        "model": ["pythia-410m", "pythia-70m"],
        "content": ["template", "document+template"],
    },
    fixed={"data": "fever", "num_documents": 100, "method": "full_update", "lr": 2e-5},
    probes=("forgetting",),
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="full_update", axes={"model": ALL, "content": ALL}),
    ),
    small={
        "model": "sample-neox",
        "data": "sample",
        "num_documents": 4,
        "segment_tokens": 64,
        "epochs": 2,
        "lr": 1e-3,
    },
)
