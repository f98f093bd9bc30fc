"""Make the zip that QGIS and its plugin repository take, and check what the repository checks.

python qgis_plugin/build_plugin.py [--out FOLDER] [--release] [--all-tools]

The zip is the same, byte for byte, for the same sources. Standard library only; flake8, bandit and
detect-secrets, which the repository runs on what is uploaded, run where they are installed.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib.util
import json
import re
import subprocess  # nosec B404  # runs the linters
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE / "geoseg_qgis"
PROJECT = HERE.parent / "pyproject.toml"
OLDEST_PYTHON = (3, 9)
LARGEST_ZIP_BYTES = 25_000_000
REQUIRED = (
    *("name", "description", "about", "version", "qgisMinimumVersion", "author", "email"),
    *("homepage", "tracker", "repository", "icon", "tags", "changelog", "hasProcessingProvider"),
)
# What a plugin is made of. Translations (.qm) are compiled, but no programs.
SUFFIXES = {".py", ".txt", ".md", ".html", ".svg", ".png", ".jpg", ".ts", ".qm", ".qml", ".json"}
# An address that is nobody's: the project must be published somewhere before the plugin is.
PLACEHOLDER = "example.org"
EPOCH = (1980, 1, 1, 0, 0, 0)
TOOLS = {
    "flake8": ["-m", "flake8", "--max-line-length", "100"],
    "bandit": ["-m", "bandit", "--quiet", "--recursive"],
    "detect_secrets": ["-m", "detect_secrets", "scan", "--all-files"],
}


def main() -> None:
    """Check, then write the zip and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "dist", help="folder of the zip")
    parser.add_argument("--release", action="store_true", help="refuse addresses of nobody")
    parser.add_argument("--all-tools", action="store_true", help="refuse to skip a linter")
    options = parser.parse_args()
    wrong = [*find_faults(PACKAGE, release=options.release)]
    said, skipped = run_tools(PACKAGE)
    wrong += said
    for tool in skipped:
        print(f"not run: {tool} (not installed)")
    if options.all_tools and skipped:
        wrong.append(f"expected {', '.join(skipped)} to be installed: pip install it")
    if wrong:
        sys.exit("\n".join(wrong))
    path = write_zip(PACKAGE, options.out)
    print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


def list_files(package: Path) -> list[Path]:
    """Return the plugin's files in a fixed order; caches and hidden files are none."""
    return [
        path
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and not any(
            part.startswith(".") or part == "__pycache__"
            for part in path.relative_to(package).parts
        )
    ]


def find_faults(package: Path, *, release: bool = False) -> Iterator[str]:
    """Yield a sentence for everything that the repository or an older QGIS would refuse."""
    files = list_files(package)
    yield from _metadata_faults(package, release=release)
    for path in files:
        name = path.relative_to(package).as_posix()
        if path.name != "LICENSE" and path.suffix not in SUFFIXES:
            yield f"{name}: expected one of {', '.join(sorted(SUFFIXES))}; no other file is taken."
        if path.is_symlink():
            yield f"{name}: expected a file, got a link; a zip does not keep it."
        if path.suffix == ".py":
            yield from _python_faults(path, name)
    licence = package / "LICENSE"
    if not licence.is_file() or "GNU GENERAL PUBLIC LICENSE" not in licence.read_text("utf-8"):
        yield "LICENSE: expected the text of the GNU General Public License in the plugin's folder."


def read_metadata(package: Path) -> dict[str, str]:
    """Return metadata.txt's general section."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read(package / "metadata.txt", encoding="utf-8")
    return dict(parser["general"]) if parser.has_section("general") else {}


def run_tools(package: Path) -> tuple[list[str], list[str]]:
    """Return what the linters found wrong, and the names of those that are not installed."""
    said, skipped = [], []
    for tool, arguments in TOOLS.items():
        if importlib.util.find_spec(tool) is None:
            skipped.append(tool.replace("_", "-"))
            continue
        line = [sys.executable, *arguments, package.name]
        done = subprocess.run(  # nosec B603  # a list, no shell
            line, cwd=package.parent, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said.append(f"{tool}:\n{done.stdout}{done.stderr}".rstrip())
        elif tool == "detect_secrets" and (found := json.loads(done.stdout)["results"]):
            said.append(f"{tool}:\n{json.dumps(found, indent=1)}")
    return said, skipped


def write_zip(package: Path, out: Path) -> Path:
    """Write the zip into a folder and return its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{package.name}-{read_metadata(package)['version']}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in list_files(package):
            name = f"{package.name}/{file.relative_to(package).as_posix()}"
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16  # an ordinary file that nobody executes
            archive.writestr(entry, file.read_bytes(), compresslevel=9)
    size_bytes = path.stat().st_size
    if size_bytes >= LARGEST_ZIP_BYTES:
        path.unlink()
        sys.exit(f"expected a zip below 25 MB; it has {size_bytes / 1e6:.1f} MB.")
    return path


def _metadata_faults(package: Path, *, release: bool) -> Iterator[str]:
    metadata = read_metadata(package)
    lacking = [key for key in REQUIRED if not metadata.get(key)]
    if lacking:
        yield f"metadata.txt: expected {', '.join(lacking)}; not there."
        return
    project = re.search(r'^version = "(.+)"', PROJECT.read_text("utf-8"), re.MULTILINE)
    if project and metadata["version"] != project[1]:
        yield (
            f"metadata.txt: expected version {project[1]}, the engine's that the plugin installs; "
            f"got {metadata['version']}."
        )
    if not (package / metadata["icon"]).is_file():
        yield f"metadata.txt: expected the icon {metadata['icon']}; there is no such file."
    if "/" in metadata["author"]:
        yield "metadata.txt: expected an author without a slash."
    if "plugin" in metadata["name"].lower():
        yield "metadata.txt: expected a name without the word plugin."
    if "supportsQt6" in metadata:
        yield "metadata.txt: supportsQt6 is deprecated; qgisMaximumVersion says it."
    unknown = [key for key, value in metadata.items() if PLACEHOLDER in value]
    if unknown and release:
        yield (
            f"metadata.txt: {', '.join(unknown)} still name {PLACEHOLDER}. Write where the project "
            "is published: the repository follows these addresses."
        )
    elif unknown:
        print(f"to be set before a release: {', '.join(unknown)} in metadata.txt ({PLACEHOLDER})")


def _python_faults(path: Path, name: str) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text("utf-8"), feature_version=OLDEST_PYTHON)
    except SyntaxError as error:
        yield f"{name}:{error.lineno}: not Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}: {error}."
        return
    known = {*sys.stdlib_module_names, "qgis", PACKAGE.name, "processing"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        else:
            continue
        for module in modules:
            if module.split(".")[0] not in known:
                yield (
                    f"{name}:{node.lineno}: {module} is imported; only the standard library and "
                    "QGIS are there (Qt by qgis.PyQt)."
                )


if __name__ == "__main__":
    main()
