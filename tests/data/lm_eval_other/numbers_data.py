"""Data of two small tasks: whether numbers are even."""

from datasets import Dataset


def numbers(**_):
    def rows(first):
        return [
            {"question": f"Is {n} even?", "choices": ["yes", "no, it is not"], "gold": n % 2}
            for n in range(first, first + 5)
        ]

    return {"train": Dataset.from_list(rows(100)), "test": Dataset.from_list(rows(0))}
