"""Does a memory do what LoRA, prompt or prefix tuning or a full update do, at equal parameters and at equal FLOPs?

Note 000 compares the memory with a full update only, and wishes for the other two. The values are those of
SmolLM2-135M (30 blocks, 576 wide), with the memory at 75 % of the depth and the study's 25 epochs as the measure:

- *Equal parameters*: 128 entries (149,313 numbers), LoRA of rank 2 on all linear maps of the 7 blocks above (142,464),
  256 vectors before every text (147,456), keys and values of 13 tokens in every block (149,760). A full update trains
  all 134.5 million.
- *Equal FLOPs*: memory and LoRA take 0.21 GFLOP a token, since blocks below are not trained through; a full update
  takes 3.8 times as much, so 7 epochs; a prompt of 20 vectors before 256 tokens 2.7 times, so 9 epochs.

Learning rates are ours, for notes and papers name them for the memory (1e-3) only: LoRA 1e-3, prompts 3e-2, prefixes
1e-2, full update 2e-5, each at the same schedule. `train/params` and `train/flops` of every record say what it really
was. Beside what is memorised stands what is forgotten.

    python -m sweep.run search_spaces/adapters.py
"""

from sweep.space import ALL, Space, Stage

SEEDS = {"seed": ALL}

space = Space(
    name="adapters",
    title="Memory, LoRA, prompt, prefix and full update, at equal parameters and at equal FLOPs (open in note 000)",
    axes={"method": ["memory", "lora", "prompt", "prefix", "full_update"], "seed": [0, 1, 2]},
    fixed={
        "model": "smollm2-135m",
        "data": "fever",
        "num_documents": 100,
        "depth": 0.75,
        "probes": ("fever", "forgetting"),
        "rank": 2,
        "virtual_tokens": 256,
    },
    stages=(
        Stage(name="baseline", axes=SEEDS, fixed={"method": "pretrained"}),
        Stage(name="memory", axes=SEEDS, fixed={"method": "memory"}),
        Stage(name="lora", axes=SEEDS, fixed={"method": "lora"}),
        Stage(name="prompt", axes={**SEEDS, "lr": [3e-2]}, fixed={"method": "prompt"}),
        Stage(name="prefix", axes={**SEEDS, "lr": [1e-2], "virtual_tokens": [13]}, fixed={"method": "prefix"}),
        Stage(name="full_update", axes={**SEEDS, "lr": [2e-5]}, fixed={"method": "full_update"}),
        Stage(
            name="prompt_flops",
            axes={**SEEDS, "lr": [3e-2], "virtual_tokens": [20], "epochs": [9]},
            fixed={"method": "prompt"},
        ),
        Stage(
            name="full_update_flops",
            axes={**SEEDS, "lr": [2e-5], "epochs": [7]},
            fixed={"method": "full_update"},
        ),
    ),
    small={
        "model": "sample-llama",
        "data": "sample",
        "num_documents": 4,
        "memory_dim": 32,
        "segment_tokens": 64,
        "virtual_tokens": 8,
        "epochs": 3,
        "seed": [0],
    },
)
