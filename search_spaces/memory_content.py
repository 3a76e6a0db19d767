"""What should the memory hold: the documents, training claims in the template, or both?

Note 000: each variant with two weight decays, one example in the prompt, memory at 75 % of the depth (the note: 70
to 80 %). The pretrained baseline, which weight decay cannot change, is evaluated once for each model; it is the
1-shot point of `few_shot.py`.

    python -m sweep.run search_spaces/memory_content.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="memory_content",
    title="Documents, templates or both in the memory, by weight decay (note 000)",
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
        "content": ["document", "template", "document+template"],
        "weight_decay": [0.05, 0.01],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "num_documents": 100, "depth": 0.75},
    probes=("forgetting",),
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="memory", axes={"model": ALL, "content": ALL, "weight_decay": ALL}),
    ),
    small={
        "model": ["sample-llama", "sample-neox"],
        "data": "sample",
        "dtype": "float32",
        "num_documents": 4,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
    },
)
