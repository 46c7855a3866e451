"""Counts what makes the engine hard or easy to find one's way in: chains and arrows of imports, and methods of classes."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ENGINE = Path(__file__).parents[1] / "include" / "projection_rebuild"

Graph = Mapping[str, Collection[str]]
"""By module or package, what it imports."""

SHOWN = 16
"""Methods from which on a class is shown; protocols and abstract classes are shown with fewer."""


@dataclass(frozen=True)
class ClassSize:
    """How much a class asks of its readers.

    :param methods: that it defines itself, properties included
    :param abstract: of these, the ones that whoever implements it has to write
    """

    name: str
    module: str
    methods: int
    abstract: int
    is_contract: bool


@dataclass(frozen=True)
class Structure:
    """What was counted.

    :param files: what each file imports of the others
    :param packages: what each unit at the top imports of the others: a package, or a file that stands beside the packages
    """

    files: Graph
    packages: Graph
    classes: list[ClassSize]

    def table(self) -> str:
        """All figures, for a person."""
        chain, rooms = longest_chain(self.files), longest_chain(self.packages)
        figures = [
            ("files", len(self.files)),
            ("arrows between files", sum(map(len, self.files.values()))),
            ("longest chain of files", len(chain)),
            ("units side by side at the top", len(self.packages)),
            ("arrows between these", sum(map(len, self.packages.values()))),
            ("longest chain of these", len(rooms)),
        ]
        lines = [f"{name:<32}{count:>6}" for name, count in figures]
        lines += ["", "longest chain of files: " + " -> ".join(chain), "longest chain at the top: " + " -> ".join(rooms), ""]
        lines.append(f"{'class':<28}{'module':<40}{'methods':>8}{'abstract':>10}")
        lines += [f"{each.name:<28}{each.module:<40}{each.methods:>8}{each.abstract:>10}" for each in self.classes]
        return "\n".join(lines)


def structure_of(folder: Path) -> Structure:
    """Reads a package's files; runs none of them.

    :raises ValueError: files import each other in a circle
    """
    trees = {_module(folder, path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
    files = {module: _imported(folder.name, module, tree, trees.keys()) for module, tree in trees.items()}
    packages: dict[str, set[str]] = {}
    for module, imported in files.items():
        top = _top(module)
        packages.setdefault(top, set()).update(_top(each) for each in imported if _top(each) != top)
    sizes = [size for module, tree in trees.items() for size in _sizes(module, tree)]
    shown = [each for each in sizes if each.methods >= SHOWN or each.is_contract]
    return Structure(files, packages, sorted(shown, key=lambda size: (-size.methods, size.name)))


def longest_chain(graph: Graph) -> list[str]:
    """The longest way along the arrows; of several that are as long, the first by name.

    :raises ValueError: there is a circle
    """
    chains: dict[str, list[str]] = {}
    open_: list[str] = []

    def chain_from(module: str) -> list[str]:
        if module in open_:
            raise ValueError("a circle of imports: " + " -> ".join([*open_[open_.index(module) :], module]))
        if module not in chains:
            open_.append(module)
            below = [chain_from(each) for each in sorted(graph.get(module, ()))]
            chains[module] = [module, *max(below, key=len, default=[])]
            open_.pop()
        return chains[module]

    return max((chain_from(module) for module in sorted(graph)), key=len, default=[])


def _module(folder: Path, path: Path) -> str:
    """A file's name without that of the package around all; empty for the outermost ``__init__``."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _imported(root: str, module: str, tree: ast.Module, known: Collection[str]) -> set[str]:
    found: set[str] = set()
    for node in _run_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _top(name := _name(node.module or "")) == root:
            base = name.removeprefix(root).lstrip(".")
            within = (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            found.update(each if each in known else base for each in within)
        elif isinstance(node, ast.Import):
            names = (_name(alias.name) for alias in node.names)
            found.update(name.removeprefix(root).lstrip(".") for name in names if _top(name) == root)
    return found - {module, ""}


def _name(imported: str) -> str:
    """An imported name as today's code has it: version 0.1 imported the engine through the folder ``include``."""
    return imported.removeprefix("include.")


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker looks at."""
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
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            abstract = [each for each in methods if any("abstract" in ast.unparse(mark) for mark in each.decorator_list)]
            is_contract = any(ast.unparse(base).partition("[")[0] in ("ABC", "Protocol") for base in node.bases)
            yield ClassSize(node.name, module, len(methods), len(abstract), is_contract)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.structure", description=__doc__)
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the folder of the package to count")
    print(structure_of(parser.parse_args().engine).table())


if __name__ == "__main__":
    main()
