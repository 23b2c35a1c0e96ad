"""``--zero``: measures what the current meter shows while no current flows, and stores it as the zero offset.

Runs in the main thread, while the daemon does not: it has the port of the meter to itself.
Guarantees: it measures as the daemon does (same range and speed, settings verified after each reading); it gives no
offset if anything was wrong with a reading, or if the readings say that a current flows.

How it decides, with a step being the last digit of the meter's display (1 µV on the 50 mV range at slow speed, 10 µV
at the others), the sources being the meter's data sheet and what its users have recorded:

* Scatter. A shorted meter scatters by about 1 step. A standard deviation above 5 steps, or first and last third of the
  time more than 5 steps apart: a current flows and changes, or mains noise, or the meter is still warming up. Refused.
* Mean. The meter's own zero error is 10 steps. Beyond 20 steps it is unusual, and a small steady current looks just the
  same: it is accepted with a warning that says how to tell one from the other. Offsets of 0.1 to 0.2 mV have been seen
  at meters that lost a calibration constant; beyond 0.25 mV (or 20 steps, if that is more) it is a current. Refused.
* Readings that are identical to the last of seven digits are those of a meter in hold. Refused.

A steady current below these limits cannot be told from an offset by anybody: that no current flows is the operator's to
see to. With ``xdm_current_source = direct`` there is no shunt and no offset to take: refused; ``xdm_current_deadband``
is of use there.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clock import Clock
from config_edit import NotStored, store_value
from config_file import ConfigurationError
from instance import holders, running_daemon
from sampling_setup import port_book
from settings import CurrentMeterSettings, Settings, load_settings
from xdm1041 import (
    XDM1041,
    Identity,
    MeterRange,
    Overload,
    PortUnavailable,
    XDM1041Error,
    XDM1041Mode,
    XDM1041Rate,
)

KEY = "xdm_current_zero_offset"
SECONDS = 60.0

_READ_EVERY_S = 0.5  # the meter has a new value every 0.333 s
_STEPS_IN_A_RANGE = 50_000
_MOST_SCATTER_STEPS = 5
_USUAL_STEPS = 20
_LARGEST_V = 250e-6


class ZeroRefused(Exception):
    """No zero can be taken now. The message says why and what to do; then try again.

    Examples: the daemon runs, there is no shunt, the meter shows overload, a current flows.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Zero:
    """What was measured at the shunt without a current: mean and standard deviation of the readings, in volts."""

    identity: Identity
    count: int
    mean_v: float
    scatter_v: float
    step_v: float


def take_zero(
    settings: Settings, config: Path, clock: Clock, say: Callable[[str], None], *, seconds: float, write: bool
) -> None:
    """Measure for ``seconds``, tell the result by ``say`` and, with ``write``, store it in the file ``config``.

    Blocks about 10 s longer than ``seconds``, 5 s more if nothing answers. Raises ``ZeroRefused``: nothing was stored.
    """
    current = settings.current_meter
    if current is None or current.shunt_resistance_ohm is None:
        raise ZeroRefused(
            "There is no shunt to take the zero of: xdm_current_enable is False, or xdm_current_source is direct. "
            "A zero offset is for the voltage across a shunt; xdm_current_deadband works with both"
        )
    process = running_daemon(settings.folder)
    daemons = [f"process {process}"] if process else [str(each) for each in holders(current.port) if each.is_daemon]
    if daemons:
        raise ZeroRefused(
            f"The daemon has the meter ({daemons[0]}): stop it, and start it again afterwards. "
            "A service: sudo systemctl stop powermonitormiddleware"
        )
    say(f"The contactor must be open, no charger and no load on. This takes {seconds:g} s ...")
    meter = _meter(settings, current, clock)
    zero = measure(meter, clock, seconds)
    say(_as_text(zero, meter.port, current, current.shunt_resistance_ohm))
    _store(zero, settings, config, clock, say, write=write)


def _meter(settings: Settings, current: CurrentMeterSettings, clock: Clock) -> XDM1041:
    return XDM1041(
        XDM1041Mode.MODE_VOLTAGE_DC,
        current.range_number,
        current.port,
        rate=XDM1041Rate[current.rate.name],
        serial_number=current.serial_number,
        ports=port_book(settings),
        clock=clock,
    )


def measure(meter: XDM1041, clock: Clock, seconds: float) -> Zero:
    """Return the mean of what the meter shows in ``seconds``, read twice a second. Raises ``ZeroRefused``."""
    readings_v: list[float] = []
    try:
        identity = meter.connect()
        due_mono_s, pause = clock.mono_s(), threading.Event()
        end_mono_s = due_mono_s + seconds
        while clock.mono_s() < end_mono_s:
            reading_v = meter.read_val1_sure()
            meter.verify_settings()
            readings_v.append(reading_v)
            due_mono_s += _READ_EVERY_S
            pause.wait(clock.timeout_s(min(due_mono_s, end_mono_s)))
    except Overload as exc:
        raise ZeroRefused(
            f"{exc} (range {_range_of(meter).label}): a large current flows, or the leads are not on the shunt"
        ) from exc
    except PortUnavailable as exc:
        raise ZeroRefused(str(exc)) from exc
    except XDM1041Error as exc:
        raise ZeroRefused(f"The meter gave no good reading: {exc}. Look at it, and try again") from exc
    finally:
        meter.disconnect()
    return judged(readings_v, identity, step_of(meter))


def step_of(meter: XDM1041) -> float:
    """Return the last digit of the meter's display, in volts; at medium and fast speed it has one digit less."""
    coarser = 1 if meter.rate is XDM1041Rate.SLOW else 10
    return _range_of(meter).full_scale / _STEPS_IN_A_RANGE * coarser


def _range_of(meter: XDM1041) -> MeterRange:
    assert meter.range is not None  # a voltage always has one
    return meter.range


def judged(readings_v: Sequence[float], identity: Identity, step_v: float) -> Zero:
    """Return the zero that readings of a meter with this step give, volts. Raises ``ZeroRefused`` if they give none."""
    mean_v, scatter_v = statistics.fmean(readings_v), statistics.pstdev(readings_v)
    third = max(1, len(readings_v) // 3)
    drift_v = statistics.fmean(readings_v[-third:]) - statistics.fmean(readings_v[:third])
    most_scatter_v, largest_v = _MOST_SCATTER_STEPS * step_v, max(_LARGEST_V, _USUAL_STEPS * step_v)
    if len(set(readings_v)) == 1:
        raise ZeroRefused(
            f"All {len(readings_v)} readings were the same to the last digit ({_uv(mean_v)}): the display is held, or "
            "the meter does not measure. Press its Run/Stop key"
        )
    if scatter_v > most_scatter_v or abs(drift_v) > most_scatter_v:
        what = f"scatter by {_uv(scatter_v)}" if scatter_v > most_scatter_v else f"drift by {_uv(drift_v)}"
        raise ZeroRefused(
            f"The readings {what}, with {_uv(most_scatter_v)} allowed. Either a current flows and changes (is the "
            "contactor open?), or the leads pick up noise (twist them), or the meter has not been on for half an hour"
        )
    if abs(mean_v) > largest_v:
        raise ZeroRefused(
            f"The mean is {_uv(mean_v)}, with {_uv(largest_v)} allowed: that is a current and no zero error. Is the "
            "contactor open, and nothing between battery and shunt?"
        )
    return Zero(identity=identity, count=len(readings_v), mean_v=mean_v, scatter_v=scatter_v, step_v=step_v)


def _as_text(zero: Zero, port: str, current: CurrentMeterSettings, shunt_ohm: float) -> str:
    sign = -1.0 if current.reverse_polarity else 1.0
    text = (
        f"Current meter {zero.identity.serial_number} on {port}, range {current.range_name}, {zero.count} readings:\n"
        f"  mean     {_uv(zero.mean_v):>12}  which is {sign * zero.mean_v / shunt_ohm:+9.4f} A\n"
        f"  scatter  {_uv(zero.scatter_v):>12}  which is {zero.scatter_v / shunt_ohm:9.4f} A (standard deviation)"
    )
    if abs(zero.mean_v) > _USUAL_STEPS * zero.step_v:
        text += (
            f"\nWARNING: more than {_uv(_USUAL_STEPS * zero.step_v)} is unusual for a meter. A small steady current "
            "looks just the same. Take both leads off the\nshunt, hold them together and do this again: if the mean is "
            "nearly the same it is the meter's and all is well; if not, a current flows."
        )
    return text


def _store(
    zero: Zero, settings: Settings, config: Path, clock: Clock, say: Callable[[str], None], *, write: bool
) -> None:
    offset_uv = round(zero.mean_v * 1e6, 1) + 0.0  # no minus zero
    day = datetime.fromtimestamp(clock.utc_s(), UTC).astimezone().date()
    value = f"{offset_uv:.1f} {day.isoformat()} {zero.identity.serial_number}"
    line = f"  {KEY} = {value}"
    if not write:
        say(f"For section [XDM] of {config}, or have it written there with --write:\n{line}")
        return
    try:
        store_value(config, "XDM", KEY, value, lambda new: _check(new, settings, offset_uv))
    except (NotStored, ConfigurationError) as exc:
        raise ZeroRefused(f"{exc}\nNothing was stored. Write it into section [XDM] yourself:\n{line}") from exc
    say(f"Written into {config}; it counts from the next start of the daemon:\n{line}")


def _check(new: Path, settings: Settings, offset_uv: float) -> None:
    """Raise unless the new file says what the old one said, with the new offset."""
    got = load_settings(new, to_run=False).current_meter
    if got is None or got.port != (settings.current_meter and settings.current_meter.port):
        raise NotStored("The file has been changed meanwhile")
    if got.zero_offset.offset_uv != offset_uv:
        raise NotStored(f"{KEY} could not be set in the file")


def _uv(volts: float) -> str:
    return f"{volts * 1e6:.1f} µV"
