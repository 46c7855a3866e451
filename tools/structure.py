"""Measures how easy the engine is to navigate: counts imports, their longest chain, and the methods of classes."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ENGINE = Path(__file__).parents[1] / "include" / "projection_rebuild"

Graph = Mapping[str, Collection[str]]
"""The imports of each module or package."""

SHOWN = 16
"""The table shows classes with at least so many methods, and all protocols and abstract classes."""


@dataclass(frozen=True)
class ClassSize:
    """The size of a class.

    :param methods: the number of methods that it defines itself, including properties
    :param abstract: how many of them an implementation has to write
    :param is_contract: whether it is a protocol or an abstract class
    """

    name: str
    module: str
    methods: int
    abstract: int
    is_contract: bool


@dataclass(frozen=True)
class Structure:
    """The measured structure.

    :param files: the imports between files
    :param packages: the imports between top-level units: packages, and files beside them
    """

    files: Graph
    packages: Graph
    classes: list[ClassSize]

    def table(self) -> str:
        """All figures as a table of text."""
        chain, top_chain = longest_chain(self.files), longest_chain(self.packages)
        figures = [
            ("files", len(self.files)),
            ("arrows between files", sum(map(len, self.files.values()))),
            ("longest chain of files", len(chain)),
            ("units side by side at the top", len(self.packages)),
            ("arrows between these", sum(map(len, self.packages.values()))),
            ("longest chain of these", len(top_chain)),
        ]
        lines = [f"{name:<32}{count:>6}" for name, count in figures]
        lines += ["", "longest chain of files: " + " -> ".join(chain), "longest chain at the top: " + " -> ".join(top_chain), ""]
        lines.append(f"{'class':<28}{'module':<40}{'methods':>8}{'abstract':>10}")
        lines += [f"{size.name:<28}{size.module:<40}{size.methods:>8}{size.abstract:>10}" for size in self.classes]
        return "\n".join(lines)


def structure_of(folder: Path) -> Structure:
    """Measures a package from the text of its files, without importing them.

    :param folder: the package's folder
    """
    trees = {_module(folder, path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
    files = {module: _imported(folder.name, module, tree, trees.keys()) for module, tree in trees.items()}
    packages: dict[str, set[str]] = {}
    for module, imported in files.items():
        top = _top(module)
        packages.setdefault(top, set()).update(_top(name) for name in imported if _top(name) != top)
    sizes = [size for module, tree in trees.items() for size in _sizes(module, tree)]
    shown = [size for size in sizes if size.methods >= SHOWN or size.is_contract]
    return Structure(files, packages, sorted(shown, key=lambda size: (-size.methods, size.name)))


def longest_chain(graph: Graph) -> list[str]:
    """The longest chain of imports; of several with the same length, the first by name.

    :raises ValueError: the imports have a cycle
    """
    chains: dict[str, list[str]] = {}
    ancestors: list[str] = []

    def chain_from(module: str) -> list[str]:
        if module in ancestors:
            raise ValueError("a circle of imports: " + " -> ".join([*ancestors[ancestors.index(module) :], module]))
        if module not in chains:
            ancestors.append(module)
            below = [chain_from(imported) for imported in sorted(graph.get(module, ()))]
            chains[module] = [module, *max(below, key=len, default=[])]
            ancestors.pop()
        return chains[module]

    return max((chain_from(module) for module in sorted(graph)), key=len, default=[])


def _module(folder: Path, path: Path) -> str:
    """The name of a file's module, relative to the measured package; empty for the package's own ``__init__``."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _imported(root: str, module: str, tree: ast.Module, known: Collection[str]) -> set[str]:
    modules: set[str] = set()
    for node in _run_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _top(name := _name(node.module or "")) == root:
            base = name.removeprefix(root).lstrip(".")
            within = (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            modules.update(name if name in known else base for name in within)
        elif isinstance(node, ast.Import):
            names = (_name(alias.name) for alias in node.names)
            modules.update(name.removeprefix(root).lstrip(".") for name in names if _top(name) == root)
    return modules - {module, ""}


def _name(imported: str) -> str:
    """An imported name without ``include.``, through which version 0.1 imported the engine."""
    return imported.removeprefix("include.")


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if (
            isinstance(node, ast.If)
            and ast.unparse(node.test).endswith("TYPE_CHECKING")
            and not isinstance(node.test, ast.UnaryOp)
        ):
            continue
        yield node
        yield from _run_nodes(node)


def _sizes(module: str, tree: ast.Module) -> Iterator[ClassSize]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [statement for statement in node.body if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)]
            abstract = [
                method for method in methods if any("abstract" in ast.unparse(decorator) for decorator in method.decorator_list)
            ]
            is_contract = any(ast.unparse(base).partition("[")[0] in ("ABC", "Protocol") for base in node.bases)
            yield ClassSize(node.name, module, len(methods), len(abstract), is_contract)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.structure", description=__doc__)
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the folder of the package to count")
    print(structure_of(parser.parse_args().engine).table())


if __name__ == "__main__":
    main()
