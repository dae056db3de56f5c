// The form: a visitor's own commands, and their arrival in the read models.

import { $, count, element, fetchJson, money, span } from "./dom.js";
import { arrivedAt, hasValues, isArrived, way } from "./dialogs.js";

const PRODUCTS = [
  ["red mug", "3.50", "c1a54a3e-2b52-4f0c-8b61-8f3e2f1d7b02", "5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a01"],
  ["blue teapot", "24.90", "c1a54a3e-2b52-4f0c-8b61-8f3e2f1d7b02", "5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a02"],
  ["oak chair", "129.00", "a0c7c9c4-3c43-4d0f-9d53-5f0f6f0f7c11", "5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a03"],
  ["wool blanket", "59.95", "a0c7c9c4-3c43-4d0f-9d53-5f0f6f0f7c11", "5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a04"],
  ["desk lamp", "42.00", "e7f5b1a2-9d0e-4b7c-8f27-3f6d2a1c5d21", "5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a05"],
  ["notebook", "6.25", "e7f5b1a2-9d0e-4b7c-8f27-3f6d2a1c5d21", "5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a06"],
];
const OWN_VENDOR = "e7f5b1a2-9d0e-4b7c-8f27-3f6d2a1c5d21";

const WATCH_MS = 200;

// After this time rows are not read any more, and a command that has not arrived is asked for less often.
const QUICK_MS = 30000;
const SLOW_MS = 2000;

function id() {
  if (crypto.randomUUID) return crypto.randomUUID();
  // Only secure contexts have randomUUID; a page over plain HTTP on another host has not.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export function startShop(dialogs) {
  const kept = sessionStorage.getItem("cart");
  const cart = kept ?? id();
  sessionStorage.setItem("cart", cart);
  dialogs.settings.then((settings) => {
    if (settings.hasShop) start(cart, kept !== null, dialogs);
  });
}

function start(cart, hasHistory, dialogs) {
  $("shop").hidden = false;
  const own = $("own-cart");
  own.textContent = cart.slice(0, 8);
  own.setAttribute("aria-label", `history of your cart ${cart.slice(0, 8)}`);
  own.addEventListener("click", () => dialogs.cart(cart));
  const items = new Map();
  let sent = 0;

  const message = (words, isError) => {
    $("shop-message").textContent = words;
    $("shop-message").dataset.state = isError ? "different" : "";
  };

  async function send(path, body) {
    sent += 1;
    const answer = await fetchJson(`/api/shop/${cart}/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    if (answer.status >= 400) throw new Error(answer.body?.detail ?? answer.body?.title ?? `ingest answered ${answer.status}`);
    return answer;
  }

  async function add(item) {
    try {
      const answer = await send("items", item);
      items.set(item.productId, answer.body?.item ?? item);
      message(answer.status === 202 ? "accepted, but not decided yet" : `added, after ${answer.tookMs} ms: version ${answer.body.version}`);
      watch(answer.body?.commandId, answer.status === 202);
    } catch (error) {
      message(error.message, true);
    }
    basket();
  }

  function basket() {
    $("basket").replaceChildren(...[...items.values()].map((item) => element("li", null, `${count(item.quantity)} × ${item.name} `, element("span", { class: "amount" }, money(item.price)))));
    $("checkout").disabled = items.size === 0;
  }

  for (const [name, price, vendorId, productId] of PRODUCTS) {
    $("products").append(element("button", { type: "button", onclick: () => add({ productId, vendorId, name, price, quantity: 1 }) }, element("span", null, name), element("b", null, money(price))));
  }
  $("own-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = event.target;
    add({ productId: id(), vendorId: OWN_VENDOR, name: form.elements.name.value, price: form.elements.price.value, quantity: Number(form.elements.quantity.value) });
  });
  $("checkout").addEventListener("click", async () => {
    try {
      const answer = await send("checkout", {});
      const isUndecided = answer.status === 202;
      if (isUndecided) message("the checkout is accepted, but not decided yet");
      else {
        message(`bought, after ${answer.tookMs} ms. Now watch it arrive:`);
        items.clear();
        basket();
      }
      await watch(answer.body?.commandId, isUndecided);
    } catch (error) {
      message(error.message, true);
    }
  });
  basket();
  if (hasHistory) load();

  // The cart as its journal has it: that of an earlier visit, or after an outcome that came late.
  async function load() {
    const before = sent;
    const history = await fetchJson(`/api/carts/${cart}`).catch(() => null);
    if (!history || history.isCut || sent !== before) return;
    items.clear();
    for (const item of history.items) items.set(item.productId, item);
    basket();
  }

  let watching = 0;
  async function watch(commandId, isUndecided) {
    if (!commandId) return;
    const ticket = (watching += 1);
    const until = Date.now() + QUICK_MS;
    const list = $("arrivals");
    list.dataset.command = commandId;
    list.dataset.arrived = "false";
    while (ticket === watching) {
      const journey = await fetchJson(`/api/commands/${commandId}`).catch(() => null);
      if (ticket !== watching) return;
      const isLate = Date.now() > until;
      if (journey) {
        list.replaceChildren(...way(journey));
        list.dataset.arrived = String(isArrived(journey));
      }
      if (journey && isArrived(journey)) {
        const last = arrivedAt(journey);
        if (journey.became?.isRefused) message(`refused: ${journey.became.what}`, true);
        else if (last !== null) message(`bought, and in all tables after ${span(Math.max(0, last - journey.asked.atMs))}`);
        else if (isUndecided) message(`decided after ${span(Math.max(0, journey.became.atMs - journey.asked.atMs))}`);
        if (isUndecided) await load();
        // That a table includes it may be known before its row is read.
        if (hasValues(journey) || isLate) return;
      }
      await new Promise((resolve) => setTimeout(resolve, isLate ? SLOW_MS : WATCH_MS));
    }
  }
}
