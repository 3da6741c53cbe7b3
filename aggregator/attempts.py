"""Who has failed too often to show a secret, by address: locked out for a while. Bounded; knows no clock."""

from __future__ import annotations

from msgspec import Struct

FAILURES_MAX = 10
WINDOW_S = 60.0
ADDRESSES_MAX = 10_000


class _Failures(Struct):
    count: int
    until: float


class Attempts:
    """Counts failures. Times are any monotonic seconds."""

    def __init__(self) -> None:
        self._by_address: dict[str, _Failures] = {}

    def locked_s(self, address: str, now: float) -> float:
        """Return for how many more seconds an address is locked out; 0.0 if it may try."""
        failures = self._by_address.get(address)
        if failures is None or failures.count < FAILURES_MAX:
            return 0.0
        return max(0.0, failures.until - now)

    def failed(self, address: str, now: float) -> None:
        """Note a failure; the window runs from the last one."""
        failures = self._by_address.pop(address, None)
        count = failures.count + 1 if failures is not None and failures.until > now else 1
        while len(self._by_address) >= ADDRESSES_MAX:
            del self._by_address[next(iter(self._by_address))]
        self._by_address[address] = _Failures(count, now + WINDOW_S)

    def succeeded(self, address: str) -> None:
        """Forget an address's failures."""
        self._by_address.pop(address, None)
