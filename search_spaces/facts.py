"""Does a model tell more of what it has memorised once it has been trained on the form of question?

Note 002 asks for training on questions and answers before knowledge is probed. CounterFact prompts about other subjects
are trained on with their true answers, besides the pages, in place of them, or not at all; every trial is asked the
same prompts, none of them about a subject trained on. The number of prompts trained on is ours.

    python -m sweep.run search_spaces/facts.py
"""

from sweep.space import ALL, Space, Stage

space = Space(
    name="facts",
    title="CounterFact asked after training on prompts about other subjects, on pages, and on both (note 002)",
    axes={
        "model": ["pythia-6.9b", "llama2-7b"],
        "content": ["document", "template", "document+template"],
        "seed": [0, 1, 2],
    },
    fixed={
        "data": "fever,counterfact",
        "dtype": "bfloat16",
        "num_documents": 100,
        "memory_dim": 4096,
        "depth": 0.75,
        "probes": ("counterfact",),
        "page_order": "subjects",
        "template_facts": 200,
    },
    stages=(
        Stage(name="baseline", axes={"model": ALL, "seed": ALL}, fixed={"method": "pretrained"}),
        Stage(name="trained", axes={"model": ALL, "content": ALL, "seed": ALL}),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "seed": [0],
        "num_documents": 8,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
        "counterfact_records": 10,
        "template_facts": 6,
    },
)
