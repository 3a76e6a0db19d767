"""Does an inductive loss help, at which layer, how strongly, under which allocation, for how many documents?

The grid of note 002, and its plan that makes it affordable: choose a layer by plain memorising, then vary
alpha and allocation at that layer only. `memory_dim` is 4,096 because `partitioned` needs an entry for each
of 1,000 documents (ours); the frozen models are held in bfloat16, as fits one GPU (ours).

    python -m sweep.run search_spaces/inductive.py --plan
    python -m sweep.run search_spaces/inductive.py --set allocation=random,partitioned,simset1,simset2 --plan
    python -m sweep.run search_spaces/inductive.py --small
"""

from sweep.space import ALL, LARGEST, OTHERS, Best, Space, Stage

best_layer = Best(field="layer", stage="layer_selection", per=("model",), by="memory/nll")

space = Space(
    name="inductive",
    title="Inductive loss: alpha x allocation x documents at the layer that memorises best (note 002)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "depth": [0.15, 0.3, 0.45, 0.6, 0.75, 0.9],
        "alpha": [0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0],
        "allocation": ["random", "partitioned", "simset1", "simset2", "simset3"],
        "num_documents": [2, 10, 50, 100, 1000],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "memory_dim": 4096},
    probes=("forgetting",),
    stages=(
        Stage(
            name="layer_selection",
            axes={
                "model": ALL,
                "depth": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
                "num_documents": LARGEST,
            },
            fixed={"alpha": 0},
        ),
        Stage(
            name="inductive",
            axes={"model": ALL, "alpha": ALL, "allocation": ALL, "num_documents": LARGEST},
            take=best_layer,
        ),
        Stage(
            name="document_count",
            axes={"model": ALL, "alpha": ALL, "allocation": ALL, "num_documents": OTHERS},
            take=best_layer,
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "depth": [0.5, 0.75],
        "alpha": [0, 1.0],
        "allocation": ["partitioned", "simset2"],
        "num_documents": [4, 8],
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
