"""Does memorising pages about a subject bring out facts about it?

The CounterFact probe of note 002: five sampled answers to each prompt, its paraphrases and its neighbourhood; how
often the true and the counterfactual target begin an answer. Pages about CounterFact's subjects are memorised first,
where the data has them, and records about them are asked first.

    python -m sweep.run search_spaces/counterfact.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="counterfact",
    title="CounterFact: five sampled answers to each prompt, before and after memorising (note 002)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "alpha": [0, 1.0],
        "allocation": ["partitioned", "simset1", "simset2"],
    },
    fixed={
        "data": "fever,counterfact",
        "dtype": "bfloat16",
        "num_documents": 100,
        "memory_dim": 4096,
        "depth": 0.75,
        "probes": ("counterfact",),
        "page_order": "subjects",
    },
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="counterfact", axes={"model": ALL, "alpha": ALL, "allocation": ALL}),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "allocation": ["partitioned", "simset2"],
        "num_documents": 8,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
        "counterfact_records": 10,
    },
)
