"""Builds the wheel, installs it into a clean environment and imports every module: what a user would get.

Run by `make wheel`; arguments are passed on to pip (a constraint).
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

IMPORT_ALL = """
import importlib, pkgutil, sys
import omnisource
names = [m.name for m in pkgutil.walk_packages(omnisource.__path__, "omnisource.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
assert "torchvision" not in sys.modules
print(f"imported {len(names)} modules of omnisource {omnisource.__version__}")
"""


def main(pip_arguments: list[str]) -> None:
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(root)], check=True)
        (wheel,) = out.glob("*.whl")
        venv.create(out / "clean", with_pip=True)
        python = out / "clean" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pip_arguments, str(wheel)], check=True, cwd=root)
        subprocess.run([python, "-c", IMPORT_ALL], check=True, cwd=out)
        subprocess.run([out / "clean" / "bin" / "omnisource", "--version"], check=True, cwd=out)


if __name__ == "__main__":
    main(sys.argv[1:])
