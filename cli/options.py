"""Arguments and options that several verbs have in common, and the completion of names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from cli.errors import Failure
from cli.render import FORMATS
from cli.resources import ALIASES, SINGULAR

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from cli.session import Session

Decorated = TypeVar("Decorated", bound=Callable[..., object])
Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]

output_option = click.option(
    "-o", "--output", type=click.Choice(FORMATS), help="How to print: wide, json, yaml or name."
)
selector_option = click.option(
    "-l", "--selector", metavar="SELECTOR", help="Only objects with these labels: app=web,tier!=x."
)
wait_option = click.option("--wait", is_flag=True, help="Return when it is done, not when ordered.")
timeout_option = click.option("--timeout", default="10m", show_default=True, help="How long --wait waits.")


def vm_argument(*, several: bool = True) -> Callable[[Decorated], Decorated]:
    """Return the argument for the name of a VM, or of several."""
    return _names_argument("vms", several=several)


def node_argument(*, several: bool = True, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Return the argument for the name of a node, or of several."""
    return _names_argument("nodes", several=several, required=required)


def _names_argument(collection: str, *, several: bool, required: bool = True) -> Callable[[Decorated], Decorated]:
    return click.argument(
        "names" if several else "name",
        nargs=-1 if several else 1,
        required=required,
        metavar=SINGULAR[collection].upper() + ("..." if several else ""),
        shell_complete=complete_names(collection),
    )


def names_known(session: Session | None, collection: str) -> list[str]:
    """Return the names of a kind, none where the aggregator cannot be asked."""
    from cli.client import path_of
    from cli.document import documents, name_of
    from cli.session import Session as NewSession

    try:
        answer = (session or NewSession()).client.get(path_of(collection))
    except Failure:
        return []
    return [name_of(item) for item in documents(answer, "items")]


def complete_names(collection: str) -> Complete:
    """Return a completion that offers the names of one kind."""

    def offer(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        known = names_known(ctx.find_root().obj, collection)
        return [CompletionItem(name) for name in known if name.startswith(begun)]

    return offer


def complete_objects(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Offer a kind first, then the names of that kind."""
    from click.shell_completion import CompletionItem

    given = ctx.params.get("objects") or ()
    if not given:
        return [CompletionItem(word) for word in ALIASES if word.startswith(begun)]
    for collection, aliases in ALIASES.items():
        if given[0] in aliases:
            known = names_known(ctx.find_root().obj, collection)
            return [CompletionItem(name) for name in known if name.startswith(begun)]
    return []
