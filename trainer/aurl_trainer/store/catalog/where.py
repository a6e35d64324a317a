"""The language of `--where`: comparisons of fields, joined by and, or, not. Nothing is ever executed.

    val_nll < 0.5 and preset = 'high_quality'
    model.dim >= 256 and 'paper' in tags and at > '2026-11-01'
    metrics['groove/16th'] > 0.8 or not run in ['old', 'older']

Python's own parser reads it (with = for ==), and only the forms named here are accepted. A field that a
checkpoint does not have makes a comparison false; `field is None` asks for that. Pure.
"""

from __future__ import annotations

import ast
import difflib
import io
import operator
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aurl_trainer.errors import QueryError
from aurl_trainer.store.catalog.entries import CONFIG, PLAIN, Entry

MAX_LENGTH = 4000
MAX_DEPTH = 100

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_Place = tuple[int, str]


@dataclass(frozen=True)
class Where:
    """A condition that was read. `text` is as it was written."""

    text: str
    _tree: ast.expr
    _columns: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Where:
        """Reads a condition. Raises QueryError that points at what is not understood."""
        python, columns = _with_double_equals(text)
        try:
            tree = ast.parse(python, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            at = columns[min(max((getattr(error, "offset", 1) or 1) - 1, 0), len(columns) - 1)]
            raise _problem(text, at, "not understood here; " + _FORMS) from None
        if _is_deep(tree):
            raise _problem(text, columns[0], f"more than {MAX_DEPTH} things inside of each other")
        where = cls(text, tree, columns)
        where._check(tree)
        return where

    def matches(self, entry: Entry) -> bool:
        """Whether it holds. Raises QueryError for a comparison of things that cannot be compared."""
        return bool(self._value(self._tree, entry))

    def select(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those for which it holds. Raises QueryError, also for a word that means nothing for any of them."""
        metrics = {name for e in entries for name in e.metrics}
        for node in ast.walk(self._tree):
            field = _field(node) if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) else None
            if field is None or not entries or _is_inside(node, self._tree):
                continue
            if field[0] in PLAIN and len(field) == 1:
                continue
            if field[0] in CONFIG:
                if not any(e.has(field) for e in entries):
                    raise self._problem(
                        node,
                        f"no checkpoint has {'.'.join(field)!r}; `checkpoints show RUN` tells what there is",
                    )
                continue
            name = ".".join(field[1:] if field[0] == "metrics" and len(field) > 1 else field)
            if name not in metrics:
                near = difflib.get_close_matches(name, [*PLAIN, *metrics, *CONFIG], n=1)
                hint = f"did you mean {near[0]}?" if near else f"metrics: {', '.join(sorted(metrics))}"
                raise self._problem(node, f"no checkpoint has {name!r}; {hint}")
        return [e for e in entries if self.matches(e)]

    def fields(self) -> list[tuple[str, ...]]:
        """The fields that it asks for, in order, each once."""
        found = [_field(n) for n in ast.walk(self._tree) if not _is_inside(n, self._tree)]
        return list(dict.fromkeys(f for f in found if f is not None))

    # -- reading ----------------------------------------------------------------------------------------

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._check(operand)
            case ast.Compare(left=left, ops=ops, comparators=others):
                for part in (left, *others):
                    self._check_operand(part)
                for op, right in zip(ops, others, strict=True):
                    if isinstance(op, ast.Is | ast.IsNot):
                        if not (isinstance(right, ast.Constant) and right.value is None):
                            raise self._problem(right, "is and is not go with None; compare with =")
                    elif type(op) not in _COMPARE:
                        raise self._problem(right, _FORMS)
            case _:
                raise self._problem(node, "a condition is a comparison, as in step > 100; " + _FORMS)

    def _check_operand(self, node: ast.expr) -> None:
        match node:
            case ast.Constant(value=str() | int() | float() | bool() | None):
                return
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
                return
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                for part in parts:
                    self._check_operand(part)
            case _ if _field(node) is not None:
                return
            case _:
                raise self._problem(node, "expected a field, a number, a text in quotes, or a list of them")

    # -- deciding ---------------------------------------------------------------------------------------

    def _value(self, node: ast.expr, entry: Entry) -> bool:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._value(v, entry) for v in values)
            case ast.BoolOp(values=values):
                return any(self._value(v, entry) for v in values)
            case ast.UnaryOp(operand=operand):
                return not self._value(operand, entry)
            case ast.Compare(left=left, ops=ops, comparators=others):
                nodes = [left, *others]
                return all(
                    self._compare(op, a, b, entry) for op, a, b in zip(ops, nodes, nodes[1:], strict=False)
                )
        raise AssertionError(ast.dump(node))  # _check has let nothing else through

    def _compare(self, op: ast.cmpop, left: ast.expr, right: ast.expr, entry: Entry) -> bool:
        a, b = self._operand(left, entry), self._operand(right, entry)
        if isinstance(op, ast.Is | ast.IsNot):
            return (a is None) == isinstance(op, ast.Is)
        if a is None or b is None:
            return False
        if _field(left) == ("at",):
            b = self._seconds(b, right)
        if _field(right) == ("at",):
            a = self._seconds(a, left)
        try:
            return bool(_COMPARE[type(op)](a, b))
        except TypeError:
            raise self._problem(right, f"{_kind(a)} cannot be compared with {_kind(b)} so") from None

    def _operand(self, node: ast.expr, entry: Entry) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._operand(p, entry) for p in parts]
        field = _field(node)
        assert field is not None
        return entry.value(field)

    def _seconds(self, value: Any, node: ast.expr) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            raise self._problem(node, "expected a date, as in '2026-11-01' or '2026-11-01 18:30'") from None

    def _problem(self, node: ast.AST, text: str) -> QueryError:
        before = self._python_bytes()[: getattr(node, "col_offset", 0)].decode(errors="ignore")
        return _problem(self.text, self._columns[min(len(before), len(self._columns) - 1)], text)

    def _python_bytes(self) -> bytes:
        return _with_double_equals(self.text)[0].encode()


_FORMS = "use < <= > >= = != in, is None, and, or, not, ( )"


def _field(node: ast.AST) -> tuple[str, ...] | None:
    """The dotted name that a node is; `metrics['a b']` names a metric with other letters. None: no name."""
    match node:
        case ast.Name(id=name):
            return (name,)
        case ast.Attribute(value=inner, attr=name):
            before = _field(inner)
            return None if before is None else (*before, name)
        case ast.Subscript(value=ast.Name(id="metrics"), slice=ast.Constant(value=str() as name)):
            return ("metrics", name)
    return None


def _is_deep(tree: ast.AST) -> bool:
    """Whether what follows would take more calls inside of each other than Python lets it."""
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [inner for node in level for inner in ast.iter_child_nodes(node)]
    return bool(level)


def _is_inside(node: ast.AST, tree: ast.AST) -> bool:
    """Whether `node` is only the beginning of a longer name."""
    return any(
        getattr(other, "value", None) is node
        for other in ast.walk(tree)
        if isinstance(other, ast.Attribute | ast.Subscript)
    )


def _with_double_equals(text: str) -> tuple[str, tuple[int, ...]]:
    """`text` with = as ==, and for each letter of the result (and its end) the column in `text`."""
    if not text.strip() or len(text) > MAX_LENGTH or "\n" in text or "\0" in text:
        raise QueryError(f"a condition is one line of at most {MAX_LENGTH} letters, as in step > 100")
    single: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.OP and token.string == "=":
                single.add(token.start[1])
    except (tokenize.TokenError, SyntaxError):
        pass  # the parser says where
    letters, columns = "", []
    for column, letter in enumerate(text):
        for _ in range(2 if column in single else 1):
            letters += letter
            columns.append(column)
    start = len(letters) - len(letters.lstrip())  # Python takes leading blanks for an indented block
    return letters[start:], (*columns[start:], len(text))


def _problem(text: str, column: int, says: str) -> QueryError:
    return QueryError(f"{says}\n  {text}\n  {' ' * column}^")


def _kind(value: Any) -> str:
    names = {str: "text", bool: "yes or no", int: "a number", float: "a number", dict: "a mapping"}
    return names.get(type(value), "a list")


@dataclass(frozen=True)
class Order:
    """A field to sort by. `down`: the greatest first."""

    field: tuple[str, ...]
    down: bool


def sort_field(text: str) -> Order:
    """The order in `val_nll` or `-at`. Raises QueryError if it is no field."""
    try:
        node = ast.parse(text.removeprefix("-").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    field = None if node is None or _is_deep(node) else _field(node)
    if field is None:
        raise QueryError(f"--sort {text}: expected a field, as in val_nll, -at or model.dim")
    return Order(field, text.startswith("-"))


def sorted_by(entries: Sequence[Entry], order: Order, known: Sequence[Entry]) -> list[Entry]:
    """`entries` in this order, those without the field last. Raises QueryError if none of `known` has it."""
    if known and all(e.value(order.field) is None for e in known):
        there = ", ".join([*PLAIN, *sorted({name for e in known for name in e.metrics})])
        raise QueryError(f"--sort: no checkpoint has {'.'.join(order.field)!r}; there are: {there}")
    having = [e for e in entries if e.value(order.field) is not None]
    lacking = [e for e in entries if e.value(order.field) is None]
    having.sort(key=lambda e: _sortable(e.value(order.field)), reverse=order.down)
    return [*having, *lacking]


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, int | float) else (1, str(value))
