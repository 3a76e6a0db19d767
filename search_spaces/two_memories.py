"""Does a memory for each kind of data do what one for both did not?

Note 000: documents and templates in one memory were no better than either alone, and asks for a memory each. Here: each
alone; both in one memory of 128 entries and of as many as two have; two memories of 128 at the same block (22 of 30,
75 % of the depth), the templates' above the documents' (26), and below (15). Both act on every text; each learns from
its own kind.

    python -m sweep.run search_spaces/two_memories.py
"""

from sweep.space import ALL, Space, Stage

BOTH = "document+template"

space = Space(
    name="two_memories",
    title="One memory for documents and templates, or one each (open in note 000)",
    axes={"seed": [0, 1, 2]},
    fixed={"model": "smollm2-135m", "data": "fever", "num_documents": 100, "layer": 22},
    probes=("forgetting",),
    stages=(
        Stage(name="baseline", axes={"seed": ALL}, fixed={"method": "pretrained"}),
        Stage(name="alone", axes={"seed": ALL, "content": ["document", "template"]}),
        Stage(name="shared", axes={"seed": ALL, "memory_dim": [128, 256]}, fixed={"content": BOTH}),
        Stage(
            name="separate",
            axes={"seed": ALL, "template_layer": [22, 26, 15]},
            fixed={"method": "two_memories", "content": BOTH},
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "num_documents": 4,
        "layer": 2,
        "template_layer": [2, 3, 1],
        "memory_dim": [16, 32],
        "segment_tokens": 64,
        "epochs": 3,
        "seed": [0],
    },
)
