"""No secret of a node's joining stands in logs, history, journal or answers: planted ones are looked for."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
import pytest

from aggregator.core.events import NodeRevoked
from aggregator.fleet_access import HistoryQuery
from fleet.identity import JOIN_PATH, RENEW_PATH, JoinRequest, RenewRequest, make_request, new_key
from tests.unit.shell.identity_world import World, until


async def test_what_a_node_joins_with_is_found_nowhere_else(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    agent = await world.agent("h1")
    await until(lambda: world.up("h1"))
    token = agent.token_file.read_text().strip()
    secret, relay_secret = token.partition(".")[0], agent.access.relay_secret
    key = agent.access.own.read_bytes().decode("ascii")
    lines = re.findall(r"^[A-Za-z0-9+/=]{40,}$", key.partition("-----END PRIVATE KEY-----")[0], re.MULTILINE)
    assert len(lines) >= 2, "the private key was not found, so nothing would be looked for"
    answers = [
        await world.ask(JOIN_PATH, JoinRequest(token, make_request(new_key()))),
        await world.ask(RENEW_PATH, RenewRequest(make_request(new_key()), agent.access.certificate())),
    ]
    assert [status for status, _said in answers] == [HTTPStatus.FORBIDDEN] * 2
    await world.fleet.submit(NodeRevoked(at=world.fleet.now(), name="h1", who="test"))
    await until(lambda: not world.up("h1"))
    history = [msgspec.json.encode(line) for line in await world.fleet.history(HistoryQuery())]
    assert any(b"NodeJoined" in line for line in history)
    kept = [path for path in (world.dir / "a1").rglob("*") if path.is_file() and path.parent.name != "identity"]
    assert kept
    logged = "".join(capfd.readouterr())
    assert "node joined" in logged
    places = {
        "log": logged.encode(),
        "history": b"\n".join(history),
        "answers": b"\n".join(said for _status, said in answers),
        **{str(path): path.read_bytes() for path in kept},
    }
    for planted in (secret, relay_secret, *lines):
        found = [place for place, data in places.items() if planted.encode() in data]
        assert not found, f"a secret stands in {found}"
