"""At which layer is memorising easiest, and where does it help or hurt judging facts?

Note 001: an unstructured memory at every block in turn, on the top 500 pages (449 remain there). Claims are asked
after 1, 5 and 10 epochs as well (ours): the note sees generalisation fall the longer the training.

    python -m sweep.run search_spaces/layers.py
"""

from sweep.space import ALL, EVERY_LAYER, Space, Stage

space = Space(
    name="layers",
    title="A memory at every layer: memorisation error by epoch, and FEVER accuracy (note 001)",
    axes={
        "model": ["llama2_chat-7b", "llama2-7b"],
        "layer": [EVERY_LAYER],
    },
    fixed={"data": "fever", "dtype": "bfloat16", "num_documents": 500, "eval_epochs": (1, 5, 10)},
    probes=("forgetting",),
    stages=(
        Stage(name="baseline", axes={"model": ALL}, fixed={"method": "pretrained"}),
        Stage(name="layers", axes={"model": ALL, "layer": ALL}),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "dtype": "float32",
        "num_documents": 4,
        "memory_dim": 64,
        "segment_tokens": 64,
        "epochs": 3,
        "eval_epochs": (1,),
    },
)
