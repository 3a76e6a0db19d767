"""Undo the tokenisation of FEVER's pages (Penn Treebank style): `-LRB- born 1958 -RRB- .` and the like.

What tokenisation lost is not guessed at: straight quotes stay, and a lone `'` becomes an apostrophe only
after a word in s that looks like a plural or a name.
"""

from __future__ import annotations

import re

_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"`` ?"), '"'),
    (re.compile(r" ?''"), '"'),
    (re.compile(r"(?<!\S)` ([^`']*?) '(?!\S)"), r"'\1'"),
    (re.compile(r" -- "), " – "),
    (re.compile(r"([(\[{]) +"), r"\1"),
    (re.compile(r" +([)\]}])"), r"\1"),
    (re.compile(r"(?<=\w) ('(?:s|S|m|d|re|ve|ll)|n't)\b"), r"\1"),
    (re.compile(r"\b(?!(?:is|was|as|has|his|its|this)\b)(\w+s) '(?= |$)"), r"\1'"),
    (re.compile(r"([$£€#]) (?=\d)"), r"\1"),
    (re.compile(r" +([,.;:!?%])(?=[\s,.;:!?)\]}\"']|$)"), r"\1"),
    (re.compile(r"  +"), " "),
)


def detokenize(text: str) -> str:
    """Return the text as it would be written: brackets, quotes, contractions and spaces restored.

    Applying it twice is the same as once: the rules, each of which shortens the text, run until none applies.
    """
    for token, bracket in _BRACKETS.items():
        text = text.replace(token, bracket)
    while (shorter := _once(text)) != text:
        text = shorter
    return text.strip(" ")


def _once(text: str) -> str:
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
