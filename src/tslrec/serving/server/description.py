"""Adds the server's limits to its OpenAPI description."""

from __future__ import annotations

from typing import Any

from tslrec.serving.server.limits import Limits


def describe_limits(description: dict[str, Any], limits: Limits) -> None:
    """Writes the bounds of requests into the schemas of their fields.

    Args:
        description: OpenAPI; it is changed.
        limits: the bounds.
    """
    schemas = description["components"]["schemas"]
    for name, longest in (("RecommendRequest", "histories"), ("SimilarRequest", "items")):
        fields = schemas[name]["properties"]
        fields["k"]["maximum"] = limits.k
        fields[longest]["maxItems"] = limits.histories
        for each in ("only", "without"):
            (ids,) = (choice for choice in fields[each]["anyOf"] if choice.get("type") == "array")
            ids["maxItems"] = limits.filter
    schemas["RecommendRequest"]["properties"]["histories"]["items"]["maxItems"] = limits.history
