"""The label selector of a request: the core's grammar, refused as the API refuses."""

from __future__ import annotations

from aggregator.api.problems import bad_request
from aggregator.core import selector as core
from aggregator.core.selector import Selector


def read_selector(text: str) -> Selector:
    """Return the terms of a selector, all of which must hold; Problem 400 names the term that is none."""
    try:
        return core.read_selector(text)
    except ValueError as error:
        raise bad_request(f"labelSelector: {error}") from None
