"""Writes down the state in which the core was about to break an invariant, for whoever has to find out why.

The first few are kept and no more are written: what comes after the first is mostly its echo. Knows nothing of
what is in a state.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

FILES_MAX = 5


class BreachFiles:
    """Files `breach-DIGEST.state` in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, state: bytes) -> tuple[str, str]:
        """Return (the state's digest, where it was written or why it was not). Never raises."""
        digest = hashlib.blake2b(state, digest_size=8).hexdigest()
        path = self._directory / f"breach-{digest}.state"
        try:
            if len(list(self._directory.glob("breach-*.state"))) >= FILES_MAX:
                return digest, f"not written: {self._directory} holds {FILES_MAX} of them already; move them away"
            path.touch(mode=0o600)
            path.write_bytes(state)
        except OSError as error:
            return digest, f"not written: {path}: {error.strerror or error}"
        return digest, str(path)
