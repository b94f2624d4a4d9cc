"""The package as a whole: who may import whom, the README's code, the wheel."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "graphrec"
ORDER = [
    "errors",
    "randomness",
    "optional",
    "graphs",
    "layers",
    "datasets",
    "models",
    "runs",
    "evaluation",
    "reports",
    "training",
    "serving",
    "influence",
    "unlearning",
    "cli",
]
FREE = {"errors", "randomness", "optional"}


def imported(file: Path) -> set[str]:
    """The parts of graphrec that a module imports when it runs, at its top or within functions."""
    found: set[str] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # names for annotations: nothing is imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            within = node.module == "graphrec"
            names = [f"graphrec.{alias.name}" for alias in node.names] if within else [node.module]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("graphrec.") and name.count(".")}
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part not in ORDER:
        assert part in ("__init__", "__main__")
        return
    allowed = FREE | set(ORDER[: ORDER.index(part) + 1])
    assert imported(file) <= allowed | {"__version__"}


def test_the_contributor_guide_states_this_order() -> None:
    stated = re.search(r"errors, randomness, optional \|(.*)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert stated is not None
    names = [name.strip() for name in stated.group(1).split("->")]
    assert [name for name in ORDER if name in names] == names


def blocks(file: Path) -> list[str]:
    """The Python blocks of a Markdown file."""
    return re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_readme_runs_as_written(tmp_path: Path) -> None:
    code = blocks(ROOT / "README.md")
    assert len(code) == 4
    assert len(code[0].strip().splitlines()) < 20
    for number, block in enumerate(code):
        script = tmp_path / f"block_{number}.py"
        script.write_text(block, encoding="utf-8")
        done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "lightgcn-world" / "report.html").is_file()
    assert (tmp_path / "runs" / "after" / "forgetting.html").is_file()


def shell_lines(file: Path) -> list[str]:
    """The commands of a Markdown file's indented blocks that begin with ``graphrec``, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", file.read_text(encoding="utf-8"))
    return [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("    graphrec ")]


def test_the_readmes_commands_run_as_written(tmp_path: Path) -> None:
    users, items = [n % 40 for n in range(600)], [(n * 7) % 90 for n in range(600)]
    rows = "\n".join(f"u{user},s{item},{n}" for n, (user, item) in enumerate(zip(users, items, strict=True)))
    (tmp_path / "clicks.csv").write_text(f"uid,sku,ts\n{rows}\n", encoding="utf-8")
    goods = "\n".join(f"s{n},brand {n % 9},genre {n % 4}|genre {n % 5}" for n in range(90))
    (tmp_path / "catalogue.csv").write_text(f"sku,brand,genres\n{goods}\n", encoding="utf-8")
    (tmp_path / "request.json").write_text('{"users": [5, 17]}', encoding="utf-8")
    lines = shell_lines(ROOT / "README.md")
    assert {line.split()[1] for line in lines} >= {
        "datasets",
        "train",
        "evaluate",
        "recommend",
        "compare",
        "explain",
        "forget",
    }
    for line in lines:
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "top.parquet").is_file()
    assert (tmp_path / "why.html").is_file()
    assert (tmp_path / "runs" / "forgot" / "forgetting.html").is_file()


def test_the_root_links_lead_into_the_package() -> None:
    for name in ("graphs", "layers", "datasets"):
        assert (ROOT / name).is_symlink()
        assert (ROOT / name).resolve() == PACKAGE / name


def test_the_wheel_holds_the_package_and_nothing_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"graphrec"}
    assert "graphrec/py.typed" in names
    for needed in ("graphrec/reports/style.css", "graphrec/datasets/registry.json"):
        assert needed in names
