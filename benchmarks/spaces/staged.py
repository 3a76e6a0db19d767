"""A small copy of the inductive study: a layer is chosen first, alpha and allocation vary at that layer only."""

from sweep.space import ALL, LARGEST, OTHERS, Best, Space, Stage

best_layer = Best(field="layer", stage="layer_selection", per=("model",))

space = Space(
    name="staged",
    title="The inductive study's stages on a small grid, to time them against the full grid",
    axes={
        "model": ["sample-neox"],
        "depth": [0.34, 0.5, 0.67, 0.84],
        "alpha": [0, 0.5, 1.0, 2.0],
        "allocation": ["partitioned", "simset2"],
        "num_documents": [3, 6],
    },
    fixed={"epochs": 2},
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
)
