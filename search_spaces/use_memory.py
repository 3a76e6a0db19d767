"""Does a model that has stored documents answer better once it is trained to use what is stored?

Note 001: storing well is not yet using; it asks for training that teaches the model to use what its memory holds. Here
documents are stored first, then the answers to training claims are trained on top, in two ways: a second memory beside
the first one, which stays as it is (at its block, 22 of 30, or above it, at 26, where it reads what the first has
written), and the first memory itself, which may then lose what it stored. Against that: documents alone, also for twice
as long; templates alone, at both blocks; both together in one memory, of as many entries as one has or two have.
`memory/nll` says whether the documents are still stored; `train/params` and `train/flops` are those of the last
training, not of the one that it starts from.

    python -m sweep.run search_spaces/use_memory.py
"""

from sweep.space import ALL, Space, Stage

SEEDS = {"seed": ALL}

space = Space(
    name="use_memory",
    title="Documents stored, then templates on top: does the model learn to use its memory? (note 001)",
    axes={"seed": [0, 1, 2]},
    fixed={"model": "smollm2-135m", "data": "fever", "num_documents": 100, "layer": 22, "memory_dim": 128},
    stages=(
        Stage(name="baseline", axes=SEEDS, fixed={"method": "pretrained"}),
        Stage(name="document", axes=SEEDS, fixed={"content": "document"}),
        Stage(name="template", axes={**SEEDS, "layer": [22, 26]}, fixed={"content": "template"}),
        Stage(name="together", axes={**SEEDS, "memory_dim": [128, 256]}, fixed={"content": "document+template"}),
        Stage(
            name="on_top",
            axes={**SEEDS, "template_layer": [22, 26]},
            fixed={"method": "two_memories", "content": "template"},
            start_from="document",
        ),
        Stage(name="trained_on", axes=SEEDS, fixed={"content": "template"}, start_from="document"),
        Stage(name="longer", axes=SEEDS, fixed={"content": "document"}, start_from="document"),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "num_documents": 4,
        "layer": 2,
        "template_layer": [2, 3],
        "memory_dim": 16,
        "segment_tokens": 64,
        "epochs": 3,
        "seed": [0],
    },
)
