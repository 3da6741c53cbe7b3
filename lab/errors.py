"""The laboratory's one kind of failure that a person sees.

Knows nothing else. Must not be raised with a text of several sentences: what, where, what to do.
"""

from __future__ import annotations


class LaboratoryError(Exception):
    """Something the laboratory could not do, in one sentence a person can act on."""
