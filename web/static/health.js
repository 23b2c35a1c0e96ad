/* "Is everything all right?": the answer of api/status in words, a colour and a symbol. */

import { Stopwatch, setText } from "./format.js";

const LOST_AFTER_S = 15;

const SYMBOLS = { ok: "✓", warning: "!", error: "✕", off: "–" };
const WORDS = { ok: "all right", warning: "look at this", error: "wrong", off: "not in use" };
const SHORT = { ok: "all right", warning: "look", error: "wrong" };
const OVERALL = { ok: "Yes, all is well.", warning: "Almost: look at this.", error: "No, something is wrong." };

const element = (id) => document.getElementById(id);
let status = null;
let asked = new Stopwatch(); // since the last good answer was asked for, or since the page was opened

export function takeStatus(body, stopwatch) {
  status = body;
  asked = stopwatch;
  showHealth(false);
}

/* Show it; `silent` while the power monitor does not answer at all. An old answer is not believed. */
export function showHealth(silent) {
  const lost = silent || asked.seconds() > LOST_AFTER_S;
  element("health").classList.toggle("old", lost);
  element("health-link").hidden = lost || status === null;
  if (lost) return showLine("overall", "error", "Not known: it does not answer.");
  if (status === null) return showLine("overall", "off", "Not known yet.");
  showLine("overall", status.overall, OVERALL[status.overall] ?? String(status.overall));
  showLine("health-link", status.overall, SHORT[status.overall] ?? String(status.overall), "badge ");
  const list = element("parts");
  const parts = Array.isArray(status.parts) ? status.parts : [];
  while (list.children.length > parts.length) list.lastElementChild.remove();
  while (list.children.length < parts.length) list.append(newPart());
  parts.forEach((part, index) => showPart(list.children[index], part));
  setText(element("version"), `PowerMonitorMiddleware ${status.version ?? ""}`);
}

function newPart() {
  const item = document.createElement("li");
  for (const name of ["symbol", "name", "state", "text"]) {
    const span = document.createElement("span");
    span.className = name;
    item.append(span, " ");
  }
  item.querySelector(".symbol").setAttribute("aria-hidden", "true");
  return item;
}

function showPart(item, part) {
  const state = part.state in SYMBOLS ? part.state : "error";
  item.className = state;
  setText(item.querySelector(".symbol"), SYMBOLS[state]);
  setText(item.querySelector(".name"), String(part.name));
  setText(item.querySelector(".state"), WORDS[state]);
  setText(item.querySelector(".text"), capitalised(String(part.text ?? "")));
}

const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function showLine(id, state, words, classes = "") {
  const place = element(id);
  const known = state in SYMBOLS ? state : "error";
  place.className = classes + known;
  setText(place.querySelector(".symbol"), SYMBOLS[known]);
  setText(place.querySelector(".words"), words);
}
