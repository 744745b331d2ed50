"""Filters that act on some requests only: a tree of matches decides, before the filter sees the request."""

from __future__ import annotations

from holdfast_gateway.render.values import Document, typed

MATCHING = "extensions.common.matching.v3.ExtensionWithMatcher"
SKIP = {"name": "skip", "typed_config": typed("extensions.filters.common.matcher.action.v3.SkipFilter")}


def with_matcher(name: str, config: Document, tree: Document) -> Document:
    """A filter's configuration that a tree of matches steers."""
    return typed(MATCHING, extension_config={"name": name, "typed_config": config}, xds_matcher=tree)


def skip_if(header: str, value: Document, name: str, config: Document) -> Document:
    """The configuration of a filter that requests pass untouched whose header matches."""
    matchers = [{"predicate": single(header, value), "on_match": {"action": SKIP}}]
    return with_matcher(name, config, {"matcher_list": {"matchers": matchers}})


def single(header: str, value: Document) -> Document:
    """Looks at one header of a request."""
    return {"single_predicate": {"input": request_header(header), "value_match": value}}


def request_header(name: str) -> Document:
    """What a tree of matches looks at."""
    return {"name": name, "typed_config": typed("type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name)}
