"""FEVER from the Hugging Face hub, through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainables.errors import ConfigError

REPOSITORY = "fever/fever"
CONVERTED = "hf://datasets/fever/fever@refs/convert/parquet"
BATCH_ROWS = 10_000


def hub_rows(config: str, split: str, columns: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of one table of FEVER on the hub, downloaded at first use and cached by `datasets`.

    Args:
        config: `v1.0` for claims in table form, `wiki_pages` for pages.
        split: `train`, `paper_dev`, or `wikipedia_pages`.
        columns: the columns wanted.

    Raises:
        ConfigError: the hub cannot be reached or lacks the table.
    """
    table = _open_table(config, split).select_columns(columns)
    for batch in table.iter(batch_size=BATCH_ROWS):
        for values in zip(*(batch[column] for column in columns), strict=True):
            yield dict(zip(columns, values, strict=True))


def _open_table(config: str, split: str) -> Any:
    """Open a table as the repository has it, else as the hub's own Parquet conversion has it.

    The repository was published as a loading script, which `datasets` 4 and later refuses (RuntimeError).
    """
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        try:
            return datasets.load_dataset(REPOSITORY, config, split=split)
        except RuntimeError:
            files = f"{CONVERTED}/{config}/{split}/*.parquet"
            return datasets.load_dataset("parquet", data_files={split: files}, split=split)
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"data: 'hub' needs {REPOSITORY} {config}/{split} from the Hugging Face hub ({reason}); "
            "go online, or download FEVER from https://fever.ai and name its folder instead"
        ) from error
