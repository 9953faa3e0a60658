"""Keys and cookies: from the environment or a file outside the recipe; never in tables, recipes or logs."""

import os
from pathlib import Path

import yaml

from omnisource.errors import UserError


class Keys:
    """Service keys by name. `OMNISOURCE_PEXELS_KEY` wins over the line `pexels: ...` of the key file.

    `cookies` is a Netscape cookie file for yt-dlp and gallery-dl, from `OMNISOURCE_COOKIES` or the file's `cookies:`.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._values: dict[str, str] = {}
        if file is not None:
            try:
                values = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                raise UserError(f"{file}: the key file cannot be read; it holds one `service: key` a line") from None
            if not isinstance(values, dict):
                raise UserError(f"{file}: the key file must hold one `service: key` a line")
            self._values = {str(name): str(value) for name, value in values.items()}
        cookies = os.environ.get("OMNISOURCE_COOKIES") or self._values.get("cookies")
        self.cookies = Path(cookies).expanduser() if cookies else None
        if self.cookies and not self.cookies.is_file():
            raise UserError(
                f"{self.cookies}: no such cookie file; mend OMNISOURCE_COOKIES, or `cookies` in the key file"
            )

    def get(self, service: str) -> str | None:
        """The key of a service, or None."""
        return os.environ.get(f"OMNISOURCE_{service.upper().replace('-', '_')}_KEY") or self._values.get(service)

    def need(self, service: str, where: str) -> str:
        """The key of a service that gives nothing without one. Raises `UserError` that says where to get it."""
        key = self.get(service)
        if not key:
            raise UserError(
                f"collect source '{service}' needs a key: set OMNISOURCE_{service.upper()}_KEY (free at {where})"
            )
        return key
