"""Which alpha, learning rate and memory size memorise best? Sampled instead of a grid (after note 002).

The layer is chosen as in `inductive.py`; there Optuna samples, and stops what falls behind (ASHA). Bounds and number
of samples are ours. `--set alpha=...` fixes a sampled field, `--set num_samples=...` changes how many are drawn.

    python -m sweep.run search_spaces/tune_alpha.py
"""

from sweep.space import ALL, Best, LogUniform, OneOf, Sampling, Space, Stage

space = Space(
    name="tune_alpha",
    title="Alpha, learning rate and memory size sampled at the chosen layer, bad trials stopped early",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "depth": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    },
    fixed={
        "data": "fever",
        "dtype": "bfloat16",
        "num_documents": 1000,
        "memory_dim": 4096,
        "allocation": "simset2",
    },
    probes=("forgetting",),
    stages=(
        Stage(name="layer_selection", axes={"model": ALL, "depth": ALL}, fixed={"alpha": 0}),
        Stage(
            name="tune",
            axes={"model": ALL},
            take=Best(field="layer", stage="layer_selection", per=("model",), by="memory/nll"),
            sampling=Sampling(
                fields={
                    "alpha": LogUniform(0.05, 5.0),
                    "lr": LogUniform(1e-4, 1e-2),
                    "memory_dim": OneOf((1024, 4096, 12288)),
                },
                num_samples=32,
                metric="train/nll",
                grace_epochs=5,
            ),
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "depth": [0.5, 0.75],
        "num_documents": 8,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 6,
        "num_samples": 4,
    },
)
