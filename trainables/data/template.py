"""How questions are put to a model, as data: `template.json` beside the questions, else the template here.

    {"letter":     {"header": "…", "question": "…", "answer": "…", "separator": "…"},
     "likelihood": {…}}

One part for each way to ask; either may be left out. `header` stands first, then few-shot examples (question and
answer, with the separator behind each), then the question. `question` and `answer` are Jinja templates with
`question`, `choices`, `letters`, and in an answer `choice` and `letter`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from trainables.data.data_files import decoded, opened
from trainables.data.documents import Question
from trainables.data.source_files import SourceFiles
from trainables.errors import ConfigError, DataError

WAYS = ("letter", "likelihood")


@dataclass(frozen=True)
class Template:
    """One way to put questions.

    Attributes:
        header: stands before everything.
        question: of examples and of what is asked.
        answer: behind a question, with its leading space.
        separator: behind each example.
        where: file and part, for messages.
    """

    header: str
    question: str
    answer: str
    separator: str
    where: str = "the template"

    def prompt(self, question: Question, examples: Sequence[Question] = ()) -> str:
        """Return the text that a model goes on from; a question that is a whole prompt stands alone."""
        if question.is_prompt:
            return question.text
        shots = "".join(f"{self._asked(e)}{self.answered(e, e.answer)}{self.separator}" for e in examples)
        return f"{self.header}{shots}{self._asked(question)}"

    def answered(self, question: Question, choice: int) -> str:
        """Return how a choice stands behind the prompt."""
        told = {"choice": question.choices[choice], "letter": question.letters[choice]}
        return self._render("answer", question, **told)

    def _asked(self, question: Question) -> str:
        return question.text if question.is_prompt else self._render("question", question)

    def _render(self, part: str, question: Question, **told: str) -> str:
        from jinja2 import TemplateError

        values = {"question": question.text, "choices": list(question.choices), "letters": list(question.letters)}
        try:
            text: str = self._compiled[part].render(**values, **told)
            return text
        except (TemplateError, TypeError, ValueError) as error:
            raise DataError(f"{self.where}: {part}: {_line(error)}") from None

    @cached_property
    def _compiled(self) -> dict[str, Any]:
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
        )
        found = {}
        for part in ("question", "answer"):
            try:
                found[part] = environment.from_string(getattr(self, part))
            except TemplateError as error:
                raise DataError(f"{self.where}: {part}: {_line(error)}") from None
        return found


USUAL = {
    "letter": Template(
        header="",
        question="Question: {{ question }}\n{% for choice in choices %}({{ letters[loop.index0] }}) {{ choice }}\n"
        "{% endfor %}Answer:",
        answer=" ({{ letter }})",
        separator="\n\n",
    ),
    "likelihood": Template(
        header="", question="Question: {{ question }}\nAnswer:", answer=" {{ choice }}", separator="\n\n"
    ),
}
"""Ours: the plainest form of what evaluation programs use."""


def read_templates(sources: Sequence[SourceFiles]) -> dict[str, Template]:
    """Return the template of each way to ask: that of the one source that has any, else the usual ones.

    Raises:
        ConfigError: several sources have a template.
        DataError: a file that is no template.
    """
    files = [source.template for source in sources if source.template is not None]
    if len(files) > 1:
        raise ConfigError(f"data: {files[0]} and {files[1]} serve the same purpose; keep one of them")
    if not files:
        return dict(USUAL)
    path = files[0]
    with opened(path) as file:
        text = decoded(str(path), file.read())
    try:
        stated = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    parts = {way: asdict(template) for way, template in USUAL.items()}
    if not isinstance(stated, dict) or not stated or not set(stated) <= set(WAYS):
        raise DataError(
            f"{path}: needs an object with {' or '.join(WAYS)}, each with header, question, answer, separator"
        )
    for way, own in stated.items():
        known = [name for name in parts[way] if name != "where"]
        if not isinstance(own, dict) or not set(own) <= set(known) or not all(isinstance(v, str) for v in own.values()):
            raise DataError(f"{path}: {way} must be an object with texts for some of {', '.join(known)}")
        parts[way] |= own
    found = {way: Template(**{**part, "where": f"{path}: {way}"}) for way, part in parts.items()}
    sample = Question("", "?", ("one", "two"), 0)
    for template in found.values():
        template.prompt(sample)
        template.answered(sample, 1)
    return found


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
