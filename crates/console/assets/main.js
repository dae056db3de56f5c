// Takes the frames, one a second, and hands them to the panels.

import { $, text } from "./dom.js";
import { startPipeline } from "./pipeline.js";
import { startPanels } from "./panels.js";
import { startDialogs } from "./dialogs.js";
import { startOperations } from "./operations.js";
import { startShop } from "./shop.js";

// Frames come once a second. After this silence the page says that it is not live.
const SILENCE_MS = 4000;

const dialogs = startDialogs();
const pipeline = startPipeline($("pipeline"), dialogs);
const panels = startPanels(dialogs);
const operations = startOperations(dialogs);
startShop(dialogs);

let heardAt = 0;

function live(state, words) {
  $("live").dataset.state = state;
  text("live", words);
}

function listen() {
  const stream = new EventSource("/api/stream");
  stream.addEventListener("open", dialogs.fetchSettings);
  stream.addEventListener("message", (event) => {
    heardAt = Date.now();
    const frame = JSON.parse(event.data);
    live("up", "live");
    pipeline.show(frame);
    panels.show(frame);
    operations.show(frame);
  });
  // The browser tries again by itself, except after an answer that is no stream: 200 others are watching.
  stream.addEventListener("error", () => {
    live("away", "not connected");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, SILENCE_MS);
  });
}

setInterval(() => {
  if (heardAt && Date.now() - heardAt > SILENCE_MS) live("away", "no news");
}, 1000);

listen();
