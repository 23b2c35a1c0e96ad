/* Puts the page together: what is asked when, and what is shown every second. */

import { showHealth, takeStatus } from "./health.js";
import { startHistory } from "./history.js";
import { isLost, lastAnswer, showNow, takeFailure, takeLatest } from "./now.js";
import { Poller } from "./poller.js";

const history = startHistory();

const latest = new Poller({
  url: () => "api/latest",
  everyMs: () => Math.min(2000, Math.max(1000, lastAnswer()?.sample_interval_ms ?? 1000)),
  deadlineMs: 4000,
  onAnswer: (body, asked) => {
    takeLatest(body, asked);
    history.serverHeard();
  },
  onFailure: takeFailure,
});

const status = new Poller({
  url: () => "api/status",
  everyMs: () => 5000,
  deadlineMs: 8000,
  onAnswer: takeStatus,
  onFailure: () => showHealth(isLost()),
});

latest.now();
status.now();
function showAll() {
  showNow();
  showHealth(isLost());
}
setInterval(showAll, 1000);
document.addEventListener("visibilitychange", showAll); // what was hidden has grown old meanwhile
