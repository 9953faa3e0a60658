"""Running yt-dlp and gallery-dl as separate processes: behind the guard, in a folder of their own, under a time limit.

They parse hostile pages with large machinery, so they get no network but the guard, no configuration of the user's, a
copy of the cookie file (they write into it), and an end.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from omnisource.collect.addresses import Resolver
from omnisource.collect.fetch import FetchError
from omnisource.collect.guard import guard
from omnisource.errors import UserError

_MAX_OUTPUT = 64 * 2**20
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


async def run_tool(
    resolver: Resolver,
    module: str,
    arguments: Sequence[str],
    max_bytes: int,
    timeout_s: float,
    cookies: Path | None = None,
    folder: Path | None = None,
) -> bytes:
    """Runs `python -m MODULE ARGUMENTS` and returns what it printed.

    Args:
        max_bytes: most that it may load.
        folder: its working folder; None: an empty one that is deleted.

    Raises:
        FetchError: `timeout`, or `tool_failed` with the last line that it complained.
        UserError: the library is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{module} is not installed; pip install 'omnisource[collect]'")
    with tempfile.TemporaryDirectory(prefix="omnisource-") as private:
        extra: list[str] = []
        if cookies is not None:
            extra = ["--cookies", str(Path(shutil.copy(cookies, private)))]
        async with guard(resolver, max_bytes) as proxy:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                "--proxy",
                proxy,
                *extra,
                *arguments,
                cwd=folder or private,
                env=_environment(private, proxy),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(timeout_s):
                    output, complaints = await asyncio.gather(_read(process.stdout), _read(process.stderr))
                    status = await process.wait()
            except TimeoutError:
                raise FetchError("timeout", f"{module} took longer than {timeout_s:.0f} s", retry=True) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    if status != 0 and output.strip() in (b"", b"null"):
        lines = complaints.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        raise FetchError("tool_failed", f"{module}: {lines[-1][:200]}", retry=True)
    return output


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None
    output = bytearray()
    while chunk := await stream.read(2**16):
        output += chunk
        if len(output) > _MAX_OUTPUT:
            raise FetchError("too_big", "the tool prints without end")
    return bytes(output)


def _environment(home: str, proxy: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE") if name in os.environ}
    return {**kept, "HOME": home, "XDG_CONFIG_HOME": home, **dict.fromkeys(_PROXY_VARIABLES, proxy)}
