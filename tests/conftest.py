"""What every test may rely on. Slicing and the laboratory's turn are in tests/selection.py."""

import os

# Programs under test print the same on a terminal and in a pipe.
os.environ.setdefault("NO_COLOR", "1")
os.environ.pop("FORCE_COLOR", None)

pytest_plugins = ["tests.laboratory.scenes", "tests.laboratory.agent_steps"]
