"""Making the data root, before a command locks it.

Belongs here: the folder alone. Who may work on it at once is decided by the commands themselves.
"""

from __future__ import annotations

from pathlib import Path

from quant_resources.errors import StorageError


def make_data_root(data_root: Path) -> None:
    """Make the folder where it is missing.

    Raises:
        StorageError: It cannot be made; the sentence says where else.
    """
    try:
        data_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The data root {data_root} cannot be made ({error.strerror}); choose another folder "
            "with QUANT_DATA_ROOT."
        ) from error
