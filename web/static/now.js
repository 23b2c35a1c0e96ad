/* The live values, the energy of today, the notice, and what a screen reader is told.
 *
 * An answer is shown together with its age by this device's own clock, every second anew: once no answer comes any more,
 * what is shown grows old before the reader's eyes.
 */

import {
  NO_VALUE, QUANTITIES, Stopwatch, agoText, decimalsFor, durationText, isNumber, limitText, numberText, setText, timeText, valueText,
} from "./format.js";

const LOST_AFTER_S = 5;
const ANNOUNCE_EVERY_S = 10;
const DIRECTIONS = {
  charging: ["▲", "Charging"],
  discharging: ["▼", "Discharging"],
  idle: ["■", "Idle: no current to speak of"],
  unknown: ["?", "Direction not known"],
};

const element = (id) => document.getElementById(id);
const opened = new Stopwatch();
const readings = {}; // quantity -> {value, ageS when it was asked for, stopwatch since then}
let latest = null;
let asked = null; // stopwatch since the last good answer was asked for
let failure = { failed: false, reason: null };

/* The newest answer of api/latest, null before there is one. */
export function lastAnswer() {
  return latest;
}

/* What time the power monitor's own clock shows, in ms since the epoch; null before it has answered. */
export function serverTimeMs() {
  return latest === null ? null : latest.time + asked.seconds() * 1000;
}

/* Is the power monitor silent, or was it never heard? */
export function isLost() {
  return (asked ?? opened).seconds() > LOST_AFTER_S;
}

export function decimalsOf(quantity) {
  return decimalsFor(latest?.uncertainty?.[quantity.key], quantity.decimals);
}

export function takeLatest(body, stopwatch) {
  latest = body;
  asked = stopwatch;
  failure = { failed: false, reason: null };
  for (const { key } of QUANTITIES) {
    const value = body.sample?.[key];
    if (isNumber(value)) readings[key] = { value, ageS: Math.max(0, body.sample.age_s), asked: stopwatch };
  }
  showToday(body.today);
  showNow();
}

export function takeFailure(reason) {
  failure = { failed: true, reason };
  showNow();
}

/* Show the values as they stand at this moment; called every second, too. */
export function showNow() {
  const lost = isLost();
  const states = QUANTITIES.map((quantity) => showQuantity(quantity, lost));
  const currentState = states[1].state;
  const direction = currentState === "new" ? (latest.direction ?? "unknown") : "unknown";
  showDirection(DIRECTIONS[direction] ? direction : "unknown");
  element("today").classList.toggle("old", lost);
  const word = showNotice(states, lost);
  showLink(word, lost);
  announce(word ?? DIRECTIONS[direction][1]);
}

function showQuantity(quantity, lost) {
  const place = element(quantity.key);
  const reading = readings[quantity.key];
  const decimals = decimalsOf(quantity);
  place.querySelector(".unit").hidden = !reading;
  if (!reading) {
    place.className = "value none";
    setText(place.querySelector(".number"), NO_VALUE);
    return { quantity, state: "none", ageS: null };
  }
  const ageS = reading.ageS + reading.asked.seconds();
  const old = lost || ageS > (latest?.stale_after_s ?? LOST_AFTER_S);
  place.className = old ? "value old" : "value";
  setText(place.querySelector(".number"), numberText(reading.value, decimals, quantity.signed));
  setText(place.querySelector(".limit"), limitText(latest?.uncertainty?.[quantity.key], decimals, quantity.unit));
  setText(place.querySelector(".age"), old ? `old: ${durationText(ageS)}` : agoText(ageS));
  return { quantity, state: old ? "old" : "new", ageS };
}

function showDirection(direction) {
  const place = element("direction");
  place.className = direction;
  setText(place.querySelector(".symbol"), DIRECTIONS[direction][0]);
  setText(place.querySelector(".words"), DIRECTIONS[direction][1]);
}

/* Show the big notice if there is reason to; return it in one sentence without a number that changes, else null. */
function showNotice(states, lost) {
  const [kind, headline, text] = findNotice(states, lost);
  const place = element("notice");
  place.hidden = kind === null;
  place.className = `notice ${kind}`;
  setText(place.querySelector("strong"), headline);
  setText(place.querySelector("span"), text);
  return kind === null ? null : headline;
}

function findNotice(states, lost) {
  if (lost && failure.reason !== null) {
    return ["error", "The power monitor reports an error.", `${failure.reason}. ${howOld()}`];
  }
  if (lost) {
    const advice = "Is its computer on, is its program running, is this device in the same network?";
    return ["error", "The power monitor does not answer.", `${howOld()} ${advice}`];
  }
  if (latest === null) return [null, "", ""];
  const old = states.filter((each) => each.state === "old");
  if (states.every((each) => each.state === "none")) {
    return ["warning", "There is no value yet.", "No meter has given a good reading since this page was opened."];
  }
  if (old.length > 0 && states.every((each) => each.state !== "new")) {
    const ageS = Math.min(...old.map((each) => each.ageS));
    return ["error", "Old values.", `No meter has given a good reading for ${durationText(ageS)}.`];
  }
  if (old.length > 0) {
    const names = old.map((each) => each.quantity.name.toLowerCase()).join(" and ");
    const ageS = Math.max(...old.map((each) => each.ageS));
    return ["warning", `Old values: ${names}.`, `There has been no good reading for ${durationText(ageS)}.`];
  }
  return [null, "", ""];
}

function howOld() {
  return asked === null ? "" : `What stands below is ${durationText(asked.seconds())} old.`;
}

function showLink(word, lost) {
  const [kind, symbol, text] = lost
    ? ["error", "✕", "no answer"]
    : latest === null
      ? ["off", "…", "connecting"]
      : word === null
        ? ["ok", "✓", "live"]
        : ["warning", "!", "look"];
  const place = element("link");
  place.className = `badge ${kind}`;
  setText(place.querySelector(".symbol"), symbol);
  setText(place.querySelector(".words"), text);
}

function showToday(today) {
  showEnergy("energy_in", today?.energy_in_kwh, today?.energy_in_uncertainty_kwh, today?.charge_in_ah);
  showEnergy("energy_out", today?.energy_out_kwh, today?.energy_out_uncertainty_kwh, today?.charge_out_ah);
  setText(element("coverage"), isNumber(today?.coverage_percent) ? coverageText(today) : "");
}

function showEnergy(id, kwh, limitKwh, chargeAh) {
  const place = element(id);
  const known = isNumber(kwh);
  const decimals = decimalsFor(limitKwh, 3);
  place.classList.toggle("none", !known);
  place.querySelector(".unit").hidden = !known;
  setText(place.querySelector(".number"), numberText(kwh, decimals));
  setText(place.querySelector(".limit"), known ? limitText(limitKwh, decimals, "kWh") : "");
  setText(place.querySelector(".charge"), isNumber(chargeAh) ? valueText(chargeAh, 1, "Ah") : "");
}

/* Rounded down, so that only what has no gap is 100 %. */
function coverageText({ coverage_percent: percent, gap_seconds: gapS, from }) {
  const text = `Measured during ${(Math.floor(percent * 10) / 10).toFixed(1)}\u00a0% of the time since ${timeText(from, "time")}`;
  return isNumber(gapS) && gapS >= 1 ? `${text}; ${durationText(gapS)} are missing.` : `${text}.`;
}

let announced = "";
let sinceAnnounced = null;

/* Tell a screen reader what has changed, now and then: no numbers, and nothing twice. */
function announce(words) {
  if (latest === null && !isLost()) return;
  if (words === announced || (sinceAnnounced?.seconds() ?? Infinity) < ANNOUNCE_EVERY_S) return;
  announced = words;
  sinceAnnounced = new Stopwatch();
  element("announcement").textContent = words;
}
