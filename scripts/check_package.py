"""Is the built package whole? ``make package`` builds it into ``dist``, then this looks into it.

The wheel holds every file of ``src/wlm``, its markers of types and the command, and nothing else; unpacked in a folder
of its own it is imported from there. The sdist holds what building, testing and documenting takes. With ``--demo`` the
wheel is installed into an empty environment, with the versions of ``constraints.txt``, and runs ``scripts/demo.py``.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
#: What the sdist has to hold besides the sources.
WANTED = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "constraints-cellrank.txt",
    "constraints-next.txt",
    "docs/conf.py",
    "pyproject.toml",
    "scripts/demo.py",
    "tests/conftest.py",
    "tests/store/data/fit_format1.h5ad",
    "tutorials/first_fit.ipynb",
}
#: Everything public by its lazy name, from the wheel and not from the sources.
IMPORT = """
import sys, wlm
assert wlm.__file__.startswith(sys.argv[1]), wlm.__file__
for name in wlm.__all__:
    part = getattr(wlm, name)
    for function in getattr(part, "__all__", []):
        getattr(part, function)
print("imported wlm", wlm.__version__, "from the wheel")
"""


def only(pattern: str) -> Path:
    """The one file in ``dist`` that the pattern names."""
    found = sorted(DIST.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{DIST} should hold one {pattern}, found {[path.name for path in found]}; run make package")
    return found[0]


def sources() -> set[str]:
    """The files of ``src/wlm``, as the wheel names them."""
    files = (path for path in (ROOT / "src" / "wlm").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT / "src")) for path in files}


def check_wheel(wheel: Path) -> None:
    """The files of the wheel are those of the sources, with the entry point."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        code = {name for name in names if ".dist-info/" not in name}
        command = next(name for name in names if name.endswith("/entry_points.txt"))
        entry = archive.read(command).decode()
    if code != sources() or not {"wlm/py.typed", "wlm/__init__.pyi"} <= code:
        sys.exit(f"the wheel lacks {sorted(sources() - code)} and has {sorted(code - sources())} besides")
    if "wlm = wlm.cli:app" not in entry:
        sys.exit(f"the command wlm is missing: {entry}")
    print(f"{wheel.name}: {len(code)} files, py.typed, stubs, the command")


def check_sdist(sdist: Path) -> None:
    """The sdist holds the sources and what is needed beside them."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = (WANTED | {f"src/{name}" for name in sources()}) - names
    if missing:
        sys.exit(f"the sdist lacks {sorted(missing)}")
    print(f"{sdist.name}: {len(names)} files")


def run(*command: object, folder: str) -> None:
    """A command in a folder from which the sources cannot be imported."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([*map(str, command)], check=True, cwd=folder, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="install into an empty environment and run the demo")
    demo = parser.parse_args().demo
    wheel, sdist = only("*.whl"), only("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    with tempfile.TemporaryDirectory() as folder:
        if demo:
            venv.create(Path(folder, "env"), with_pip=True)
            python = Path(folder, "env", "bin", "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            run(*pip, "--constraint", ROOT / "constraints.txt", wheel, folder=folder)
            run(python, "-c", IMPORT, folder, folder=folder)
            run(python, ROOT / "scripts" / "demo.py", folder=folder)
        else:
            # Its dependencies are those of this environment.
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            run(sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{IMPORT}", folder, folder=folder)


if __name__ == "__main__":
    main()
