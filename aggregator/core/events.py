"""Everything that can be folded into the state: facts from outside, transitions the core decided.

Facts are what somebody else said or did; transitions are decisions, each with a reason and the
position of the fact that caused it. Both are journalled in this form, so reading the journal is
reading history. `at` is fleet time: Unix seconds that never go backwards within a life.
"""

from aggregator.core.facts import *  # noqa: F403 (this module is the one name for all events)
from aggregator.core.facts_guests import *  # noqa: F403
from aggregator.core.facts_hypervisor import *  # noqa: F403
from aggregator.core.facts_moves import *  # noqa: F403
from aggregator.core.facts_rebuild import *  # noqa: F403
from aggregator.core.transitions import *  # noqa: F403
from aggregator.core.words import *  # noqa: F403
