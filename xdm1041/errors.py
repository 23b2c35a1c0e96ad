"""What can go wrong with a meter, named by what the caller should do about it.

All of them are ``XDM1041Error``; a caller that treats every one as "this reading does not count" is right.
"""

from __future__ import annotations


class XDM1041Error(Exception):
    """Anything that keeps a meter from giving a number that can be trusted."""


class PortUnavailable(XDM1041Error):
    """The port cannot be opened: wait and try again.

    The adapter is unplugged or comes up under another name; another program holds the port; the user lacks the
    permission (group ``dialout``); the serial server of a ``socket://`` URL is down.
    """


class PortLost(XDM1041Error):
    """The port was open and failed: close it and open it again.

    The USB adapter was pulled; the serial server closed the connection; the kernel's driver answered EIO.
    """


class BrokenExchange(XDM1041Error):
    """Question and answer no longer surely belong together: drain, identify, verify the settings, then go on.

    No reply in time; a reply cut short or garbled; bytes that nobody asked for.
    """


class ReplyTimeout(BrokenExchange):
    """No whole line came in time. The reply may still come, and would answer the next question."""


class ReplyMalformed(BrokenExchange):
    """A whole line came and is not what the question allows as an answer."""


class WrongInstrument(XDM1041Error):
    """What answers is not the meter that belongs here: leave it alone and look again later.

    Another make or model is on the port; the serial number is not the configured one (the cables are swapped).
    """


class SettingsDiffer(XDM1041Error):
    """The meter is not in the mode, range or speed it should be in: set it up again before using a reading.

    It was switched off and on; somebody pressed a key on its panel; a command was lost.
    """


class Unsettled(XDM1041Error):
    """The meter has no finished conversion to show (it answers exactly zero): wait until it has settled."""


class Overload(XDM1041Error):
    """The input is beyond the range. The meter works; there is just no value. Not a fault of the exchange."""


class Interrupted(XDM1041Error):
    """``interrupt()`` was called: the daemon is stopping."""
