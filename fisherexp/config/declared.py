"""What a class or function says about itself, read from its source without importing it.

Importing a method means importing torch and Lightning (seconds). Its signature and its literal class
attributes are enough to list it and to check a config, and parsing the file takes a millisecond.

No library does this for us: hydra-zen and pydantic look at imported classes, and griffe, which reads source as we do,
visits the whole package before it answers for one class, which takes longer than a whole check may.
"""

import ast
import functools
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

from fisherexp.config.problem import nearest


@dataclass(frozen=True)
class Declared:
    """The static face of an importable class or function.

    parameters: name -> annotation source text, or None where there is no annotation.
    open: accepts further keywords (**kwargs), so unknown names cannot be checked.
    attributes: literal class attributes, inherited ones included.
    own: names of those that are not inherited.
    classes: names in annotations that stand for classes of this project: their values are made from nodes.
    """

    target: str
    parameters: dict[str, str | None] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    open: bool = False
    attributes: dict = field(default_factory=dict)
    classes: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()


class TargetNotFound(Exception):
    """`_target_` names nothing that can be found, or a file that is no Python; the message says which part is missing.

    nearest: what the module has under a name like it.
    """

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


@functools.cache
def declared(target: str) -> Declared:
    """Signature and literal attributes of the class or function `package.module.Name`.

    Raises TargetNotFound when the module or the name does not exist.
    """
    module, _, name = target.rpartition(".")
    tree = _parse(module, target)
    node = next((n for n in tree.body if getattr(n, "name", None) == name), None)
    if isinstance(node, ast.FunctionDef):
        return Declared(target, *_signature(node, method=False), classes=_classes(tree, module))
    if isinstance(node, ast.ClassDef):
        return _declared_class(target, module, tree, node)
    imported = _imports(tree, module).get(name)
    if imported and imported != target:
        return declared(imported)
    there = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    near = nearest(name, there)
    raise TargetNotFound(f"module '{module}' has no class or function '{name}'", near and f"{module}.{near}")


def header_of(target: str) -> str:
    """Docstring of the module in which `package.module.Name` lies, empty where it has none. Raises TargetNotFound when
    the module does not exist."""
    return ast.get_docstring(_parse(target.rpartition(".")[0], target)) or ""


def _declared_class(target: str, module: str, tree: ast.Module, node: ast.ClassDef) -> Declared:
    bases = [base for expr in node.bases if (base := _base(expr, module, tree)) is not None]
    own: dict = {}
    annotated = {}
    for item in node.body:
        match item:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                own[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                annotated[name] = (ast.unparse(annotation), value is None)
                if value is not None:
                    own[name] = value
    attributes: dict = {}
    for base in reversed(bases):
        attributes |= base.attributes
    for name, value in own.items():
        _assign(attributes, name, value)
    init = next((i for i in node.body if getattr(i, "name", None) == "__init__"), None)
    if init is not None:
        parameters, required, is_open = _signature(init, method=True)
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        parameters = {name: text for name, (text, _) in annotated.items() if not text.startswith("ClassVar")}
        required = frozenset(name for name in parameters if annotated[name][1])
        is_open = False
    elif bases:
        parameters, required, is_open = bases[0].parameters, bases[0].required, bases[0].open
    else:
        parameters, required, is_open = {}, frozenset(), bool(node.bases)
    if is_open and init is not None and bases:  # **kwargs passed on to the parent
        required |= bases[0].required - set(parameters)
        parameters = bases[0].parameters | parameters
        is_open = bases[0].open
    classes = _classes(tree, module).union(*(base.classes for base in bases))
    return Declared(target, parameters, required, is_open, attributes, classes, frozenset(own))


def _classes(tree: ast.Module, module: str) -> frozenset[str]:
    """Names that a module imports from this project, but for those of types that a value can be checked against."""
    project = __name__.partition(".")[0]
    found = _imports(tree, module).items()
    return frozenset(n for n, of in found if of.startswith(f"{project}.") and not of.startswith(f"{project}.config."))


def _signature(node: ast.FunctionDef, method: bool) -> tuple[dict[str, str | None], frozenset[str], bool]:
    args = node.args
    positional = [*args.posonlyargs, *args.args][1 if method else 0 :]
    parameters = {a.arg: ast.unparse(a.annotation) if a.annotation else None for a in [*positional, *args.kwonlyargs]}
    without_default = positional[: len(positional) - len(args.defaults)] if args.defaults else positional
    required = {a.arg for a in without_default}
    required |= {a.arg for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is None}
    return parameters, frozenset(required), args.kwarg is not None


def _assign(attributes: dict, name: str, value: ast.expr) -> None:
    """What is no literal hides what a base class says, and is not known here."""
    try:
        attributes[name] = ast.literal_eval(value)
    except ValueError:
        attributes.pop(name, None)


def _base(expr: ast.expr, module: str, tree: ast.Module) -> Declared | None:
    """The declaration of a base class of this project or of a sibling package; None for framework classes."""
    name = ast.unparse(expr)
    if any(getattr(n, "name", None) == name for n in tree.body):
        return declared(f"{module}.{name}")
    imported = _imports(tree, module).get(name)
    if imported is None or imported.partition(".")[0] in {
        "torch",
        "pytorch_lightning",
        "torchmetrics",
        "abc",
        "typing",
    }:
        return None
    try:
        return declared(imported)
    except TargetNotFound:
        return None


def _imports(tree: ast.Module, module: str) -> dict[str, str]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            package = ".".join(module.split(".")[: -node.level])
            prefix = f"{package}.{node.module}" if node.module else package
            found |= {a.asname or a.name: f"{prefix}.{a.name}" for a in node.names}
    return found


@functools.cache
def _parse(module: str, target: str) -> ast.Module:
    file = _source(module)
    if file is None:
        raise TargetNotFound(f"there is no module '{module}' to take '{target}' from")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (SyntaxError, UnicodeDecodeError) as error:
        where = f"{file}:{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else str(file)
        raise TargetNotFound(f"{where} is no Python: {getattr(error, 'msg', None) or error}") from None
    for node in tree.body:  # what is imported within a `try` or a function may be missing
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        for package in (name.partition(".")[0] for name in names):
            if not _installed(package):
                raise TargetNotFound(f"{file}:{node.lineno} imports '{package}', which is not installed")
    return tree


@functools.cache
def _installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _source(module: str) -> Path | None:
    """The file of a module, found from its top package: find_spec on a submodule would import the parents."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        return None
    if not rest and spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin)
    for location in spec.submodule_search_locations or []:
        path = Path(location, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
