/* Asks one address over and over: one request at a time, each with a deadline, none in a hidden tab, slower while it fails.
 */

import { Stopwatch } from "./format.js";

const LONGEST_PAUSE_MS = 10_000;

export class Poller {
  #timer = 0;
  #request = null;
  #failures = 0;
  #job;

  /* `job` has url() (null: nothing to ask yet), everyMs(), deadlineMs, onAnswer(body, stopwatch since it was asked) and
   * onFailure(reason), where the reason is null if nobody answered, else what the answer says is wrong. */
  constructor(job) {
    this.#job = job;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.now()));
    window.addEventListener("pageshow", (event) => event.persisted && this.now());
    window.addEventListener("online", () => this.now());
  }

  /* Ask now; an answer that is still awaited is given up. */
  now() {
    this.#pause();
    if (!document.hidden) this.#ask();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#request = null;
  }

  async #ask() {
    const url = this.#job.url();
    if (url === null) return;
    const request = (this.#request = new AbortController());
    const deadline = setTimeout(() => request.abort(), this.#job.deadlineMs);
    const asked = new Stopwatch();
    const [body, reason] = await fetchJson(url, request.signal);
    clearTimeout(deadline);
    if (this.#request !== request) return; // given up, or another one has taken its place
    this.#request = null;
    this.#failures = body ? 0 : this.#failures + 1;
    const pauseMs = this.#job.everyMs() * 2 ** Math.max(0, this.#failures - 1);
    const longestMs = Math.max(LONGEST_PAUSE_MS, this.#job.everyMs());
    this.#timer = setTimeout(() => this.#ask(), Math.min(pauseMs, longestMs));
    if (body) this.#job.onAnswer(body, asked);
    else this.#job.onFailure(reason);
  }
}

/* [the body, null], or [null, what is wrong], or [null, null] where nobody answered in time. */
export async function fetchJson(url, signal) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", signal });
  } catch {
    return [null, null];
  }
  let body = null;
  try {
    body = await answer.json();
  } catch {
    return [null, signal.aborted ? null : `it gives an answer that cannot be read (${answer.status})`];
  }
  if (answer.ok && body !== null && typeof body === "object") return [body, null];
  return [null, String(body?.error ?? `it gives the answer ${answer.status}`)];
}
