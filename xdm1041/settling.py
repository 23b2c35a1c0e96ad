"""When the readings of a meter can be trusted after its settings may have been changed. No input or output.

After a change a meter shows exact zeros, at rate S for 0.51 to 0.62 s, and then for one conversion the transient, a
value that looks like any other (recorded at S; at the other rates the conversion is taken to be as short as the manual
says).
"""

from __future__ import annotations

from .commands import XDM1041Rate
from .errors import Unsettled

_AT_LEAST_S = 1.0
_WITHOUT_CHANGE_S = 3.0  # an input that never changes: nine conversions at the slowest rate
_ZEROS_AT_MOST_S = 3.0
_CHANGES = 2  # from zero to the transient, from the transient to the first good value

LOOK_BEFORE_S = {XDM1041Rate.SLOW: 0.43, XDM1041Rate.MEDIUM: 0.13, XDM1041Rate.FAST: 0.13}
"""A meter that showed no zero this long before a reading shows no transient in it: that is after any zeros have begun
and before their transient has."""


class Settling:
    """What has been seen of a meter since ``now_mono_s``.

    ``settled``: it is believed to be settled, and only a change that was missed is to be ruled out.
    """

    def __init__(self, now_mono_s: float, rate: XDM1041Rate, *, settled: bool) -> None:
        self.settled = settled
        self._look_s = LOOK_BEFORE_S[rate]
        self._began_mono_s = self._since_mono_s = now_mono_s
        self._text = ""
        self._changes = -1

    def is_over(self, text: str, now_mono_s: float, *, zero: bool) -> bool:
        """Take one more answer and return whether the next one can be trusted.

        Raises ``Unsettled`` if there are still zeros 3 s after the beginning.
        """
        if text != self._text:
            self._text, self._changes = text, self._changes + 1
        if zero:
            self.settled = False
            self._since_mono_s, self._changes = now_mono_s, 0
            if now_mono_s - self._began_mono_s >= _ZEROS_AT_MOST_S:
                raise Unsettled(f"still exactly zero after {_ZEROS_AT_MOST_S:g} s: is it in hold?")
            return False
        if self.settled:
            return now_mono_s - self._began_mono_s >= self._look_s
        changed = self._changes >= _CHANGES and now_mono_s - self._began_mono_s >= _AT_LEAST_S
        return changed or now_mono_s - self._since_mono_s >= _WITHOUT_CHANGE_S
