/* Numbers, ages and times as text. Pure functions, no page.
 *
 * The digits of a number follow from how far it may be off: the last one shown is the last one that means something.
 */

export const NO_VALUE = "no value";
const SPACE = "\u00a0"; // between number and unit no line is broken

export const QUANTITIES = [
  { key: "voltage_v", name: "Voltage", unit: "V", decimals: 2, signed: false },
  { key: "current_a", name: "Current", unit: "A", decimals: 2, signed: true },
  { key: "power_kw", name: "Power", unit: "kW", decimals: 3, signed: true },
];

const MOST_DECIMALS = 5; // the meters give no more

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/* How many decimals a number has that may be off by `limit`: to one digit of the limit, to two where that digit is a 1. */
export function decimalsFor(limit, otherwise) {
  if (!isNumber(limit) || limit <= 0) return otherwise;
  const exponent = Math.floor(Math.log10(limit) + 1e-9);
  const leading = limit / 10 ** exponent;
  return Math.min(MOST_DECIMALS, Math.max(0, (leading < 2 ? 1 : 0) - exponent));
}

export function numberText(value, decimals, signed = false) {
  if (!isNumber(value)) return NO_VALUE;
  const digits = Math.abs(value).toFixed(decimals);
  if (Number(digits) === 0) return digits; // no sign for what rounds to nothing
  if (value < 0) return `\u2212${digits}`;
  return signed ? `+${digits}` : digits;
}

export function valueText(value, decimals, unit, signed = false) {
  return isNumber(value) ? `${numberText(value, decimals, signed)}${SPACE}${unit}` : NO_VALUE;
}

/* The limit, rounded up: never promise more than is known. */
export function limitText(limit, decimals, unit) {
  if (!isNumber(limit)) return "± not known";
  const rounded = Math.ceil(limit * 10 ** decimals - 1e-6) / 10 ** decimals;
  return `±${SPACE}${rounded.toFixed(decimals)}${SPACE}${unit}`;
}

/* A length of time in its largest unit, rounded down: "12 s", "3 min", "5 h", "2 days". */
export function durationText(seconds) {
  if (seconds < 100) return `${Math.floor(seconds)}${SPACE}s`;
  if (seconds < 100 * 60) return `${Math.floor(seconds / 60)}${SPACE}min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}${SPACE}h`;
  return `${Math.floor(seconds / 86400)}${SPACE}days`;
}

export function agoText(seconds) {
  return seconds < 1 ? "just now" : `${durationText(seconds)} ago`;
}

const formats = {
  time: { hour: "2-digit", minute: "2-digit" },
  exact: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
  day: { weekday: "short", day: "numeric" },
  date: { day: "numeric", month: "short" },
  row: { weekday: "short", day: "numeric", hour: "2-digit", minute: "2-digit" },
  moment: { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
};
for (const [name, options] of Object.entries(formats)) {
  formats[name] = new Intl.DateTimeFormat("en-GB", { hourCycle: "h23", ...options });
}

/* Only what differs is written: no needless work for a screen reader or a slow phone. */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/* A moment in the time of this device; `form` is one of the names above. */
export function timeText(utcMs, form) {
  return formats[form].format(utcMs);
}

/* How long it is since it was made. The greater of two clocks: one may stand still while the device sleeps, the other
 * may be set back; too old is the safe mistake. */
export class Stopwatch {
  #steadyMs = performance.now();
  #wallMs = Date.now();

  seconds() {
    return Math.max(0, performance.now() - this.#steadyMs, Date.now() - this.#wallMs) / 1000;
  }
}
