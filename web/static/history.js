/* The history: which range, when it is asked for, the three charts and their legend, the table and the summary. */

import { Chart } from "./chart.js";
import { NO_VALUE, QUANTITIES, decimalsFor, durationText, isNumber, numberText, timeText, valueText } from "./format.js";
import { decimalsOf, lastAnswer, serverTimeMs } from "./now.js";
import { Poller, fetchJson } from "./poller.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const RANGES = {
  "1h": { spanMs: HOUR_MS, words: "hour", rowMs: 5 * MINUTE_MS },
  "24h": { spanMs: DAY_MS, words: "24 hours", rowMs: HOUR_MS },
  "7d": { spanMs: 7 * DAY_MS, words: "7 days", rowMs: 6 * HOUR_MS },
  "31d": { spanMs: 31 * DAY_MS, words: "31 days", rowMs: DAY_MS },
};
const STEPS_MS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600].map((s) => s * 1000);
const DEADLINE_MS = 15_000;
const SOON_MS = 5000;

const element = (id) => document.getElementById(id);
const isEmpty = () => columns === null || columns.seconds.length === 0;
const chosen = () => RANGES[document.querySelector("input[name=range]:checked").value];

let columns = null; // seconds since the epoch, and for each quantity mean, minimum, maximum, uncertainty
let stepMs = 1000;
let endMs = 0; // of what was asked for: the last step goes on beyond it
let charts = [];
let started = false;

/* Set the history up; it asks for nothing before serverHeard() has been called. */
export function startHistory() {
  const poller = new Poller({
    url: historyUrl,
    everyMs: () => (isEmpty() ? SOON_MS : Math.min(10 * MINUTE_MS, Math.max(SOON_MS, stepMs))),
    deadlineMs: DEADLINE_MS,
    onAnswer: takeHistory,
    onFailure: (reason) => showFailure(reason ?? "there is no answer"),
  });
  charts = QUANTITIES.map((quantity) => {
    const place = document.querySelector(`figure[data-quantity=${quantity.key}]`);
    return new Chart(place.querySelector(".plot"), quantity, showLegend);
  });
  element("ranges").addEventListener("change", () => {
    setBusy(true);
    poller.now();
  });
  element("table-details").addEventListener("toggle", fillTable);
  element("cursor").addEventListener("input", moveCursor);
  watchColours();
  return {
    serverHeard() {
      if (!started) poller.now();
      started = true;
    },
  };
}

function historyUrl() {
  const toMs = serverTimeMs();
  if (toMs === null) return null;
  const { spanMs } = chosen();
  stepMs = chooseStepMs(spanMs, element("charts").clientWidth, lastAnswer().report_interval_ms);
  return `api/history?from=${Math.floor(toMs - spanMs)}&to=${Math.floor(toMs)}&step=${stepMs}&columns=1`;
}

/* The smallest round step that gives about one point for two pixels and is a whole number of reporting intervals. */
export function chooseStepMs(spanMs, widthPx, reportMs) {
  const least = Math.max(spanMs / Math.min(1000, Math.max(150, widthPx / 2)), reportMs);
  const step = STEPS_MS.find((each) => each >= least && each % reportMs === 0);
  return step ?? Math.ceil(least / reportMs) * reportMs;
}

function takeHistory(body) {
  columns = withGaps(body, stepMs);
  endMs = body.to;
  const fromS = body.from / 1000;
  const toS = Math.max(body.to / 1000, columns.seconds.at(-1) ?? 0);
  QUANTITIES.forEach(({ key }, index) => {
    const { mean, minimum, maximum } = columns[key];
    charts[index].show([columns.seconds, mean, minimum, maximum], fromS, toS);
  });
  setBusy(false);
  element("charts").classList.remove("old");
  element("chart-note").className = "small";
  element("chart-note").textContent = `As of ${timeText(body.to, "exact")}; each point stands for ${durationText(stepMs / 1000)}.`;
  element("summary").textContent = summaryText(body);
  element("cursor").max = Math.max(0, columns.seconds.length - 1);
  element("cursor").value = element("cursor").max;
  element("cursor").disabled = columns.seconds.length === 0;
  showLegend(null);
  fillTable();
}

/* The columns with a row of nothing wherever a step is missing, so that no line is drawn across it. */
export function withGaps(body, stepMs) {
  const result = { seconds: [] };
  for (const { key } of QUANTITIES) result[key] = { mean: [], minimum: [], maximum: [], uncertainty: [] };
  let before = null;
  body.timestamp.forEach((timestamp, row) => {
    if (before !== null && timestamp - before > 1.5 * stepMs) addRow(result, before + stepMs, () => null);
    addRow(result, timestamp, (key, name) => body[key]?.[name]?.[row] ?? null);
    before = timestamp;
  });
  return result;
}

function addRow(result, timestampMs, valueOf) {
  result.seconds.push(timestampMs / 1000);
  for (const { key } of QUANTITIES) {
    for (const name of ["mean", "minimum", "maximum", "uncertainty"]) result[key][name].push(valueOf(key, name));
  }
}

function showFailure(reason) {
  setBusy(false);
  element("charts").classList.add("old");
  element("chart-note").className = "small problem";
  element("chart-note").textContent = `✕ The history could not be read: ${reason}. What is shown is not up to date.`;
}

function setBusy(busy) {
  element("charts").setAttribute("aria-busy", String(busy));
}

/* Show the values at a point of the chart, of the newest one if there is none. */
function showLegend(index) {
  if (columns === null) return;
  const row = index ?? columns.seconds.length - 1;
  const time = columns.seconds[row];
  const when = index === null ? "Newest: until" : "Until";
  element("moment").textContent = time === undefined ? "" : `${when} ${momentText(time * 1000)}`;
  for (const quantity of QUANTITIES) {
    const caption = document.querySelector(`figure[data-quantity=${quantity.key}] figcaption`);
    caption.replaceChildren(...legendOf(quantity, row));
  }
}

function momentText(stepEndMs) {
  return timeText(Math.min(stepEndMs, endMs), "moment");
}

function legendOf(quantity, row) {
  const { mean, minimum, maximum } = columns[quantity.key];
  const text = (number) => numberText(number, decimalsOf(quantity), quantity.signed);
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = quantity.name;
  const value = document.createElement("strong");
  value.textContent = meanText(quantity, row);
  const extremes = document.createElement("span");
  extremes.className = "small";
  extremes.textContent = isNumber(mean[row]) ? `${text(minimum[row])} to ${text(maximum[row])}` : "";
  return [name, value, extremes];
}

/* A mean has digits of its own: it is less sure than a sample where samples scatter. */
function meanText(quantity, row) {
  const { mean, uncertainty } = columns[quantity.key];
  const decimals = decimalsFor(uncertainty[row], decimalsOf(quantity));
  return valueText(mean[row], decimals, quantity.unit, quantity.signed);
}

function moveCursor() {
  const slider = element("cursor");
  const row = Number(slider.value);
  charts.forEach((chart) => chart.point(row));
  showLegend(row);
  const values = QUANTITIES.map((quantity) => `${quantity.name} ${meanText(quantity, row)}`);
  slider.setAttribute("aria-valuetext", `${momentText(columns.seconds[row] * 1000)}: ${values.join(", ")}`);
}

/* The chart in words: from where to where each quantity went, and what is missing. */
function summaryText(body) {
  const parts = QUANTITIES.map((quantity) => {
    const minima = columns[quantity.key].minimum.filter(isNumber);
    if (minima.length === 0) return `${quantity.name}: ${NO_VALUE}.`;
    const text = (value) => numberText(value, decimalsOf(quantity), quantity.signed);
    const least = minima.reduce((a, b) => Math.min(a, b));
    const greatest = columns[quantity.key].maximum.filter(isNumber).reduce((a, b) => Math.max(a, b));
    return `${quantity.name}: ${text(least)} to ${valueText(greatest, decimalsOf(quantity), quantity.unit, quantity.signed)}.`;
  });
  const missingS = (body.to - body.from) / 1000 - coveredS(body);
  const isGap = missingS > (2.5 * lastAnswer().report_interval_ms) / 1000; // the open interval is none
  const missing = isGap ? ` Without values: ${durationText(missingS)}.` : "";
  return `In the last ${chosen().words}: ${parts.join(" ")}${missing}`;
}

/* For how many seconds there are values; of one meter alone, which gives no energy, the steps that have some. */
function coveredS(body) {
  const seconds = (body.coverage_s ?? []).filter(isNumber).reduce((sum, each) => sum + each, 0);
  return seconds > 0 ? seconds : (stepMs * body.timestamp.length) / 1000;
}

let tableRequest = null;

/* Fill the table if it is open; its rows are means over longer steps, made by the power monitor. */
async function fillTable() {
  const toMs = serverTimeMs();
  if (!element("table-details").open || toMs === null) return;
  tableRequest?.abort();
  const request = (tableRequest = new AbortController());
  const deadline = setTimeout(() => request.abort(), DEADLINE_MS);
  const { spanMs, rowMs } = chosen();
  const reportMs = lastAnswer().report_interval_ms;
  const step = Math.max(1, Math.round(rowMs / reportMs)) * reportMs;
  const query = `from=${Math.floor(toMs - spanMs)}&to=${Math.floor(toMs)}&step=${step}`;
  const [body, reason] = await fetchJson(`api/history?${query}`, request.signal);
  clearTimeout(deadline);
  if (tableRequest !== request) return; // another one has taken its place
  const note = element("table-note");
  note.textContent = body ? `Means, each over ${durationText(step / 1000)}.` : `✕ The table could not be read: ${reason ?? "there is no answer"}.`;
  if (body) element("table-details").querySelector("tbody").replaceChildren(...body.points.toReversed().map((point) => tableRow(point, toMs)));
}

function tableRow(point, toMs) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = timeText(Math.min(point.timestamp, toMs), "row");
  const means = QUANTITIES.map((quantity) => {
    const { mean, uncertainty } = point[quantity.key] ?? {};
    return numberText(mean, decimalsFor(uncertainty, decimalsOf(quantity)), quantity.signed);
  });
  const energies = [point.energy_in_kwh, point.energy_out_kwh].map((energy) => numberText(energy, 3));
  const cells = [...means, ...energies].map((text) => {
    const cell = document.createElement("td");
    cell.textContent = text;
    return cell;
  });
  row.append(head, ...cells);
  return row;
}

/* The charts take their colours from the page: drawn anew when those change, and light on paper. */
function watchColours() {
  const redraw = () => charts.forEach((chart) => chart.redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const [event, on] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(event, () => {
      document.documentElement.classList.toggle("paper", on);
      redraw();
    });
  }
}
