"""The aggregator's HTTP API for the modules: one request at a time, every failure one sentence."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from ansible.module_utils.urls import open_url

ANSWER_S_MAX = 60
POLL_S = 1.0
ARGUMENTS = {
    "api": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path", "no_log": False},
    "ca_path": {"type": "path"},
}
LOCAL_API = "http://127.0.0.1:8420"
LOCAL_TOKEN_FILE = "/etc/virtward/aggregator.token"  # noqa: S105 - where it lies, not what it is
CLIENT_FILE = "~/.config/virtward/client.toml"


def client_settings():
    """Return what the command `virtward` knows of the aggregator on this machine; nothing without its file.

    Only `name = "value"` lines are read: Python has no TOML reader before 3.11, and the file has nothing else.
    """
    try:
        with Path(CLIENT_FILE).expanduser().open(encoding="utf-8") as file:
            return dict(re.findall(r'(?m)^(\w+)\s*=\s*"([^"\n]*)"\s*$', file.read()))
    except (OSError, UnicodeDecodeError):
        return {}


class ApiError(Exception):
    """The text is one sentence. code: HTTP's, 0 where nobody answered."""

    def __init__(self, text, code=0):
        super().__init__(text)
        self.code = code


class Api:
    """One aggregator."""

    def __init__(self, params):
        known = {} if params.get("api") else client_settings()
        self._url = (params.get("api") or known.get("api") or LOCAL_API).rstrip("/")
        self._ca_path = params.get("ca_path") or known.get("ca_file")
        token, path = params.get("token"), params.get("token_file") or known.get("token_file") or LOCAL_TOKEN_FILE
        if not token:
            try:
                with open(path, encoding="ascii") as file:
                    token = file.read().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ApiError(f"the token file {path} cannot be read: {error}") from None
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method, path, body=None, dry_run=False):
        """Return the answer's document. Raises ApiError."""
        query = ("&" if "?" in path else "?") + "dryRun=1" if dry_run else ""
        try:
            answer = open_url(
                f"{self._url}/api/v1/{path}{query}",
                method=method,
                headers=self._headers,
                data=None if body is None else json.dumps(body),
                timeout=ANSWER_S_MAX,
                ca_path=self._ca_path,
            )
            raw = answer.read()
        except HTTPError as error:
            raise ApiError(_sentence(error), error.code) from None
        except (URLError, OSError) as error:
            raise ApiError(f"{self._url} does not answer: {getattr(error, 'reason', error)}") from None
        try:
            return json.loads(raw) if raw else {}
        except ValueError:
            raise ApiError(f"{self._url} does not answer as an aggregator does: its answer is no JSON") from None

    def get(self, kind, name):
        """Return one object, None where there is none."""
        try:
            return self.call("GET", path_of(kind, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def wait(self, question, until_s):
        """Ask until the question returns something true, at most until_s seconds; None when it never did."""
        end = time.monotonic() + until_s
        while True:
            found = question()
            if found or time.monotonic() >= end:
                return found or None
            time.sleep(POLL_S)


def path_of(kind, name, verb=""):
    """Return the path of an object, or of a verb on it."""
    return f"{kind}/{quote(name, safe='')}" + (f":{verb}" if verb else "")


def wished(found):
    """Return of an object what a person orders: its labels and its spec."""
    if not found:
        return {}
    labels = {
        key: value
        for key, value in (found.get("metadata", {}).get("labels") or {}).items()
        if key not in ("virtward/hostname", "virtward/arch")
        and not key.startswith(("virtward/cpu-model.", "virtward/machine."))
    }
    return {"labels": labels, "spec": found.get("spec", {})}


def difference(before, after, name):
    """Return Ansible's diff of two objects as they are wished."""
    return {
        "before": json.dumps(wished(before), indent=2, sort_keys=True) + "\n",
        "after": json.dumps(wished(after), indent=2, sort_keys=True) + "\n",
        "before_header": name,
        "after_header": name,
    }


def _sentence(error):
    try:
        problem = json.loads(error.read())
        return str(problem.get("detail") or problem.get("title") or error)
    except (ValueError, OSError, AttributeError):
        return f"HTTP {error.code}"
