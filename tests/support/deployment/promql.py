"""What a PromQL expression asks for: metrics and the labels that it matches, groups or joins by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser


@dataclass(frozen=True)
class Selector:
    """One metric in an expression."""

    metric: str
    labels: frozenset[str]
    """Matched here, or grouped or joined by around it."""


def selectors(expression: str) -> list[Selector]:
    """Every metric of an expression. Raises ValueError for what is none."""
    return list(_walk(promql_parser.parse(expression), frozenset()))


def _walk(node: Any, labels: frozenset[str]) -> Iterator[Selector]:
    if isinstance(node, promql_parser.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql_parser.VectorSelector):
        matched = frozenset(matcher.name for matcher in node.matchers.matchers)
        yield Selector(node.name, labels | matched)
        return
    for child in _children(node):
        yield from _walk(child, labels | _named(node))


def _children(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    inner = getattr(node, "expr", None)
    return [] if inner is None else [inner]


def _named(node: Any) -> frozenset[str]:
    """Labels that an aggregation keeps, or that a join is made on."""
    modifier = getattr(node, "modifier", None)
    if modifier is None:
        return frozenset()
    if isinstance(node, promql_parser.AggregateExpr):
        return frozenset(modifier.labels)
    return frozenset(modifier.matching.labels) if modifier.matching is not None else frozenset()
