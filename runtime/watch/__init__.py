"""A loud word when the traffic no longer looks like what was certified.

`hardroute.runtime.bundle.baseline` is what the audit measured; `sequential_tests` compares with it, `recent` keeps
figures for people, `watch` raises alarms; `abstain` withholds single answers.
"""

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.watch.abstain import Abstain
from hardroute.runtime.watch.sequential_tests import KINDS
from hardroute.runtime.watch.settings import WatchSettings
from hardroute.runtime.watch.watch import Alarm, Watch

__all__ = ["KINDS", "Abstain", "Alarm", "Baseline", "Watch", "WatchSettings"]
