"""What a fence program's end comes to. Pure.

Only OFF and ON are knowledge, so everything doubtful is ERROR (safety.md, Proof; field-notes, fence
traps): exit status 2 alone says nothing, since a missing script, a shell error and argparse exit 2 too;
the line `Status: OFF` alone says nothing either. Nor does fence_kdump's, which has no status, but heard a crash
kernel when it says so and exits 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from aggregator.core.events import PowerAnswer

STATUS_OFF_EXIT = 2  # fence-agents' API
NOT_RUN_EXITS = (126, 127)  # a shell's words for: not executable, not found
LINE_CHARACTERS_MAX = 300
SECRET_WORDS = ("passw", "secret", "token", "community", "key", "credential")
CRASH_HEARD = "received valid message from"  # fence_kdump's own words, with exit status 0


class ProgramEnded(Struct, frozen=True):
    """How it ended. exit_code: None if it did not run or was killed at its time; output: stdout; talk: stderr."""

    exit_code: int | None
    output: str = ""
    talk: str = ""
    missing: bool = False
    timed_out: bool = False
    too_much: bool = False
    trouble: str = ""


def judge(question: str, ended: ProgramEnded) -> PowerAnswer:
    """Return what the answer to `status`, `on`, `off` or `listen` comes to."""
    if ended.missing or ended.exit_code in NOT_RUN_EXITS:
        return PowerAnswer.MISSING
    if ended.timed_out:
        return PowerAnswer.TIMEOUT
    if ended.trouble or ended.too_much:
        return PowerAnswer.ERROR
    if question == "listen":
        heard = ended.exit_code == 0 and CRASH_HEARD in ended.output + ended.talk
        return PowerAnswer.CRASHED if heard else PowerAnswer.ERROR
    if question != "status":
        return PowerAnswer.DONE if ended.exit_code == 0 else PowerAnswer.ERROR
    said = [line.strip() for line in ended.output.splitlines() if line.startswith("Status:")]
    if said == ["Status: OFF"] and ended.exit_code == STATUS_OFF_EXIT:
        return PowerAnswer.OFF
    if said == ["Status: ON"] and ended.exit_code == 0:
        return PowerAnswer.ON
    return PowerAnswer.ERROR


def telling_line(ended: ProgramEnded, secrets: Iterable[str]) -> str:
    """Return the program's own words for people: one line, bounded, no secret in it."""
    if ended.trouble and (ended.missing or not ended.timed_out):
        return scrub(ended.trouble, secrets)
    words = [" ".join(text.split()) for text in (ended.output, ended.talk)]
    line = " | ".join(text for text in words if text)
    if ended.timed_out:
        line = f"no answer in time; {line}" if line else "no answer in time"
    if ended.too_much:
        line = f"more output than any fence program has; {line}"
    return scrub(line or f"exit status {ended.exit_code} and not a word", secrets)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return the text without the secrets, at most LINE_CHARACTERS_MAX long."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, " ".join(secret.split())):
            if form:
                text = text.replace(form, "***")
    return text if len(text) <= LINE_CHARACTERS_MAX else text[: LINE_CHARACTERS_MAX - 1] + "…"


def is_secret(name: str) -> bool:
    """Tell by a parameter's name whether its value must not be seen."""
    return any(word in name.lower() for word in SECRET_WORDS) and not name.endswith(("_file", "_script"))
