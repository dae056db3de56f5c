// A command's way, a cart's history, and a group's partitions.

import { $, clock, closable, count, element, fetchJson, money, short, span } from "./dom.js";

const WATCH_MS = 400;

// The offsets of groups are read once a second.
const GROUP_MS = 1000;

const PIECES = "pieces by day";

const TABLES = [
  ["item_quantity_by_day", "Cassandra", PIECES],
  ["balance_by_vendor", "Cassandra", "turnover by month"],
  ["vendor_billing", "PostgreSQL", "turnover by month"],
];

function tableValue(included, meaning) {
  if (!included) return meaning;
  if (included.value === null) return `${meaning}; its projector is past it`;
  return meaning === PIECES ? `${count(included.value)} sold today` : `${money(included.value)} this month`;
}

// The steps of a command's way, with the time since its record.
export function way(journey) {
  const began = journey.asked.atMs;
  const steps = [];
  const add = (what, where, atMs, state, more) => {
    const since = atMs === null ? "…" : atMs === began ? clock(atMs) : `+${span(Math.max(0, atMs - began))}`;
    steps.push(element("li", { class: state, "data-step": what }, element("span", { class: "when" }, since), element("span", { class: "step" }, element("b", null, what), where && element("small", { class: "mono" }, where), more && element("small", null, more))));
  };
  add("cart-commands", `${journey.partition}/${journey.offset}`, began, "done", "the command is in the log: from here on it cannot get lost");
  if (journey.became) add(journey.became.isRefused ? "refused" : "accepted", "cart-replies", journey.became.atMs, journey.became.isRefused ? "refused" : "done", journey.became.what);
  else if (journey.events.length === 0) add("outcome", "", null, "waits");
  for (const event of journey.events) {
    add(event.name, `cart-events ${event.hop.partition}/${event.hop.offset}`, event.hop.atMs, "done", `${event.what} · version ${event.sequenceNumber}`);
    if (event.name !== "ItemPurchased") continue;
    const bought = event.purchase;
    add("item-purchased", bought ? `${bought.hop.partition}/${bought.hop.offset}` : "", bought ? bought.hop.atMs : null, bought ? "done" : "waits", bought ? `${money(bought.amount)} for vendor ${short(bought.vendorId)}` : "");
    const all = bought?.tables ?? TABLES.map(() => null);
    const arrived = all.every((included) => included !== null);
    const rows = TABLES.map(([table, store, meaning], index) => element("li", { class: all[index] ? "done" : "waits", "data-table": table, "data-value": all[index]?.value ?? "" },
      element("span", { class: "mono" }, table), element("small", null, store),
      element("span", { class: "when" }, all[index] ? `+${span(Math.max(0, all[index].atMs - began))}` : "…"),
      element("small", { class: "value" }, tableValue(all[index], meaning))));
    steps.push(element("li", { class: arrived ? "done" : "waits", "data-step": "tables" }, element("span", { class: "when" }, arrived ? `+${span(Math.max(0, Math.max(...all.map((one) => one.atMs)) - began))}` : "…"), element("div", { class: "step" }, element("b", null, "in all three tables"), element("ul", { class: "tables" }, ...rows))));
  }
  if (journey.eventsCount > journey.events.length) steps.push(element("li", { class: "note" }, `and ${count(journey.eventsCount - journey.events.length)} more events`));
  return steps;
}

export function isArrived(journey) {
  if (journey.became?.isRefused) return true;
  if (!journey.events.length) return false;
  return journey.events.every((event) => event.name !== "ItemPurchased" || (event.purchase && event.purchase.tables.every((table) => table !== null)));
}

// Whether the rows that include its purchases have been read.
export function hasValues(journey) {
  return journey.events.every((event) => !event.purchase || event.purchase.tables.every((table) => table !== null && table.value !== null));
}

// When the last table was seen to include the last purchase; null for a command that bought nothing.
export function arrivedAt(journey) {
  const times = journey.events.flatMap((event) => event.purchase?.tables.map((table) => table.atMs) ?? []);
  return times.length ? Math.max(...times) : null;
}

export function startDialogs() {
  let traceUrl = null;
  let answered;
  const settings = new Promise((resolve) => (answered = resolve));
  settings.then((found) => (traceUrl = found.traceUrl));
  // Without an answer they are asked for again when the stream opens. A later answer than the first changes nothing.
  const fetchSettings = () => fetchJson("/api/settings").then(answered, () => {});
  fetchSettings();

  const journeyDialog = $("journey");
  const cartDialog = $("cart");
  const groupDialog = $("group");
  closable(journeyDialog);
  closable(cartDialog);
  closable(groupDialog);
  let watching = 0;
  journeyDialog.addEventListener("close", () => (watching += 1));
  groupDialog.addEventListener("close", () => (watching += 1));

  async function journey(path) {
    const body = $("journey-body");
    const ticket = (watching += 1);
    body.replaceChildren(element("p", { class: "note" }, "looking it up"));
    if (!journeyDialog.open) journeyDialog.showModal();
    while (ticket === watching) {
      try {
        const found = await fetchJson(`/api/commands/${path}`);
        if (ticket !== watching) return;
        body.replaceChildren(...journeyBody(found));
        if (isArrived(found)) return;
      } catch (error) {
        body.replaceChildren(element("p", { class: "note" }, error.message));
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    }
  }

  function journeyBody(found) {
    const { asked } = found;
    const trace = asked.traceId && (traceUrl ? element("a", { href: traceUrl.join(asked.traceId), target: "_blank", rel: "noopener" }, asked.traceId) : element("span", { class: "mono" }, asked.traceId));
    return [
      element("p", { class: "lead" }, element("b", null, asked.kind), " ", asked.what),
      element("dl", null,
        element("dt", null, "cart"), element("dd", null, element("button", { type: "button", class: "link mono", onclick: () => { journeyDialog.close(); cart(asked.cartId); } }, asked.cartId)),
        element("dt", null, "command"), element("dd", { class: "mono" }, asked.commandId),
        trace && element("dt", null, "trace"), trace && element("dd", null, trace)),
      element("ol", { class: "way" }, ...way(found)),
    ];
  }

  // Answers may overtake each other while the slider is moved: only that to the last request is shown.
  let asked = 0;
  async function cart(cartId, version) {
    const body = $("cart-body");
    const ticket = (asked += 1);
    if (!cartDialog.open) {
      body.replaceChildren(element("p", { class: "note" }, "reading the journal"));
      cartDialog.showModal();
    }
    try {
      const history = await fetchJson(`/api/carts/${cartId}${version === undefined ? "" : `?version=${version}`}`);
      if (ticket === asked) showCart(body, history);
    } catch (error) {
      if (ticket === asked) body.replaceChildren(element("p", { class: "note" }, error.message));
    }
  }

  function showCart(body, history) {
    const newest = history.events.at(-1)?.version ?? 0;
    const place = `version ${history.version} of ${newest}${history.isCut ? " and more" : ""}`;
    const content = history.items.length
      ? element("table", null, element("tbody", null, ...history.items.map((item) => element("tr", null, element("td", null, `${count(item.quantity)} × ${item.name}`), element("td", { class: "number" }, money(item.amount))))), element("tfoot", null, element("tr", null, element("th", { scope: "row" }, "total"), element("td", { class: "number" }, money(history.total)))))
      : element("p", { class: "empty" }, history.version === 0 ? "before the first event" : "the cart is empty");
    const events = element("ol", { class: "events" }, ...history.events.map((event) => element("li", { "aria-current": event.version === history.version ? "step" : null, class: event.version > history.version ? "later" : "" }, element("button", { type: "button", class: "link", onclick: () => cart(history.cartId, event.version) }, element("span", { class: "mono" }, String(event.version)), " ", element("b", null, event.name), " ", event.what))));
    const at = body.querySelector(".at");
    if (at && body.dataset.cart === history.cartId && Number(body.querySelector("input").max) === newest) {
      // The slider stays the same element while it is moved.
      body.querySelector(".at").replaceChildren(content);
      body.querySelector("output").textContent = place;
      body.querySelector("input").value = history.version;
      body.querySelector(".events").replaceWith(events);
    } else {
      body.dataset.cart = history.cartId;
      const slider = element("input", { type: "range", id: "version", min: 0, max: newest, value: history.version, oninput: (event) => cart(history.cartId, Number(event.target.value)) });
      body.replaceChildren(
        element("p", { class: "lead mono" }, history.cartId),
        element("p", { class: "note" }, "The journal keeps every event. Move to any version to see the cart as it was."),
        element("label", { class: "slider", for: "version" }, element("output", null, place), slider),
        element("div", { class: "at" }, content),
        element("h3", null, "Events"),
        events,
        history.isCut ? element("p", { class: "note" }, "Only the first 1,000 events are shown, and the cart as it was after each of them.") : "",
      );
    }
    body.querySelector('[aria-current="step"]')?.scrollIntoView({ block: "nearest" });
  }

  async function group(name) {
    const body = $("group-body");
    const ticket = (watching += 1);
    body.replaceChildren(element("p", { class: "note" }, "looking it up"));
    groupDialog.showModal();
    while (ticket === watching) {
      const found = await fetchJson(`/api/groups/${name}`).catch((error) => ({ error }));
      if (ticket !== watching) return;
      body.replaceChildren(element("p", { class: "lead" }, element("b", { class: "mono" }, name)), ...(found.error ? [element("p", { class: "note" }, found.error.message)] : partitions(found)));
      await new Promise((resolve) => setTimeout(resolve, GROUP_MS));
    }
  }

  function partitions({ topic, partitions }) {
    const row = ({ partition, nextOffset, lag, owner }) => element("tr", { "data-partition": partition, "data-owner": owner ?? "" },
      element("th", { scope: "row", class: "number" }, String(partition)),
      element("td", { class: "number" }, nextOffset === null ? "–" : count(nextOffset)),
      element("td", { class: "number" }, `${lag.isLeast ? "≥ " : ""}${count(lag.behind)}`, lag.behind > 0 && element("small", null, `oldest ${span(lag.oldestWaitingMs)}`)),
      element("td", { class: owner ? "mono" : "late" }, owner ?? "none"));
    const head = [["Partition", "number"], ["Next offset", "number"], ["Waiting", "number"], ["Owner", ""]];
    return [
      element("p", { class: "note" }, "The partitions of ", element("span", { class: "mono" }, topic), ": the next record that the group processes, and the member that has the partition: instance, worker, host and process."),
      element("div", { class: "scroll" }, element("table", null,
        element("thead", null, element("tr", null, ...head.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
        element("tbody", null, ...partitions.map(row)))),
    ];
  }

  return { journey, cart, group, settings, fetchSettings };
}
