/* One chart over time, by uPlot: the mean as a line, a band from the least to the greatest value, gaps left empty. */

/* global uPlot */
import { numberText, timeText } from "./format.js";

const HOUR_S = 3600;
const DAY_S = 24 * HOUR_S;
const TIME_STEPS_S = [60, 120, 300, 600, 900, 1800, HOUR_S, 2 * HOUR_S, 3 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S, DAY_S, 2 * DAY_S, 5 * DAY_S, 7 * DAY_S];
const VALUE_STEPS = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4].flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
const LEAST_SPAN = { voltage_v: 0.2, current_a: 1, power_kw: 0.05 };

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Chart {
  #plot = null;
  #place;
  #quantity;
  #range = [0, 1];

  /* `onCursor(index or null)` is called when the cursor is at a point of the data, or leaves. */
  constructor(place, quantity, onCursor) {
    this.#place = place;
    this.#quantity = quantity;
    this.onCursor = onCursor;
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(place);
  }

  /* Show columns: seconds, mean, minimum, maximum; the axis goes from `fromS` to `toS`. */
  show(columns, fromS, toS) {
    this.#range = [fromS, toS];
    if (this.#plot === null) this.#plot = new uPlot(this.#options(), columns, this.#place);
    else this.#plot.setData(columns);
  }

  /* Set the cursor to a point. */
  point(index) {
    const left = this.#plot.valToPos(this.#plot.data[0][index], "x");
    this.#plot.setCursor({ left, top: this.#plot.over.clientHeight / 2 });
  }

  redraw() {
    this.#plot?.redraw();
  }

  #size() {
    return { width: Math.max(200, Math.floor(this.#place.clientWidth)), height: this.#place.clientHeight };
  }

  #options() {
    const colour = () => style(`--${this.#quantity.key.replace("_", "-")}`);
    const grid = { stroke: () => style("--grid"), width: 1 };
    const text = { stroke: () => style("--ink"), font: "12px system-ui, sans-serif", ticks: grid, grid };
    const edge = { width: 0, points: { show: false } };
    return {
      ...this.#size(),
      padding: [8, 14, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "history" }, drag: { x: false, y: false }, y: false, points: { size: 8 } },
      scales: { x: { range: () => this.#range }, y: { range: (_plot, least, greatest) => this.#valueRange(least, greatest) } },
      axes: [
        { ...text, size: 28, space: 56, incrs: TIME_STEPS_S, values: (_plot, ticks) => ticks.map((tick) => this.#tickText(tick)) },
        { ...text, size: 48, space: 20, incrs: VALUE_STEPS, values: (_plot, ticks) => valueTexts(ticks) },
      ],
      series: [{}, { stroke: colour, width: 1.75, points: { size: 4, fill: colour, filter: alone } }, edge, edge],
      bands: [{ series: [3, 2], fill: () => style(`--${this.#quantity.key.replace("_", "-")}-band`) }],
      hooks: { setCursor: [(plot) => this.onCursor(plot.cursor.idx ?? null)] },
    };
  }

  /* A current that stands still does not fill the chart with its noise; zero is always on it for what has a sign. */
  #valueRange(least, greatest) {
    if (least === null) return [0, 1];
    let [low, high] = this.#quantity.signed ? [Math.min(0, least), Math.max(0, greatest)] : [least, greatest];
    const lacking = LEAST_SPAN[this.#quantity.key] - (high - low);
    if (lacking > 0) [low, high] = [low - lacking / 2, high + lacking / 2];
    const margin = (high - low) * 0.06;
    return [low - margin, high + margin];
  }

  #tickText(tickS) {
    const at = new Date(tickS * 1000);
    const span = this.#range[1] - this.#range[0];
    if (span > 10 * DAY_S) return timeText(at, "date");
    if (at.getHours() === 0 && at.getMinutes() === 0) return timeText(at, "day");
    return timeText(at, "time");
  }
}

/* The numbers of an axis, all with the decimals that tell them apart. */
function valueTexts(ticks) {
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  const decimals = Math.min(5, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  return ticks.map((tick) => numberText(tick, decimals));
}

/* The points that have a neighbour on neither side: no line is drawn to them, so a dot is. */
function alone(plot, series) {
  const values = plot.data[series];
  const isGap = (value) => value === null || value === undefined;
  return [...values.keys()].filter((i) => !isGap(values[i]) && isGap(values[i - 1]) && isGap(values[i + 1]));
}
