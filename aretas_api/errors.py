"""What can go wrong between this machine and the Aretas platform, one class per thing the caller should do about it.

Every text is a sentence for the operator: which host, what happened. No text, and nothing that logging prints with one,
holds the log-in URL, the password or the token; see ``transport.py`` for how that is kept.
"""

from __future__ import annotations


class AretasError(Exception):
    """The platform did not do what it was asked to."""


class TryLater(AretasError):
    """Nothing is wrong with the readings: keep them and try again later.

    For example: no network, the name does not resolve, the connection is refused, reset or never answered; the
    platform answers 503 or 429, a redirect, or a captive portal answers in its place with a page of HTML.

    ``retry_after_s``: how long the platform asked to be left alone, in seconds, 0 to 3600; ``None`` if it did not.
    """

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class LogInRefused(AretasError):
    """Keep the readings, try again at long intervals, and tell the operator to check user name and password.

    For example: the password was changed on the platform; the account was closed; a token that the platform has
    handed out a moment ago is not accepted.
    """


class ReadingsRefused(AretasError):
    """These readings, as they are, will never be taken: find the one that is refused and do not let it block the rest.

    For example: a value outside the range the platform allows for its type (``data exceeds allowed range!``); an
    unknown sensor type. The platform judges a batch as a whole and does not say which reading it means.

    ``message``: the platform's own words, one line, at most 200 characters; empty if it gave none.
    """

    def __init__(self, text: str, *, message: str = "") -> None:
        super().__init__(text)
        self.message = message


class DeviceNotRegistered(AretasError):
    """Keep the readings, try again later, and tell the operator to check the device's number (MAC) in the account.

    For example: ``self_mac`` holds a wrong number; the device was created in the account a minute ago and the platform
    has not refreshed its list yet.
    """


class BatchTooLarge(AretasError):
    """Send the same readings again in smaller batches.

    For example: the platform, or a proxy before it, limits the size of a request and answers 413.
    """
