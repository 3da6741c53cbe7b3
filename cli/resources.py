"""The kinds of objects people name, and the words they name them by.

Knows words only: `node`, `nodes`, `no`, `node/kvm2` all mean what one expects.
"""

from __future__ import annotations

from typing import NamedTuple

from cli.errors import WrongUsage

ALIASES = {
    "nodes": ("node", "nodes", "no", "host", "hosts"),
    "vms": ("vm", "vms", "virtualmachine", "virtualmachines"),
    "migrations": ("migration", "migrations", "mig"),
    "migrationpolicies": ("migrationpolicy", "migrationpolicies", "migpolicy"),
    "drains": ("drain", "drains"),
    "incidents": ("incident", "incidents", "inc"),
    "events": ("event", "events", "ev"),
}
SINGULAR = {
    "nodes": "node",
    "vms": "vm",
    "migrations": "migration",
    "migrationpolicies": "migrationpolicy",
    "drains": "drain",
    "incidents": "incident",
    "events": "event",
}
KINDS = {
    "nodes": "Node",
    "vms": "VirtualMachine",
    "migrations": "Migration",
    "migrationpolicies": "MigrationPolicy",
    "drains": "Drain",
    "incidents": "Incident",
    "events": "Event",
}
_COLLECTIONS = {alias: name for name, aliases in ALIASES.items() for alias in aliases}


class Target(NamedTuple):
    """One object: the collection it is in and its name."""

    collection: str
    name: str

    def __str__(self) -> str:
        return f"{SINGULAR[self.collection]}/{self.name}"


def collection_of(word: str) -> str:
    """Return the collection a word means; WrongUsage names the words there are."""
    found = _COLLECTIONS.get(word.lower())
    if not found:
        raise WrongUsage(f"there is no kind {word!r}; there are {', '.join(ALIASES)}")
    return found


def read_targets(words: tuple[str, ...], allowed: tuple[str, ...] = tuple(ALIASES)) -> tuple[str, list[str]]:
    """Return (collection, names) of `nodes`, `node kvm2 kvm3` or `node/kvm2 node/kvm3`.

    No names: all of them. WrongUsage if the words mix kinds or name one that is not allowed.
    """
    if not words:
        raise WrongUsage(f"say what: one of {', '.join(SINGULAR[name] for name in allowed)}")
    if "/" in words[0]:
        targets = [read_target(word) for word in words]
        collection = targets[0].collection
        if any(target.collection != collection for target in targets):
            raise WrongUsage("all objects of one command must be of one kind")
        names = [target.name for target in targets]
    else:
        collection = collection_of(words[0])
        names = [name_in(collection, word) for word in words[1:]]
    if collection not in allowed:
        choices = ", ".join(SINGULAR[name] for name in allowed)
        raise WrongUsage(f"this verb takes {choices}, not {SINGULAR[collection]}")
    return collection, names


def read_target(word: str) -> Target:
    """Return the object that `node/kvm2` means."""
    kind, slash, name = word.partition("/")
    if not slash or not name:
        raise WrongUsage(f"{word!r} names no object; write it like node/kvm2")
    return Target(collection_of(kind), name)


def name_in(collection: str, word: str) -> str:
    """Return the name in a word where the kind is known: `web-1` and `vm/web-1` are the same."""
    if "/" not in word:
        if not word:
            raise WrongUsage(f"the name of the {SINGULAR[collection]} is empty")
        return word
    target = read_target(word)
    if target.collection != collection:
        raise WrongUsage(f"{word!r} is a {SINGULAR[target.collection]}, not a {SINGULAR[collection]}")
    return target.name
