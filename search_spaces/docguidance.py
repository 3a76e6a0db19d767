"""Does a vector for each document, with a loss that forbids knowing under a wrong one, keep documents apart?

The study's author went on from hard and inductive entry sets to this (arXiv 2406.15996): fixed vectors of two numbers
open the entries by `g = act(W key)`, the memory adds `act(L(down(act(up(h)) * g)))`, and the loss is
CE+ + 0.1 min((CE- - t)^2, CE+), where CE- is the error of the same text under a wrong vector. Stage by stage: the
activation and what a wrong vector is; then, with the activation that memorises best, t, its weight, and the size of
vectors.

    python -m sweep.run search_spaces/docguidance.py
"""

from sweep.space import ALL, Best, Space, Stage

BEST = Best(field="activation", stage="activations", per=("model",))

space = Space(
    name="docguidance",
    title="Document vectors and a guidance loss (arXiv 2406.15996)",
    axes={
        "model": ["pythia-1b", "llama2-7b"],
        "activation": ["tanh", "relu", "gelu"],
        "negatives": ["other", "zero", "random", "perturbed"],
        "guidance_target": [2.5, 4.5],
        "guidance_alpha": [0.0, 0.1, 1.0],
        "key_dim": [2, 8, 32],
    },
    fixed={"data": "fever", "num_documents": 100, "depth": 0.75, "method": "docguidance", "dtype": "bfloat16"},
    probes=("forgetting",),
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="activations", axes={"model": ALL, "activation": ALL}),
        Stage(name="negatives", axes={"model": ALL, "negatives": ALL}, take=BEST),
        Stage(name="guidance", axes={"model": ALL, "guidance_target": ALL, "guidance_alpha": ALL}, take=BEST),
        Stage(name="key_dim", axes={"model": ALL, "key_dim": ALL}, take=BEST),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "num_documents": 4,
        "memory_dim": 32,
        "segment_tokens": 64,
        "epochs": 3,
        "negatives": ["other", "zero"],
        "guidance_alpha": [0.0, 0.1],
        "key_dim": [2, 8],
    },
)
