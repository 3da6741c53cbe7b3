"""Options that all modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """The aggregator and the token."""

    DOCUMENTATION = r"""
options:
  api:
    description:
      - The aggregator's URL as the machine sees it that runs the module.
      - Left out, URL, token file and certificate are those of the command C(virtward) there
        (C(~/.config/virtward/client.toml)), else C(http://127.0.0.1:8420).
    type: str
  token:
    description: The admin token. Better leave it out and name a file.
    type: str
  token_file:
    description:
      - The file with the admin token, on the machine that runs the module.
      - Left out, that of the command C(virtward) there, else C(/etc/virtward/aggregator.token).
    type: path
  ca_path:
    description: Certificates that the URL's certificate is checked with, where they are not the system's.
    type: path
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing; the aggregator itself is asked, with a dry run.
  diff_mode:
    support: full
    description: Shows the object before and after.
"""
