"""What `omnisource predict` is given: files, folders, web addresses."""

import http.client
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omnisource import __version__
from omnisource.errors import UserError
from omnisource.media import Limits

_CHUNK = 1 << 20
_WAIT_S = 30.0  # for a server to answer


@contextmanager
def gathered(inputs: Sequence[str], limits: Limits) -> Iterator[dict[str, str]]:
    """Every file behind `inputs`: name to show -> path to read. Web files are fetched into a folder that goes away.

    A folder stands for all files below it (hidden ones left out), sorted.

    Raises:
        UserError: a missing path, an empty folder, a download that fails or is larger than `limits.max_bytes`.
    """
    with tempfile.TemporaryDirectory(prefix="omnisource-") as folder:
        found: dict[str, str] = {}
        for given in inputs:
            if given.startswith(("http://", "https://")):
                found[given] = str(_fetch(given, Path(folder) / str(len(found)), limits.max_bytes))
            elif "://" in given:
                found[given] = given  # an fsspec URL: read where it lies
            else:
                found |= {str(path): str(path) for path in _files(Path(given))}
        yield found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        below = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        if not below:
            raise UserError(f"{path}: no files in this folder")
        return below
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return [path]


def _fetch(url: str, path: Path, max_bytes: int) -> Path:
    asked = urllib.request.Request(url, headers={"User-Agent": f"omnisource/{__version__}"})
    try:
        with urllib.request.urlopen(asked, timeout=_WAIT_S) as answer, path.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                if file.tell() > max_bytes:
                    raise UserError(f"{url}: more than {max_bytes} bytes; download and cut it, or raise the limit")
            if answer.length:  # what the server had announced and did not send
                raise OSError(f"{answer.length} bytes are missing at its end")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be fetched ({reason}); download it yourself and give the file") from None
    return path
