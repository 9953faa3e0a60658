"""What `omnisource predict` is given: files, folders, web addresses."""

import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omnisource.errors import UserError
from omnisource.media import Limits
from omnisource.predict.web import fetch


@contextmanager
def gathered(inputs: Sequence[str], limits: Limits, allow_private: bool = False) -> Iterator[dict[str, str]]:
    """Every file behind `inputs`: name to show -> path to read. Web files are fetched into a folder that goes away.

    A folder stands for all files below it (hidden ones left out), sorted.

    `allow_private` lets web addresses lead to private, loopback and link-local hosts.

    Raises:
        UserError: a missing path, an empty folder, a download that fails, is refused or is larger than
            `limits.max_bytes`.
    """
    with tempfile.TemporaryDirectory(prefix="omnisource-") as folder:
        found: dict[str, str] = {}
        for given in inputs:
            if re.match(r"https?:", given, re.IGNORECASE):
                path = Path(folder) / str(len(found))
                fetch(given, path, max_bytes=limits.max_bytes, allow_private=allow_private)
                found[given] = str(path)
            elif re.search(r"::https?:", given, re.IGNORECASE):  # fsspec would ask any address
                raise UserError(f"{given}: a web address inside another URL is not fetched; give the address itself")
            elif "://" in given:
                found[given] = given  # an fsspec URL: read where it lies
            elif not given:  # would be the current folder
                raise UserError("an input is an empty name; give files, folders or web addresses")
            else:
                found |= {str(path): str(path) for path in _files(Path(given))}
        yield found


def _files(path: Path) -> list[Path]:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # a name that is too long, or none that a file can have
        raise UserError(f"{path}: no such file or folder ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISDIR(found.st_mode):
        return [path]
    below = [p for p in sorted(path.rglob("*")) if p.is_file() and not _hidden(p.relative_to(path))]
    if not below:
        raise UserError(f"{path}: no files in this folder")
    return below


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
