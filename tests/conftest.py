"""What every test may rely on. Slicing and the laboratory's turn are in tests/selection.py."""

import os

from hypothesis import HealthCheck, settings

# Programs under test print the same on a terminal and in a pipe.
os.environ.setdefault("NO_COLOR", "1")
os.environ.pop("FORCE_COLOR", None)

# How long an example takes says more about what else runs on this machine than about what is tested.
settings.register_profile("virtward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("virtward")

pytest_plugins = ["tests.laboratory.scenes", "tests.laboratory.agent_steps"]
