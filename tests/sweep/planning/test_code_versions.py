"""A plan counts what is recorded by the version of the code that recorded it."""

from __future__ import annotations

from sweep.planning.plan_of import costed_plan
from sweep.records.record import Origin, begin_record, complete_record
from sweep.records.sweep_storage import SweepStorage
from sweep.space import ALL, Space, Stage

SPACE = Space(
    baseline=False,
    name="demo",
    title="demo",
    axes={"layer": [1, 2, 3]},
    fixed={"model": "sample-llama", "data": "sample"},
    stages=(Stage(name="all", axes={"layer": ALL}),),
)


def test_points_are_counted_by_the_version_that_recorded_them(tmp_path):
    storage = SweepStorage(str(tmp_path))
    points = costed_plan(SPACE, storage, "demo").plan.stages[0].points
    for point, commit in zip(points, ("abc", "def"), strict=False):
        record = begin_record(point.spec, point.identity, point.card, Origin("demo", "all"))
        record["versions"] = {"memory-sweep": "0.1.0", "commit": commit}
        folder = storage.trial_folder("demo", point.spec, point.card.name, point.id)
        storage.write_record(complete_record(record, {"status": "done", "versions": {}}), folder)
    costed = costed_plan(SPACE, storage, "demo")
    assert costed.to_dict()["code_versions"] == {"0.1.0+abc": 1, "0.1.0+def": 1}
    assert "recorded by 0.1.0+abc (1), 0.1.0+def (1): several versions of the code are mixed" in str(costed)
    assert costed.plan.num_to_run == 1
