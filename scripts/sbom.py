"""Writes a CycloneDX 1.5 software bill of materials from a lock file: every package with version and hashes.

Knows the form of hashed requirement files; asks nobody. The same lock gives the same bytes. Usage: sbom.py LOCK VERSION
"""

import json
import re
import sys
import uuid
from hashlib import sha256
from pathlib import Path

PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAMESPACE = uuid.UUID("8a0c1d0e-6c1f-5a57-9b61-5c0f8c1b7a11")
Component = dict[str, object]


def components(text: str) -> list[Component]:
    """Return the packages of a lock file in its order."""
    found: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        if match := PINNED.match(line):
            found.append((re.sub(r"[-_.]+", "-", match.group(1)).lower(), match.group(2), []))
        if found:
            found[-1][2].extend(HASH.findall(line))
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in sorted(digests)],
        }
        for name, version, digests in found
    ]


def bill(text: str, version: str) -> str:
    """Return the whole document; its serial number is made of the lock, so that it is the same again."""
    own = {"type": "application", "bom-ref": "virtward", "name": "virtward", "version": version}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256(text.encode()).hexdigest() + version)}",
        "version": 1,
        "metadata": {"component": {**own, "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": components(text),
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> int:
    if len(sys.argv) != 3:  # noqa: PLR2004 - the two arguments of the usage line
        sys.stderr.write("usage: sbom.py LOCK VERSION\n")
        return 2
    sys.stdout.write(bill(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
