"""What users install: the sdist, the wheel built from it, the console script, and plug-ins beside it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "tests" / "plugin"

# One worker builds and installs; the others would only do it again.
pytestmark = pytest.mark.xdist_group("packaging")

# Names to import by, where they differ from the names to install by.
IMPORT_NAMES = {"pyyaml": "yaml", "pillow": "PIL", "typing-extensions": "typing_extensions"}


def run(*command: str | Path, cwd: Path, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """A command in `cwd`, with nothing of this checkout in its environment."""
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in ok, f"{command} exits with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def build(source: Path, what: str, into: Path) -> Path:
    """Build the sdist or the wheel of a project with the build tools that are installed: no network."""
    run(sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", into, source, cwd=into)
    (built,) = into.glob("*.tar.gz" if what == "sdist" else "*.whl")
    return built


@dataclass(frozen=True)
class Environment:
    """A virtual environment that borrows the installed third-party packages, but not tokred itself."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def install(self, wheel: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "--quiet"]
        run(*pip, "--no-deps", "--no-index", "--disable-pip-version-check", wheel, cwd=self.folder)

    def python(self, code: str) -> str:
        return run(self.bin / "python", "-c", code, cwd=self.folder).stdout.strip()

    def tokred(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        return run(self.bin / "tokred", *arguments, cwd=self.folder, ok=ok)


def new_environment(folder: Path) -> Environment:
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Only a path, so .pth files in there are not followed: an editable tokred stays out. Its own packages come first.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(here)))
    return Environment(folder)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)  # written by us a moment ago
    (project,) = folder.iterdir()
    return project


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(unpacked, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = new_environment(tmp_path_factory.mktemp("environment") / "with a space")
    environment.install(wheel)
    return environment


@pytest.fixture(scope="module")
def with_plugins(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = new_environment(tmp_path_factory.mktemp("plugins"))
    environment.install(wheel)
    for name in ("working", "broken"):
        environment.install(build(PLUGINS / name, "wheel", tmp_path_factory.mktemp(name)))
    return environment


def package_files(root: Path) -> set[str]:
    """What a wheel must hold: the files of tokred, and those of methods as tokred/methods."""
    places = {"tokred": root / "tokred", "tokred/methods": root / "methods"}
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for prefix, folder in places.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and (folder / "methods") not in path.parents
    }


def test_wheel_holds_every_file_once_and_nothing_else(wheel: Path, unpacked: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    assert set(names) == package_files(unpacked) == package_files(ROOT)
    assert {PurePosixPath(name).suffix for name in names} <= {".py", ".typed", ".safetensors", ".html", ".css", ".js"}


def test_wheel_from_the_checkout_is_the_same(wheel: Path, tmp_path: Path) -> None:
    straight = zipfile.ZipFile(build(ROOT, "wheel", tmp_path)).namelist()
    assert sorted(straight) == sorted(zipfile.ZipFile(wheel).namelist())


def test_wheel_ships_type_marker_weights_and_methods(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "tokred/py.typed" in names
    assert "tokred/methods/__init__.py" in names
    weights = [info for info in zipfile.ZipFile(wheel).infolist() if info.filename.endswith(".safetensors")]
    assert weights
    assert all(info.filename.startswith("tokred/backbones/weights/") for info in weights)
    assert sum(info.file_size for info in weights) < 16_000_000


def test_sdist_holds_the_project_without_leftovers(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()]
    assert len(names) == len(set(names))
    assert {name.parts[0] for name in names} <= {
        *("tokred", "methods", "experiments", "notebooks", "tests", "benchmarks"),
        *("pyproject.toml", "README.md", "LICENSE", "Makefile", "PKG-INFO", ".gitignore"),
    }
    assert not [name for name in names if name.parts[:2] == ("tokred", "methods")]


def test_installed_package_comes_from_the_wheel(installed: Environment) -> None:
    place = installed.python(
        "import tokred, tokred.methods; print(tokred.__file__, tokred.methods.__file__, sep='\\n')"
    )
    assert all(Path(line).is_relative_to(installed.folder) for line in place.splitlines())


def test_every_module_imports_from_the_wheel(installed: Environment) -> None:
    code = """
import importlib, pkgutil, tokred
names = [m.name for m in pkgutil.walk_packages(tokred.__path__, "tokred.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(*names)
"""
    names = set(installed.python(code).split())
    files = {file for file in package_files(ROOT) if file.endswith(".py") and not file.endswith("__main__.py")}
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in files}
    assert names == modules - {"tokred"}


def test_console_script_lists_from_any_folder(installed: Environment) -> None:
    listing = installed.tokred("list").stdout
    for name in ("sta", "tome", "evit", "videomae_vit_nano"):
        assert name in listing


def test_version_is_the_same_everywhere(installed: Environment) -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    code = "import tokred; from importlib.metadata import version; print(tokred.__version__, version('tokred'))"
    assert installed.python(code).split() == [declared[1], declared[1]]


def test_plugin_method_reduces(with_plugins: Environment) -> None:
    code = """
import torch, tokred
model = tokred.create_backbone("videomae_vit_nano", pretrained=False)
fast = tokred.attach(model, tokred.build("alternate:block=1"))
clip = torch.zeros(fast.geometry.input_shape())
print(fast.geometry.grid.patches, fast.run(clip).tokens.count, fast(clip).shape == model(clip).shape)
"""
    assert with_plugins.python(code) == "512 256 True"


def test_broken_plugin_is_recorded_with_its_distribution(with_plugins: Environment) -> None:
    code = (
        "from tokred.registry import broken_plugins; (b,) = broken_plugins(); print(b.name, b.distribution, b.reason)"
    )
    reason = "ImportError: the library that this plug-in needs is missing"
    assert with_plugins.python(code) == f"shattered tokred-plugin-broken 4.5.6 {reason}"


def test_listing_shows_the_plugin_and_names_the_broken_one(with_plugins: Environment) -> None:
    done = with_plugins.tokred("list", "methods", ok=(0, 1))
    for name in ("sta", "tome", "evit", "alternate"):
        assert name in done.stdout
    told = " ".join((done.stdout + done.stderr).split())
    for words in ("shattered", "tokred-plugin-broken 4.5.6", "the library that this plug-in needs is missing"):
        assert words in told
    assert "Traceback" not in told


def declared(extra: str | None = None) -> dict[str, str]:
    """Dependency -> lower bound, from the project file; those of one extra where it is named."""
    text = (ROOT / "pyproject.toml").read_text()
    start = "dependencies = [" if extra is None else f"{extra} = ["
    block = text.split(f"\n{start}", 1)[1].split("]\n", 1)[0]
    return {name.lower(): bound for name, bound in re.findall(r'"([\w.-]+)>=([\w.]+)"', block)}


def test_lowest_versions_are_the_declared_lower_bounds() -> None:
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    lowest = {name.lower(): re.sub(r"(\.0)+$", "", number) for name, number in pinned.items()}
    bounds = {name: re.sub(r"(\.0)+$", "", number) for name, number in {**declared(), **declared("hf")}.items()}
    assert lowest == bounds


def imported(*folders: str) -> Iterator[tuple[str, str]]:
    """Top-level name and file of every import statement below the folders."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((alias.name.partition(".")[0], str(path)) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.partition(".")[0], str(path)


def test_every_import_is_declared_and_every_declaration_is_imported() -> None:
    used = dict(imported("tokred", "methods"))
    needed = {IMPORT_NAMES.get(name, name) for name in declared()}
    extras = ("hf", "ray", "tune", "parquet", "onnx", "testing")
    optional = {IMPORT_NAMES.get(name, name) for extra in extras for name in declared(extra)}
    # tokred.testing writes tests for pytest; who calls that has it
    known = needed | optional | {"tokred", "pytest"} | sys.stdlib_module_names
    assert {name: place for name, place in used.items() if name not in known} == {}
    assert needed - used.keys() <= {"einops"}, "declared and never imported (einops is there for methods)"
