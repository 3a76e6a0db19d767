from sweep.space import ALL, Best, Space, Stage

best = Best(field="layer", stage="select", per=("model",))
space = Space(
    name="kept",
    title="one trial of each status",
    axes={"model": ["tiny"], "layer": [0, 2]},
    fixed={"data": "sample", "memory_dim": 8, "epochs": 4, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "checkpoint_every_s": 0, "counterfact_records": 1, "num_answers": 1},
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="select", axes={"model": ALL, "layer": ALL},
              fixed={"probes": ("fever", "counterfact"), "allocation": "simset2", "alpha": 0.2}),
        Stage(name="diverges", axes={"model": ALL}, take=best, fixed={"lr": 1e30, "allocation": "simset2"}),
        Stage(name="fails", axes={"model": ALL}, take=best, fixed={"memory_dim": 10**12}),
    ),
)
