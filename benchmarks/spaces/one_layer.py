"""24 trials that share a model and a layer: alpha x allocation, as in the second stage of the inductive study."""

from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="one-layer",
    title="Alpha x allocation at one layer, to time whole sweeps",
    axes={
        "alpha": [0.2, 0.4, 0.6, 0.8, 1.0, 2.0],
        "allocation": ["random", "partitioned", "simset2", "simset3"],
    },
    fixed={"depth": 0.75, "num_documents": 4, "epochs": 5},
    stages=(Stage(name="grid", axes={"alpha": ALL, "allocation": ALL}),),
)
