"""A model's architecture as one file of Python that needs torch and safetensors, and nothing of this project."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from types import ModuleType
from typing import Any

from trainers.models import models

OURS = ("trainers", "attacks", "sweep")
_HEAD = '''"""{name}, as adversarial-sweep trained it (Apache-2.0): `load()` gives the model of this folder."""

from __future__ import annotations

'''
_LOAD = '''

def load(folder: str | Path = ".") -> nn.Module:
    """The model of a folder, in eval mode: images (N, C, H, W) in [0, 1] -> logits (N, K). It normalises by itself."""
    architecture = json.loads((Path(folder) / "config.json").read_text())["architecture"]
    model = {build}(**{{key: value for key, value in architecture.items() if key != "name"}})
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.eval()
'''
_LOADS = ("import json", "from pathlib import Path", "from safetensors.torch import load_file", "from torch import nn")


def written_out(name: str) -> str:
    """The file: the registered model and every definition that it leads to, word for word, and `load`."""
    build = models.get(name)
    found = _Definitions()
    found.take(import_module(build.__module__), build.__name__)
    imports = "\n".join(sorted({*found.imports, *_LOADS}, key=lambda said: (said.startswith("from"), said)))
    definitions = "\n\n\n".join(found.pieces.values())
    return f"{_HEAD.format(name=name)}{imports}\n\n\n{definitions}\n{_LOAD.format(build=build.__name__)}"


class _Definitions:
    """Definitions by name, each after those that it names, and the imports of others' that they need."""

    def __init__(self) -> None:
        self.pieces: dict[str, str] = {}
        self.imports: set[str] = set()
        self._seen: dict[str, str] = {}

    def take(self, module: ModuleType, name: str) -> None:
        text = inspect.getsource(module)
        node = next((node for node in ast.parse(text).body if name in _binds(node)), None)
        if node is None:  # a builtin, a parameter, a local
            return
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in OURS:
            self.take(import_module(str(node.module)), name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, name)
        elif self._seen.setdefault(name, module.__name__) != module.__name__:
            raise RuntimeError(
                f"{name} is defined in {self._seen[name]} and in {module.__name__}: one file cannot hold both"
            )
        elif name not in self.pieces:
            self.pieces[name] = ""  # it may name itself
            for used in _names(node):
                self.take(module, used)
            del self.pieces[name]
            self.pieces[name] = str(ast.get_source_segment(text, node))

    def _import(self, node: ast.Import | ast.ImportFrom, name: str) -> None:
        alias = next(alias for alias in node.names if (alias.asname or alias.name) == name)
        node = type(node)(**{**vars(node), "names": [alias]})
        self.imports.add(ast.unparse(node))


def _binds(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module gives a meaning."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    targets: list[Any] = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _names(node: ast.stmt) -> list[str]:
    """The names in a definition, but for its decorators, which register it here."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        node.decorator_list = []
    return list(dict.fromkeys(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)))
