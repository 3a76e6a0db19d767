"""What a sweep has left and something has damaged: every command names it, none ends in a traceback or believes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sweep import plan, publish, run
from sweep.planning.plan_of import plan_sweep
from sweep.records.mend import problems_of
from sweep.records.results_table import results_table
from sweep.records.sweep_files import read_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.report.__main__ import app as report
from sweep.report.answers import read_answers
from sweep.report.samples import samples_of
from sweep.report.study import load_study
from sweep.running.run_sweep import run_sweep
from trainables.adapters.memory.io import load_memory
from trainables.errors import DataError

SPACE = """
from sweep.space import ALL, Best, LogUniform, Sampling, Space, Stage

best = Best(field="layer", stage="select", per=("model",))
space = Space(
    baseline=False,
    name="kept", title="", axes={"model": [%(model)r], "layer": [0, 2]},
    fixed={"data": %(data)r, "memory_dim": 8, "epochs": 2, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "counterfact_records": 1, "num_answers": 1, "answer_tokens": 2},
    stages=(
        Stage(name="select", axes={"model": ALL, "layer": ALL}, fixed={"allocation": "simset2", "alpha": 0.2}),
        Stage(name="ask", axes={"model": ALL}, take=best, fixed={"probes": ("fever", "counterfact")}),
        Stage(name="tune", axes={"model": ALL}, take=best,
              sampling=Sampling(fields={"lr": LogUniform(1e-5, 1e-3)}, num_samples=2)),
    ),
)
"""
COMMANDS = ("plan", "report", "publish", "run")


@pytest.fixture(scope="module")
def whole(tiny_models: dict[str, Path], sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep in `out`, and its space."""
    home = tmp_path_factory.mktemp("whole")
    (home / "kept.py").write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    results = run_sweep(
        home / "kept.py", home / "out", executor="local", tracking_uri=f"sqlite:///{home}/out/mlflow.db"
    )
    assert results.exit_code == 0, results
    return home


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be damaged."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def call(command: str, home: Path) -> tuple[int, str]:
    """Run a command; return its exit status and all that it said."""
    out, space = str(home / "out"), str(home / "kept.py")
    app, args = {
        "plan": (plan.app, [space, "--storage", out]),
        "run": (run.app, [space, "--storage", out, "--executor", "local"]),
        "publish": (publish.app, [out]),
        "report": (report, [out, "--no-mlflow", "--resamples", "100"]),
    }[command]
    done = CliRunner().invoke(app, args)
    assert done.exception is None or isinstance(done.exception, SystemExit), (command, done.exception)
    assert "Traceback" not in done.output
    return done.exit_code, done.output


def one(home: Path, name: str) -> Path:
    """Return the first file of a name beside a record."""
    found = sorted((home / "out" / "kept" / "trains").rglob(name))
    of_claims = [path for path in found if name != "answers.parquet" or "correct" in pq.read_schema(path).names]
    return [path for path in of_claims if "probes" in name or name != "record.json" or "/probes/" not in str(path)][0]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def swap_label(path: Path) -> None:
    table = pq.read_table(path)
    labels = ["REFUTES" if label == "SUPPORTS" else "SUPPORTS" for label in table["label"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("label"), "label", pa.array(labels)), path)


def flip_correct(path: Path) -> None:
    table = pq.read_table(path)
    right = [not found for found in table["correct"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("correct"), "correct", pa.array(right)), path)


def without_host(path: Path) -> None:
    record = json.loads(path.read_text())
    del record["host"]
    path.write_text(json.dumps(record))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "record without host": ("record.json", without_host),
    "half a record": ("record.json", lambda path: path.write_bytes(path.read_bytes()[:200])),
    "labels": ("answers.parquet", swap_label),
    "correct": ("answers.parquet", flip_correct),
    "no answers": ("answers.parquet", Path.unlink),
    "half the answers": ("answers.parquet", lambda path: path.write_bytes(path.read_bytes()[:90])),
    "record of an asking": ("probes/*/record.json", lambda path: path.write_bytes(path.read_bytes()[:90])),
    "analysis": ("analysis.json", lambda path: path.write_text("[")),
    "half the weights": ("memory.safetensors", lambda path: path.write_bytes(path.read_bytes()[:90])),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.thorough(but=("half a record", "correct"))
def test_every_command_names_what_is_damaged_beside_a_record_and_a_run_makes_it_again(copy: Path, damage: str) -> None:
    name, do = DAMAGES[damage]
    path = one(copy, name)
    before = path.read_bytes()
    do(path)
    where = str(path.relative_to(copy / "out"))
    for command in ("plan", "report"):
        code, said = call(command, copy)
        assert code == 0 and where in said.replace("\n", ""), said
    code, said = call("run", copy)
    assert code == 0 and where in said and "set aside as record.json.broken" in said, said
    if name == "analysis.json":
        assert path.read_bytes() == before
    assert ("0 trials to run" in said) == ("asking" in damage or name == "answers.parquet"), said
    assert not problems_of(
        SweepStorage(str(copy / "out")), "kept", SweepStorage(str(copy / "out")).index(set_aside=False)
    )
    assert "broken" not in call("plan", copy)[1]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"stages": {}}', '{"a": []}', '[{"stage": 1}]', "null", "[" * 10_000]
)
@pytest.mark.parametrize("file", ["plan.json", "choices.json", "sampled.json"])
@pytest.mark.thorough(but=("", "{", "[]", "null"))
def test_a_broken_file_of_a_sweep_is_named_and_made_again(copy: Path, file: str, content: str) -> None:
    storage = SweepStorage(str(copy / "out"))
    before, path = read_sweep_file(storage, "kept", file), copy / "out" / "kept" / file
    path.write_text(content)
    if read_sweep_file(storage, "kept", file) is not None:
        pytest.skip("this is a whole file, only an empty one")
    assert f"kept/{file}: not " in " ".join(plan_sweep(copy / "kept.py", copy / "out").warnings)
    assert f"kept/{file}: not " in " ".join(load_study(storage).unreadable)
    results = run_sweep(copy / "kept.py", copy / "out", executor="local")
    assert (results.exit_code, results.num_run) == (0, 0)
    assert f"kept/{file}: not " in " ".join(results.notes) and f"set aside as {file}.broken" in " ".join(results.notes)
    after = read_sweep_file(storage, "kept", file)
    if file == "choices.json":
        for choice in (*before.values(), *after.values()):
            del choice["decided_at"]
    if file == "plan.json":  # what a stage waited for is another thing once it is there
        before, after = (
            [found["storage"], [(stage["name"], sorted(stage["ids"])) for stage in found["stages"]]]
            for found in (before, after)
        )
    if file == "sampled.json":
        before, after = ({draw["id"]: draw for draw in draws} for draws in (before, after))
        for draw in (*before.values(), *after.values()):  # an identity rounds what was drawn to twelve digits
            draw["values"] = {name: float(f"{value:.9g}") for name, value in draw["values"].items()}
    assert after == before


def test_every_command_names_a_broken_file_of_a_sweep(copy: Path) -> None:
    (copy / "out" / "kept" / "choices.json").write_text('{"key": []}')
    (copy / "out" / "storage.json").write_text("{")
    for command in COMMANDS:
        code, said = call(command, copy)
        assert code == 0 and "kept/choices.json: not " in said, (command, said)
        if command in ("plan", "report", "publish"):
            assert "storage.json: not " in said, (command, said)
            (copy / "out" / "storage.json").write_text("{")
    assert "MLflow" in said and "created" not in call("publish", copy)[1]


def test_broken_commits_are_the_users_to_restore(copy: Path) -> None:
    (copy / "out" / "kept" / "commits.json").write_text('{"models": []}')
    code, said = call("run", copy)
    assert code == 2 and "commits.json: not what this file holds; it says at which commits" in said
    for command in ("plan", "report", "publish"):
        code, said = call(command, copy)
        assert code == 0 and "kept/commits.json: not " in said, (command, said)


def numbers(home: Path) -> tuple[dict, dict, dict, list[str]]:
    """All numbers that the commands take from a storage, by trial, and what they say of it."""
    storage = SweepStorage(str(home / "out"))
    index = storage.index(set_aside=False)
    rows = {}
    for row in results_table(storage, "kept", index).to_pylist():
        rows[row["id"]] = {name: value for name, value in row.items() if value is not None}
    study = load_study(storage)
    answers = {trial: found.given.tolist() for trial, found in read_answers(storage, study.trials).items()}
    labels = {trial: found.questions.labels.tolist() for trial, found in read_answers(storage, study.trials).items()}
    texts = {trial.id: samples_of(study, trial) for trial in study.trials}
    plan_sweep(home / "kept.py", home / "out")
    return rows, {t: (answers[t], labels[t]) for t in answers}, texts, list(study.unreadable)


@pytest.fixture(scope="module")
def undamaged(whole: Path) -> tuple[dict, dict, dict]:
    rows, answers, texts, unreadable = numbers(whole)
    assert not unreadable and len(rows) == 5 and answers and any(texts.values())
    return rows, answers, texts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Return a file with bytes flipped, cut out, put in or doubled, or with a JSON value in place of another."""
    how = data.draw(st.sampled_from(["flip", "cut", "put in", "end", "value"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if how == "flip":
        return content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    if how == "cut":
        return content[:place] + content[place + data.draw(st.integers(1, 40)) :]
    if how == "put in":
        return content[:place] + data.draw(st.binary(min_size=1, max_size=8)) + content[place:]
    if how == "end":
        return content[:place]
    try:
        value = json.loads(content)
    except ValueError:
        return json.dumps(data.draw(JSON)).encode()
    spot = value
    while isinstance(spot, (dict, list)) and spot:
        key = data.draw(st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[key], (dict, list)) or not spot[key] or data.draw(st.booleans()):
            spot[key] = data.draw(JSON)
            break
        spot = spot[key]
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode()


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_nothing_that_happens_to_a_file_changes_a_number_silently(
    whole: Path, undamaged: tuple[dict, dict, dict], data: st.DataObject
) -> None:
    rows, answers, texts = undamaged
    names = (
        "record.json",
        "answers.parquet",
        "analysis.json",
        "plan.json",
        "choices.json",
        "sampled.json",
    )
    name = data.draw(st.sampled_from(names))
    path = data.draw(st.sampled_from(sorted((whole / "out").rglob(name))))
    content = path.read_bytes()
    changed = damaged(data, content)
    path.write_bytes(changed)
    try:
        rows_now, answers_now, texts_now, said = numbers(whole)
    finally:
        path.write_bytes(content)
    for now, then in ((rows_now, rows), (answers_now, answers), (texts_now, texts)):
        for trial, found in now.items():
            assert found in (then[trial], []) or (name == "plan.json" and said), "a number has changed"
    if (rows_now, answers_now, texts_now) != (rows, answers, texts):
        assert any(str(path.relative_to(whole / "out")) in line for line in said), said


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_nothing_that_happens_to_weights_is_taken_for_weights(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = one(whole, "memory.safetensors").read_bytes()
    changed = damaged(data, content)
    (tmp_path / "m.safetensors").write_bytes(changed)
    if changed != content:
        with pytest.raises(DataError, match=r"m\.safetensors: "):
            load_memory(tmp_path / "m.safetensors")
