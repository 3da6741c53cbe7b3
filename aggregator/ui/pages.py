"""The page at `/`: sign-in by token, the fleet as it is, and a stream that keeps it so.

Knows HTTP and the sections of render.py. The page only reads. Everything it loads comes from here:
no script, style or font of anybody else.
"""

from __future__ import annotations

import asyncio
from html import escape
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from aggregator.api.auth import Door, refuse_foreign_origin
from aggregator.api.calls import Call
from aggregator.api.lists import stream
from aggregator.api.problems import not_found
from aggregator.api.router import Route
from aggregator.core.fold_moves import ENDED
from aggregator.ui.render import sections

REFRESH_S_MAX = 15.0
REFRESH_MOVING_S = 1.0  # progress of migrations moves no journal position
COALESCE_S = 0.2
FORM_BYTES_MAX = 4096
_STATIC = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with less a browser does not say which page a form was sent from
}
_TITLES = {
    "summary": "",
    "incidents": "Incidents",
    "nodes": "Nodes",
    "vms": "Virtual machines",
    "moves": "Migrations and drains",
    "events": "What happened last",
}


class Pages:
    """The handlers of the page."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._files = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}

    def routes(self) -> list[Route]:
        """Return the page's routes. `/` is open: without a session it is only the form for the token."""
        return [
            Route("GET", "/", self.page, "the page", is_open=True),
            Route("POST", "/login", self.login, "sign the page in by token", is_open=True),
            Route("POST", "/logout", self.logout, "end the page's session", is_open=True),
            Route("GET", "/static/{name}", self.static, "the page's own files", is_open=True),
            Route("GET", "/page/stream", self.follow, "sections of the page as they change"),
        ]

    async def page(self, call: Call) -> web.StreamResponse:
        """Answer the fleet, or the form for the token."""
        if self._door.session_rights(call.request) is None:
            return _html(_login_form(""))
        return _html(_document(self._sections(call)))

    async def login(self, call: Call) -> web.StreamResponse:
        """Open a session for the right token and go to the page."""
        refuse_foreign_origin(call.request)
        form = parse_qs(call.raw[:FORM_BYTES_MAX].decode(errors="replace"))
        token = form.get("token", [""])[0]
        rights = self._door.try_token(call.request, token.strip())
        if rights is None:
            return _html(_login_form("That token is wrong, revoked or too old."), HTTPStatus.FORBIDDEN)
        if rights.scope:
            return _html(
                _login_form("That token is limited to some VMs, and this page shows all."), HTTPStatus.FORBIDDEN
            )
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        self._door.open_session(call.request, response, rights)
        return response

    async def logout(self, call: Call) -> web.StreamResponse:
        """End the session and go to the form."""
        refuse_foreign_origin(call.request)
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        self._door.close_session(call.request, response)
        return response

    async def static(self, call: Call) -> web.StreamResponse:
        """Answer one of the page's own files."""
        body = self._files.get(call.name)
        if body is None:
            raise not_found("file", call.name)
        kind = _TYPES[Path(call.name).suffix]
        return web.Response(
            body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache", **_HEADERS}
        )

    async def follow(self, call: Call) -> web.StreamResponse:
        """Stream each section whenever its text changes."""

        async def write(response: web.StreamResponse) -> None:
            shown: dict[str, str] = {}
            while not call.hub.closed:
                position = call.fleet.state.position
                now = self._sections(call)
                changed = {name: html for name, html in now.items() if shown.get(name) != html}
                if changed:
                    await response.write(b"event: sections\ndata: " + msgspec.json.encode(changed) + b"\n\n")
                else:
                    await response.write(b": still here\n\n")
                shown = now
                await asyncio.sleep(COALESCE_S)
                moving = any(record.phase not in ENDED for record in call.fleet.state.migrations.values())
                await call.hub.position_after(position, REFRESH_MOVING_S if moving else REFRESH_S_MAX)

        return await stream(call, write)

    def _sections(self, call: Call) -> dict[str, str]:
        return sections(call.fleet.state, call.fleet.now(), ready=call.fleet.leader_ready)


def _html(text: str, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html", headers=_HEADERS)


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>virtward</title>
<link rel="icon" href="/static/mark.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/page.css">
"""


def _document(parts: dict[str, str]) -> str:
    blocks = "".join(
        f'<section class="{name}">'
        + (f"<h2>{escape(_TITLES[name])}</h2>" if _TITLES[name] else "")
        + f'<div id="{name}"{" aria-live=polite" if name == "summary" else ""}>{html}</div></section>\n'
        for name, html in parts.items()
    )
    return (
        f'{_HEAD}<script src="/static/page.js" defer></script>\n'
        '<noscript><meta http-equiv="refresh" content="10"></noscript>\n</head>\n<body>\n'
        '<header class="top"><h1><img src="/static/mark.svg" alt="" width="26" height="26">virtward</h1>'
        '<span id="live" class="live" role="status">as of loading</span>'
        '<form method="post" action="/logout"><button>Sign out</button></form></header>\n'
        f"<main>\n{blocks}</main>\n</body>\n</html>\n"
    )


def _login_form(problem: str) -> str:
    told = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return (
        f'{_HEAD}</head>\n<body class="door">\n<main><h1><img src="/static/mark.svg" alt="" width="32" height="32">'
        "virtward</h1>\n"
        f'<form method="post" action="/login">{told}<label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
        "<button>Sign in</button></form>\n"
        '<p class="quiet">A token of this aggregator, like the one that <code>virtward</code> uses.</p>'
        "</main>\n</body>\n</html>\n"
    )
