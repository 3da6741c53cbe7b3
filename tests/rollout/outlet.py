"""The switched outlet of the machines, as their fence device: answers `NAME status|off|on` with `on` or `off`.

Knows the site; its program (fence_outlet) is put on the aggregator. An outlet has no way of its own to name a machine,
so a node's entry says `identity: Operator`.
"""

from __future__ import annotations

import socketserver
import threading
from pathlib import Path

from tests.rollout.machines import CONTROLLER, Site

PORT = 7070
PROGRAM = f"""#!/usr/bin/python3
import socket, sys
words = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line)
action = words.get("action", "status")
with socket.create_connection(("{CONTROLLER}", {PORT}), 5) as line:
    line.sendall(f"{{words['plug']}} {{action}}\\n".encode())
    said = line.makefile().readline().strip()
if action in ("status", "monitor"):
    print(f"Status: {{said.upper()}}")
    sys.exit({{"on": 0, "off": 2}}.get(said, 1))
sys.exit(0 if said == action else 1)
"""


class _Line(socketserver.StreamRequestHandler):
    site: Site

    def handle(self) -> None:
        name, _, action = self.rfile.readline(200).decode().strip().partition(" ")
        if name not in self.site.machines:
            return
        if action == "off" and self.site.is_on(name):
            self.site.kill(name)
        self.wfile.write(b"on\n" if self.site.is_on(name) else b"off\n")


class Outlet:
    """Serves until closed. Begun in the controller's namespace by a thread of its own."""

    def __init__(self, site: Site) -> None:
        handler = type("Line", (_Line,), {"site": site})
        self._server: socketserver.ThreadingTCPServer | None = None
        self._handler = handler
        self._up = threading.Event()
        self._namespace = Path("/run/netns") / site.controller
        threading.Thread(target=self._serve, daemon=True).start()
        if not self._up.wait(10):
            raise RuntimeError("the outlet did not come up")

    def _serve(self) -> None:
        import ctypes  # noqa: PLC0415 - only this thread enters the namespace
        import os  # noqa: PLC0415

        handle = os.open(self._namespace, os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(handle, 0x40000000):  # CLONE_NEWNET, for this thread alone
            raise OSError(ctypes.get_errno(), "setns")
        os.close(handle)
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer((CONTROLLER, PORT), self._handler)
        self._up.set()
        self._server.serve_forever()

    def close(self) -> None:
        """Stop answering."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
