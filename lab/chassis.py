"""What a BMC's chassis control does: called by ipmi_sim for every deed, it powers the host it is wired to off or on.

Run as: python -m lab.chassis LABORATORY BMC [words of ipmi_sim … set NAME VALUE …]
Exit status 1 makes ipmi_sim answer an error.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence

from lab.bmc import BmcMode
from lab.errors import LaboratoryError
from lab.laboratory import Laboratory

EARLY_S_MIN, EARLY_S_MAX = 0.3, 0.9
_LATER = "--later"


def _settings(words: Sequence[str]) -> dict[str, str]:
    """NAME VALUE pairs after the word set."""
    pairs = list(words[list(words).index("set") + 1 :])
    return dict(zip(pairs[::2], pairs[1::2], strict=False))


def _obey(laboratory: Laboratory, own: str, settings: dict[str, str]) -> None:
    bmc = laboratory.bmc(own)
    if "reset" in settings:
        laboratory.switch_power(bmc.controls, on=False)
        laboratory.switch_power(bmc.controls, on=True)
    elif settings.get("power") == "0" and bmc.mode is BmcMode.EARLY:
        _cut_early(laboratory, laboratory.layout.name, own)
    elif "power" in settings:
        laboratory.switch_power(bmc.controls, on=settings["power"] == "1")


def _cut_early(laboratory: Laboratory, name: str, own: str) -> None:
    """Say off now, do it a little later, in a process that ipmi_sim does not wait for."""
    laboratory.host(laboratory.bmc(own).controls).set_power_switch("off")
    command = [sys.executable, "-m", "lab.chassis", name, own, _LATER]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)


def main() -> int:
    """Do what ipmi_sim asks."""
    name, own, *words = sys.argv[1:]
    laboratory = Laboratory(name)
    try:
        if words == [_LATER]:
            delay_s = random.uniform(EARLY_S_MIN, EARLY_S_MAX)
            laboratory.switch_power(laboratory.bmc(own).controls, on=False, delay_s=delay_s)
            return 0
        settings = _settings(words)
        laboratory.bmc(own).note_deed(" ".join(f"{key} {value}" for key, value in settings.items()))
        if laboratory.bmc(own).mode is BmcMode.FAILS:
            return 1
        _obey(laboratory, own, settings)
    except LaboratoryError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
