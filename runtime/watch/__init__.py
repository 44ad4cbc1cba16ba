"""A loud word when the traffic no longer looks like what was certified.

`baseline` is what the audit measured; `ranks` makes p-values of windows, `evidence` bets on them, `detector` runs the
four tests, `thinning` skips windows, `recent` keeps figures for people, `watch` raises alarms; `abstain` withholds
single answers.
"""

from hardroute.runtime.bundle.baseline import Baseline
from hardroute.runtime.watch.abstain import Abstain
from hardroute.runtime.watch.watch import Alarm, Watch

__all__ = ["Abstain", "Alarm", "Baseline", "Watch"]
