"""The inductive study at small scale, to try the software: no download, no GPU, a few minutes on a laptop.

The same three stages as `inductive.py`, with all eight alphas and all five allocations, on the generated
sample world and the two sample models (one Llama type, one GPT-NeoX type).

    python -m sweep.run search_spaces/sample.py
"""

from sweep.space import ALL, LARGEST, OTHERS, Best, Space, Stage

best_layer = Best(field="layer", stage="layer_selection", per=("model",), by="memory/nll")

space = Space(
    name="sample",
    title="The inductive study on the sample world: for trying and testing, says nothing about real models",
    axes={
        "model": ["sample-neox", "sample-llama"],
        "depth": [0.25, 0.5, 0.75, 1.0],
        "alpha": [0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0],
        "allocation": ["random", "partitioned", "simset1", "simset2", "simset3"],
        "num_documents": [4, 12],
    },
    fixed={"data": "sample", "memory_dim": 64, "segment_tokens": 64, "epochs": 12, "batch_size": 2, "lr": 5e-3},
    probes=("forgetting",),
    stages=(
        Stage(
            name="layer_selection",
            axes={"model": ALL, "depth": ALL, "num_documents": LARGEST},
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
    small={"model": "sample-llama", "alpha": [0, 1.0], "allocation": ["partitioned", "simset2"], "epochs": 3},
)
