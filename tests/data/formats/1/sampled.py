from sweep.space import ALL, LogUniform, Sampling, Space, Stage

space = Space(
    name="sampled",
    title="trials stopped early",
    axes={"model": ["tiny"], "layer": [2]},
    fixed={"data": "sample", "memory_dim": 8, "epochs": 4, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "allocation": "simset2", "alpha": 0.2},
    stages=(
        Stage(name="tune", axes={"model": ALL, "layer": ALL},
              sampling=Sampling(fields={"lr": LogUniform(1e-5, 1e-1)}, num_samples=6, grace_epochs=1)),
    ),
)
