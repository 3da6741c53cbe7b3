"""What the verbs of one command line share: the client, made when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.settings import Settings, find_settings

if TYPE_CHECKING:
    from cli.client import Client


class Session:
    """The options that stand before the verb, and what follows from them."""

    def __init__(self, api: str | None = None, token_file: str | None = None, ca_file: str | None = None) -> None:
        self._api = api
        self._token_file, self._ca_file = token_file, ca_file
        self._client: Client | None = None

    @property
    def settings(self) -> Settings:
        """Where the aggregator is; Failure if the settings are broken."""
        return find_settings(self._api, self._token_file, ca_file=self._ca_file)

    @property
    def client(self) -> Client:
        """The HTTP client; Failure if settings or token cannot be used."""
        if self._client is None:
            from cli.client import Client

            self._client = Client(self.settings)
        return self._client
