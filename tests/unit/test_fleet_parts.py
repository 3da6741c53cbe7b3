"""Lease arithmetic, configuration files, the protocol's document and the life cycle's edges."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from msgspec import Struct

from fleet import protocol_document
from fleet.clock import SystemClock
from fleet.config import ConfigError, load_config, read_secret
from fleet.lease import AnswerLease, LeaseSettings, NodeLease
from fleet.service import EXIT_FAILURE, EXIT_OK, Service, ServiceError, configure_log, run_service

# --- lease


def test_the_node_counts_from_before_the_answered_beat_was_sent() -> None:
    lease = NodeLease(6.0)
    lease.beat_sent(1, 100.0)
    lease.beat_sent(2, 101.0)
    lease.beat_answered(1)
    assert lease.is_fresh(105.9)
    assert not lease.is_fresh(106.0)
    lease.beat_answered(2)
    assert lease.fresh_until_s() == 107.0


def test_an_answer_to_an_unknown_or_older_beat_never_lengthens_a_lease() -> None:
    lease = NodeLease(6.0)
    lease.beat_answered(9)
    assert not lease.is_fresh(0.0)
    lease.beat_sent(1, 100.0)
    lease.beat_sent(2, 101.0)
    lease.beat_answered(2)
    lease.beat_answered(1)
    assert lease.fresh_until_s() == 107.0


def test_a_jump_of_boottime_ends_the_lease_and_reading_noise_does_not() -> None:
    lease = NodeLease(6.0)
    lease.boottime_read(5.0)
    lease.beat_sent(1, 100.0)
    lease.beat_answered(1)
    lease.boottime_read(5.001)
    assert lease.is_fresh(101.0)
    lease.boottime_read(65.0)
    assert not lease.is_fresh(101.0)


def test_the_aggregator_never_takes_over_before_the_node_is_dead() -> None:
    settings = LeaseSettings(lease_s=6.0, watchdog_s=3.0)
    assert settings.dead_after_s == 13.0
    assert settings.take_over_after_s == pytest.approx(16.26)
    answer = AnswerLease()
    assert not answer.is_self_fenced(1e9, settings)
    answer.answer_sent(100.0)
    assert answer.may_be_fresh(106.0, settings)
    assert not answer.is_self_fenced(116.0, settings)
    assert answer.is_self_fenced(116.3, settings)


def test_the_systems_clocks_go_forward() -> None:
    clock = SystemClock()
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert clock.wall_s() > 1_600_000_000
    assert clock.boottime_offset_s() >= -0.1


# --- configuration


class Inner(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    lost_after: int = 8


class Outer(Struct, frozen=True, forbid_unknown_fields=True):
    node: str
    config: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node = 3", "node: expected str, got int"),
        ("", "node: is missing"),
        ("node = 'a'\nnodes = 'b'", "nodes: there is no such key"),
        ("node = 'a'\n[config]\nlostAfter = 'x'", "[config].lostAfter: expected int, got str"),
        ("node = 'a'\n[config]\nlostAfer = 1", "[config].lostAfer: there is no such key"),
        ("node = 'a'\nconfig = 3", "config: expected object, got int"),
        ("node = ", "is no TOML"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, Outer)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_is_read_into_its_struct(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("node = 'a'\n[config]\nlostAfter = 3")
    assert load_config(path, Outer) == Outer("a", Inner(3))


def test_a_missing_or_binary_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.toml", Outer)
    (tmp_path / "binary").write_bytes(b"node = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 8"):
        load_config(tmp_path / "binary", Outer)


def test_a_secret_must_be_one_line_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod"):
        read_secret(path, "token")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert read_secret(path, "token") == "secret"
    path.write_text("two\nlines\n")
    with pytest.raises(ConfigError, match="one line"):
        read_secret(path, "token")


# --- the document


def test_the_protocols_document_is_up_to_date() -> None:
    assert protocol_document.main(["--check"]) == 0


def test_the_document_names_every_order() -> None:
    text = protocol_document.generate()
    assert "`k` = `migrate`" in text
    assert "handover_secret" in text


# --- life cycle


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A log configured here writes to a stream that pytest closes."""
    yield
    structlog.reset_defaults()


def test_ready_and_stopping_are_told_to_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))

        async def body(service: Service) -> None:
            service.ready("fine")
            service.stop("test")
            await service.stopping.wait()

        assert run_service("test", body) == EXIT_OK
        assert b"READY=1\nSTATUS=fine" in listener.recv(4096)
        assert listener.recv(4096) == b"STOPPING=1\nSTATUS=test"


def test_an_unexpected_error_is_logged_structured_and_never_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    configure_log()

    async def body(_service: Service) -> None:
        await asyncio.sleep(0)
        secret = "a secret in a local variable"  # noqa: F841 - it must not be logged
        raise ZeroDivisionError("of all things")

    assert run_service("test", body) == EXIT_FAILURE
    err = capfd.readouterr().err
    (line,) = err.splitlines()
    assert json.loads(line)["error"] == "ZeroDivisionError: of all things"
    assert "a secret" not in err


def test_an_error_a_person_can_mend_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure_log()

    async def body(_service: Service) -> None:
        raise ServiceError("listen: 0.0.0.0:8422 cannot be used: Address already in use")

    assert run_service("test", body) == EXIT_FAILURE
    (line,) = capfd.readouterr().err.splitlines()
    assert "exception" not in json.loads(line)
