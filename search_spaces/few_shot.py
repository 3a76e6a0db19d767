"""How well do pretrained models judge facts, with 0 to 5 examples in the prompt?

All twelve models of note 000's first table, on the top 100 pages (99 remain there). Nothing is trained.

    python -m sweep.run search_spaces/few_shot.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="few_shot",
    title="Pretrained models, 0 to 5 examples in the prompt (note 000)",
    axes={
        "model": [
            "llama2-13b",
            "llama2-7b",
            "llama2_chat-13b",
            "llama2_chat-7b",
            "pythia-12b",
            "pythia-6.9b",
            "pythia-2.8b",
            "pythia-1.4b",
            "pythia-1b",
            "pythia-410m",
            "pythia-160m",
            "pythia-70m",
        ],
        "num_shots": [0, 1, 2, 3, 4, 5],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "num_documents": 100, "method": "pretrained"},
    probes=("forgetting",),
    stages=(Stage(name="few_shot", axes={"model": ALL, "num_shots": ALL}),),
    small={
        "model": ["sample-llama", "sample-neox"],
        "num_shots": [0, 1, 3],
        "data": "sample",
        "dtype": "float32",
        "num_documents": 4,
    },
)
