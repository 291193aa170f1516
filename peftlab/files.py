"""Files: written so that they are there whole or not at all, and TOML read with clear errors."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftlab.errors import SettingsError

#: Seconds after which a temporary file has no living writer any more.
ABANDONED = 3600


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write; it takes the place of ``path`` when the block ends well.

    At every moment either the old file or the whole new one is there. The folder is made if it is
    missing; what killed writers of the same file left over is removed an hour later.

    Args:
        path: The file to be written or replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        for left_over in path.parent.glob(f".{path.name}.*.tmp"):
            if time.time() - left_over.stat().st_mtime > ABANDONED:
                left_over.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_toml(file: str | Path) -> dict[str, Any]:
    """Read a file that people write.

    Raises:
        SettingsError: It is missing, or no valid TOML.
    """
    path = Path(file)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The file {path} cannot be read ({error.strerror}): check the path."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file {path} is no valid TOML: {error}.") from None
