"""The house's order: a room imports only from floors below its own (docs: CONTRIBUTING.md, the map)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "greenasr"
FLOOR = {"roles": 1, "ops": 1, "data": 1, "score": 1, "models": 2, "compress": 2, "decode": 2}
FLOOR |= {"tasks": 3, "runtime": 3, "pipeline": 4, "shrinking": 5, "report": 5, "cli": 6}
MAY_USE_TORCH = {"runtime/pack.py", "runtime/export.py"}


def imported(file: Path) -> Iterator[str]:
    """Full names of all modules that ``file`` imports, anywhere in it, "greenasr.ops.grid" style."""
    package = ("greenasr", *file.relative_to(PACKAGE).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            # `from greenasr import ops` names a room in its list, not in its module.
            yield from (".".join((*base, alias.name)) for alias in node.names)


def imports_between_rooms() -> Iterator[tuple[str, str, str]]:
    """(file, its room, the room it imports from) for every import that leaves a room."""
    for file in sorted(PACKAGE.rglob("*.py")):
        here = file.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imported(file):
            parts = name.split(".")
            if parts[0] == "greenasr" and len(parts) > 1 and parts[1] != here and parts[1] != "__version__":
                yield str(file.relative_to(PACKAGE)), here, parts[1]


def test_imports_point_down() -> None:
    for file, here, there in imports_between_rooms():
        assert here != "__init__", f"greenasr/__init__.py imports {there}: it holds the version alone"
        assert FLOOR[there] < FLOOR[here], f"{file} ({here}) imports {there}"


def test_every_room_has_a_floor() -> None:
    rooms = {
        path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} <= set(FLOOR), "give the new room a floor here and in CONTRIBUTING.md"


def test_compress_stands_on_ops_and_roles_alone() -> None:
    for file, here, there in imports_between_rooms():
        if here == "compress":
            assert there in ("ops", "roles"), f"{file} imports {there}: meet data and words through a Task"


def test_files_that_run_without_torch_do_not_name_it() -> None:
    files = [PACKAGE / "ops" / "bits.py", *sorted((PACKAGE / "runtime").rglob("*.py"))]
    for file in files:
        if str(file.relative_to(PACKAGE)) not in MAY_USE_TORCH:
            assert not [name for name in imported(file) if name.split(".")[0] == "torch"], (
                f"{file} imports torch"
            )


def test_reading_a_packed_file_loads_no_torch() -> None:
    modules = ["greenasr.ops.bits"]
    for file in sorted((PACKAGE / "runtime").rglob("*.py")):
        inside = file.relative_to(PACKAGE)
        if file.name != "__init__.py" and inside.as_posix() not in MAY_USE_TORCH:
            modules.append("greenasr." + ".".join(inside.with_suffix("").parts))
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_packages_say_what_they_hold_and_re_export_nothing() -> None:
    for file in sorted(PACKAGE.rglob("__init__.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        assert isinstance(body[0], ast.Expr), f"{file} opens with a docstring"
        assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], f"{file} imports"
