"""Asks an aggregator for this node's certificate: by join token the first time, by the known key from then on.

Knows HTTP and what to ask when; agent.access keeps what is given.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import aiohttp
import msgspec
import structlog
from msgspec import structs

from agent.access import CertifiedAccess
from agent.asking import ask
from agent.hypervisor_identity import HypervisorIdentity
from fleet.config import ConfigError, read_secret
from fleet.identity import (
    AUTHORITY_PATH,
    JOIN_PATH,
    RENEW_PATH,
    IdentityError,
    Issued,
    JoinRequest,
    RenewRequest,
    Role,
    identity_of,
    make_request,
    new_key,
    read_join_token,
    secret_digest,
)
from fleet.tls import client_context, stranger_context
from fleet.trust import TRUST_PATH, Trust

NO_TRUST_TOLD = "whom to trust is not known"
NO_HYPERVISOR = "no certificate for libvirt and QEMU"
RENEW_AGAIN_S_MIN, RENEW_AGAIN_S_MAX = 1.0, 60.0
JITTER = 0.05  # of a certificate's life, so that nodes that joined together do not renew together

log = structlog.get_logger(part="identity")


class Enrolment:
    """Gets and renews the certificate. node: the configured name, which the certificate must bear."""

    def __init__(
        self, node: str, access: CertifiedAccess, token_file: Path, hypervisor: HypervisorIdentity | None = None
    ) -> None:
        self._node, self._access, self._token_file, self._hypervisor = node, access, token_file, hypervisor
        self._told: dict[str, str] = {}  # about what → why there is none
        self._trust_named = access.trust.version
        self._trust_wanted = asyncio.Event()
        self._asking = asyncio.Lock()

    async def prepare(self, url: str, *, refused: bool) -> bool:
        """See that there is a certificate that holds; False if there is none to be had now.

        url: of an aggregator. refused: the last connection was, so a new join token is looked for.
        """
        async with self._asking:
            ready = await self._see_to_it(url, refused=refused)
            if ready and self._hypervisor is not None and not self._hypervisor.is_laid:
                await self._tell(self._hypervisor.renew(url), NO_HYPERVISOR)  # without it the node is Up all the same
            return ready

    async def _see_to_it(self, url: str, *, refused: bool) -> bool:
        identity = self._access.identity
        if identity is None or refused:
            joined = await self._tell(self._join(url))
            if joined or identity is None:
                return joined
        if identity.until <= time.time():
            return await self._tell(self._renew(url))
        return True

    async def keep_renewing(self, urls: tuple[str, ...]) -> None:
        """Renew at half of each certificate's life, for ever; one that has ended is prepare's."""
        turn = 0
        while True:
            await self._access.standing.wait()
            identity = self._access.identity
            if identity is None:
                raise RuntimeError("an identity stands and is not there")
            jitter_s = random.uniform(0.0, JITTER) * identity.life_s
            await asyncio.sleep(max(0.0, identity.renew_at + jitter_s - time.time()))
            if self._access.identity is not identity:
                continue
            async with self._asking:
                renewed = await self._tell(self._renew(urls[turn % len(urls)]))
            if not renewed:
                turn += 1
                await asyncio.sleep(min(max(RENEW_AGAIN_S_MIN, identity.life_s / 20), RENEW_AGAIN_S_MAX))

    async def keep_hypervisor(self, urls: tuple[str, ...]) -> None:
        """Renew the certificates of libvirt and QEMU at half of their life, for ever."""
        hypervisor, turn = self._hypervisor, 0
        if hypervisor is None:
            return
        while True:
            await asyncio.sleep(hypervisor.pause_s())
            if not hypervisor.is_due or self._access.identity is None:
                continue
            async with self._asking:
                renewed = await self._tell(hypervisor.renew(urls[turn % len(urls)]), NO_HYPERVISOR)
            if not renewed:
                turn += 1

    def trust_told(self, version: str) -> None:
        """Take in what names the aggregator's present trust."""
        self._trust_named = version
        if version != self._access.trust.version:
            self._trust_wanted.set()

    async def keep_trust(self, urls: tuple[str, ...], taken: Callable[[], None]) -> None:
        """Ask for the trust as soon as another one was named, and renew what it makes necessary, for ever."""
        turn = 0
        while True:
            await self._trust_wanted.wait()
            self._trust_wanted.clear()
            async with self._asking:
                held = await self._tell(self._take_trust(urls[turn % len(urls)]), NO_TRUST_TOLD)
            if held:
                taken()
            else:
                turn += 1
                await asyncio.sleep(random.uniform(RENEW_AGAIN_S_MIN, 2 * RENEW_AGAIN_S_MIN))
                self._trust_wanted.set()

    async def _take_trust(self, url: str) -> None:
        """Trust first, then certificates by who signs now, and only then say that it is held."""
        access, shown = self._access, self._access.outgoing
        if isinstance(shown, bool):
            raise IdentityError("this node has not joined, so nobody tells it whom to trust")
        signer = access.trust.signer or _authority_digest(access.authority)  # that of joining, until another was told
        raw = await ask(url, TRUST_PATH, b"", shown, Role.AGGREGATOR.server_name)
        try:
            trust = msgspec.json.decode(raw, type=Trust)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise IdentityError("the aggregator's answer does not say whom to trust") from None
        unheld = structs.replace(trust, version="", signer=signer)  # should the rest fail, it is done again
        await asyncio.to_thread(access.take_trust, unheld)
        if trust.signer != signer:
            await self._renew(url)
        if self._hypervisor is not None and self._hypervisor.is_laid:
            if trust.signer != signer:
                await self._hypervisor.renew(url)
            else:
                await self._hypervisor.take_trust(trust)
        await asyncio.to_thread(access.take_trust, trust)
        log.info("trust taken", denied=len(trust.denied), authorities=trust.authorities.count("BEGIN"))

    async def _tell(self, asking: Coroutine[None, None, None], about: str = "no certificate") -> bool:
        """Return whether it went well; why not is told once, not at each try."""
        try:
            await asking
        except (IdentityError, ConfigError) as error:
            said = str(error)
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            said = f"no aggregator gives a certificate: {str(error) or 'no answer'}"
        else:
            self._told.pop(about, None)
            return True
        if said != self._told.get(about):
            self._told[about] = said
            log.warning(about, reason=said)
        return False

    async def _join(self, url: str) -> None:
        token = read_join_token(read_secret(self._token_file, "join token"))
        spent = secret_digest(token.text())
        if spent == self._access.spent_token:
            raise IdentityError(
                f"{self._token_file}: this join token was used, and its certificate is refused now; "
                f"virtward node token {self._node} makes another"
            )
        authority = (await ask(url, AUTHORITY_PATH, None, stranger_context(), None)).decode("ascii", "replace")
        if _authority_digest(authority) != token.authority_sha256:
            raise IdentityError(f"{url}: who answers there is not the aggregator that the join token was made by")
        key = new_key()
        body = msgspec.json.encode(JoinRequest(token.text(), make_request(key)))
        context = client_context(authority, None)
        issued = _issued(await ask(url, JOIN_PATH, body, context, Role.AGGREGATOR.server_name))
        self._check_name(issued)
        await asyncio.to_thread(self._access.take_joined, key, issued, authority, spent)
        log.info("joined", node=self._node)

    async def _renew(self, url: str) -> None:
        """Ask with a new key while the certificate holds; afterwards only the known key is heard."""
        access, identity, shown = self._access, self._access.identity, self._access.outgoing
        if identity is not None and identity.until > time.time() and isinstance(shown, ssl.SSLContext):
            key, context, ended = new_key(), shown, ""
        else:
            key, context, ended = access.key(), access.bare(), access.certificate()
        body = msgspec.json.encode(RenewRequest(make_request(key), ended))
        issued = _issued(await ask(url, RENEW_PATH, body, context, Role.AGGREGATOR.server_name))
        self._check_name(issued)
        await asyncio.to_thread(access.take_renewed, key, issued)
        log.info("certificate renewed", node=self._node)

    def _check_name(self, issued: Issued) -> None:
        named = identity_of(ssl.PEM_cert_to_DER_cert(issued.certificate))
        if (named.role, named.name) != (Role.AGENT, self._node):
            raise IdentityError(f"the token is for node {named.name}, and this one is configured as {self._node}")


def _issued(raw: bytes) -> Issued:
    try:
        return msgspec.json.decode(raw, type=Issued)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise IdentityError("the aggregator's answer holds no certificate") from None


def _authority_digest(text: str) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()
    except ValueError:
        return ""
