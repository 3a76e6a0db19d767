"""What a run says at its end: what trials came to, the answer, where everything is."""

from __future__ import annotations

import os
import shlex
import sys

from sweep.planning.show import RETRY
from sweep.running.results import Results
from sweep.tracking.address import resolve_tracking
from sweep.tracking.link import view_link
from trainables.node.addresses import shown


def show_results(results: Results, tracking_uri: str | None, experiment: str | None) -> None:
    """Print how a run ended, and where everything is."""
    folder = results.paths["folder"]
    for line in results.failures:
        print(f"failed: {line[:300]}")
    if results.tracking_trouble:
        print(f"note: {results.tracking_trouble}")
        print(f"      later: {_python()} -m sweep.publish {folder}{tracking_options(tracking_uri, experiment)}")
    if results.counts["failed"]:
        print(f"failed: {results.counts['failed']} trials; {RETRY}")
    if results.num_run or results.num_asked:
        told = ", ".join(f"{count} {status}" for status, count in results.counts.items() if count)
        print(f"\n{told}; {results.seconds:.0f} s")
    else:
        print("\nnothing to run: every trial has a record" + (", failed ones too" if results.counts["failed"] else ""))
    if results.on_sample_world:
        print("The sample world and its models are for trying and testing: no claim about real models follows.")
    print(f"results:  {results.paths['results']}")
    for line in answer_lines(results):
        print(line)
    tracking = resolve_tracking(results.storage, tracking_uri, experiment)
    print(f"MLflow:   {view_link(results.storage, tracking, results.name)}")
    if results.stopped and results.stopped != "interrupted":
        print(f"stopped: {results.stopped}")


def answer_lines(results: Results) -> list[str]:
    """Return the main answer in two sentences and where the report is, or the command that makes one."""
    command = f"{_python()} -m sweep.report {results.paths['folder']}"
    if "report" not in results.paths:
        trouble = [f"note: no report was written: {results.report_trouble[:300]}"] if results.report_trouble else []
        return [*trouble, f"report:   {command}"]
    main = next(iter(results.conclusions.values()), ())
    return [*(f"{'answer:' if not i else '':9} {sentence}" for i, sentence in enumerate(main[:2])),
            f"report:   {results.paths['report']}"]  # fmt: skip


def tracking_options(uri: str | None, experiment: str | None) -> str:
    """Return the options that name the same place in MLflow, without a password that stands in the address."""
    given = (("--tracking-uri", uri and shown(uri)), ("--experiment", experiment))
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given if value)


def _python() -> str:
    """Return this interpreter as a person would type it here."""
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith("..") else near
