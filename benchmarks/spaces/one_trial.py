"""One trial with an inductive loss; `--set` makes it larger, or several."""

from sweep.space import Space, Stage

space = Space(
    baseline=False,
    name="one-trial",
    title="One trial, to time how it grows",
    axes={"alpha": [1.0]},
    fixed={"depth": 0.75, "allocation": "simset2", "num_documents": 8, "epochs": 2},
    stages=(Stage(name="trial", axes={"alpha": [1.0]}),),
)
