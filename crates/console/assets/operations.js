// What operators want and do: the panel of pauses, stops, skips, parked carts and parked rows, and a dialog in front of each action.

import { $, closable, count, element, fetchJson, minute, short } from "./dom.js";

// As cart-console checks it.
const REASON_MAX = 200;

export function startOperations(dialogs) {
  // What the page may do; nothing without --allow-operations.
  let allowed = null;
  let groups = [];
  const ask = startDialog();

  // Rows change only with what they show, so that the keyboard does not lose its place.
  let shown = "";

  dialogs.settings.then((settings) => {
    allowed = settings.operations;
    $("acts").hidden = $("acts-column").hidden = !allowed;
    shown = "";
  });
  $("pause").addEventListener("click", () => ask(allowed, pause(groups)));

  function show(frame) {
    groups = groupsOf(frame);
    const now = JSON.stringify([frame.operations, frame.parkedRows]);
    if (now === shown) return;
    shown = now;
    // There is none before the first look.
    const isKnown = frame.operations && frame.parkedRows;
    rows(frame.operations ?? NOTHING, frame.parkedRows ?? NO_ROWS, isKnown);
  }

  function rows(of, parked, isKnown) {
    const body = $("operations");
    const state = $("kept-state");
    // Its lists are empty; the others are shown.
    const unknown = [of.unknown, ...parked.unknown].filter(Boolean);
    const columns = allowed ? 4 : 3;
    const line = (kind, what, why, since, button) =>
      element("tr", { "data-kind": kind },
        element("td", null, element("span", { class: "tag refused" }, kind), " ", what),
        element("td", null, why), element("td", { class: "number" }, minute(since)),
        allowed && element("td", null, button));
    const act = (name, label, wanted) => allowed && element("button", { type: "button", class: "quiet small", "aria-label": label, onclick: () => ask(allowed, wanted) }, name);
    const by = (of) => [of.reason, element("small", null, `by ${of.by}`)];
    const partition = (pause) => (pause.partition === null ? "" : `, partition ${pause.partition}`) + (pause.beforeOffset === null ? "" : ` before offset ${count(pause.beforeOffset)}`);
    const more = (total, listed, what) => (total > listed ? [element("tr", null, element("td", { colspan: columns, class: "empty" }, `and ${count(total - listed)} more ${what}`))] : []);
    const row = (one) => `row ${one.row} of vendor ${one.vendorId} in ${one.group}`;
    const found = [
      ...of.pauses.map((pause) => line("paused", [element("span", { class: "mono" }, pause.group), partition(pause)], by(pause), pause.atMs, act("Resume", `resume ${pause.group}${partition(pause)}`, resume(pause)))),
      ...more(of.pausesCount, of.pauses.length, "pauses"),
      ...of.stops.map((stop) => line("stopped", [element("span", { class: "mono" }, stop.record), element("small", null, `in ${stop.group}`)], by(stop), stop.atMs, stop.sha256 && act("Skip", `skip ${stop.record} in ${stop.group}`, skip(stop)))),
      ...more(of.stopsCount, of.stops.length, "stopped partitions"),
      ...of.skips.map((skip) => line(skip.isDiscard ? "discarded" : "skipped", [element("span", { class: "mono" }, skip.record), element("small", null, `by ${skip.group}`)], by(skip), skip.atMs)),
      ...more(of.skipsCount, of.skips.length, "skips"),
      ...of.parked.map((cart) => line(cart.state, ["cart ", element("button", { type: "button", class: "link mono", "aria-label": `history of cart ${short(cart.cartId)}`, onclick: () => dialogs.cart(cart.cartId) }, short(cart.cartId))], cart.reason, cart.sinceMs, cart.state === "parked" && act("Retry", `try cart ${short(cart.cartId)} again`, retry(cart)))),
      ...more(of.parkedCount, of.parked.length, "parked carts"),
      ...parked.rows.map((one) => line(one.state, ["row ", element("span", { class: "mono", title: one.row }, rowName(one.row)), element("small", { title: one.vendorId }, `of vendor ${short(one.vendorId)}, in ${one.group}`)], [one.reason, element("small", null, `lacks ${one.record} and later`), one.retryBy && element("small", null, `another try by ${one.retryBy}`)], one.sinceMs, one.state === "parked" && act("Retry", `try ${row(one)} again`, retryRow(one)))),
      ...more(parked.count, parked.rows.length, "parked rows"),
    ];
    state.textContent = unknown.length ? `not known: ${unknown.join("; ")}` : "";
    // The button with the focus comes again, or its row is gone.
    const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    body.replaceChildren(...(found.length || unknown.length || !isKnown ? found : [element("tr", null, element("td", { colspan: columns, class: "empty" }, "nothing is paused, stopped, skipped or parked"))]));
    if (focused) ([...body.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === focused) ?? $("pause")).focus();
  }

  return { show };
}

const NOTHING = { pauses: [], pausesCount: 0, stops: [], stopsCount: 0, skips: [], skipsCount: 0, parked: [], parkedCount: 0, unknown: null };
const NO_ROWS = { rows: [], count: 0, unknown: [] };

// The groups that can be paused: of a read table those of all generations, as far as these are known.
function groupsOf(frame) {
  return frame.stages.flatMap(({ group, generation }) => {
    const known = frame.readModels.find((model) => model.name === group)?.generations ?? [];
    return known.length ? known.map((one) => one.group) : [generation > 1 ? `${group}-g${generation}` : group];
  });
}

// A month, or a day and a product.
function rowName(row) {
  const [time, product] = row.split(" ");
  return product ? `${time} of product ${short(product)}` : time;
}

// Each action: what the dialog says of it, and what is sent. `facts` and `body` belong together.

function pause(groups) {
  const group = element("select", { id: "act-group", autofocus: true }, ...groups.map((name) => element("option", null, name)));
  const partition = element("input", { id: "act-partition", type: "number", min: 0, placeholder: "all" });
  return {
    title: "Pause a group",
    button: "Pause",
    note: "Each member commits what it has read and stops. The pause holds, also over restarts, until the group is resumed. While cart-processor is paused, commands wait and clients get 202.",
    choice: [element("label", null, "Group", group), element("label", null, "Only this partition", partition)],
    facts: () => [["pauses", group.value], ["partition", partition.value === "" ? "all" : partition.value]],
    body: () => ({ action: "pause", group: group.value, partition: partition.value === "" ? null : Number(partition.value) }),
    reason: "required",
  };
}

function resume(of) {
  const isWhole = of.partition === null;
  return {
    title: isWhole ? "Resume a group" : "Resume a partition",
    button: "Resume",
    note: isWhole ? "Ends the pause of the group, and those of its partitions. It goes on exactly where it was." : "It goes on exactly where it was.",
    facts: () => [["resumes", of.group], ["partition", isWhole ? "all" : String(of.partition)], ["paused by", of.by], ["because", of.reason]],
    body: () => ({ action: "resume", group: of.group, partition: of.partition }),
    reason: "optional",
  };
}

function skip(of) {
  return {
    title: "Skip a record",
    button: "Skip",
    note: "The record is not applied, now or later: the skip holds for all generations of the table, also when it is built again. The audit reports the record as skipped.",
    facts: () => [["group", of.group], ["record", of.record], ["partition", String(of.partition)], ["offset", String(of.offset)], ["hash", `sha256:${of.sha256}`], ["stopped because", of.reason]],
    body: () => ({ action: "skip", group: of.group, partition: of.partition, offset: of.offset, sha256: of.sha256 }),
    reason: "required",
  };
}

function retry(of) {
  return {
    title: "Try a parked cart again",
    button: "Retry",
    note: "cart-processor tries the cart again, from its first waiting command on. If that fails, the cart is parked as before.",
    facts: () => [["cart", of.cartId], ["parked because", of.reason]],
    body: () => ({ action: "retry", cartId: of.cartId }),
  };
}

function retryRow(of) {
  return {
    title: "Try a parked row again",
    button: "Retry",
    note: "The projector adds the records that the row lacks, in their order, from the first one on. If one fails again, the row is parked as before.",
    facts: () => [["group", of.group], ["vendor", of.vendorId], ["row", of.row], ["lacks from", of.record], ["parked because", of.reason]],
    body: () => ({ action: "retryRow", group: of.group, vendorId: of.vendorId, row: of.row }),
  };
}

function startDialog() {
  const dialog = $("act");
  closable(dialog);
  // The row with the button may have changed meanwhile.
  dialog.addEventListener("close", () => {
    // The field with the token goes with the rest.
    $("act-body").replaceChildren();
    if (document.activeElement === document.body) $("pause").focus();
  });
  // Kept until the page is left, and nowhere else.
  let token = "";

  function say(words, state) {
    $("act-message").textContent = words;
    $("act-message").dataset.state = state;
  }

  async function send(wanted, needsToken) {
    say("in progress", "");
    try {
      const headers = { "content-type": "application/json" };
      if (needsToken) headers.authorization = `Bearer ${token}`;
      const answer = await fetchJson("/api/operations", { method: "POST", headers, body: JSON.stringify(wanted) });
      say(answer.done, "equal");
    } catch (error) {
      say(error.message, "different");
    }
  }

  return function ask({ needsToken }, { title, button, note, choice = [], facts, body, reason }) {
    const why = reason && element("input", { id: "act-reason", maxlength: REASON_MAX, required: reason === "required", autocomplete: "off", autofocus: choice.length === 0 });
    const secret = needsToken && element("input", { id: "act-token", type: "password", required: true, autocomplete: "off" });
    // As a property: an attribute would show it in the document's text.
    if (secret) secret.value = token;
    const list = element("dl");
    const describe = () => list.replaceChildren(...facts().flatMap(([name, value]) => [element("dt", null, name), element("dd", { class: "mono" }, value)]));
    const submit = (event) => {
      event.preventDefault();
      if (secret) token = secret.value.trim();
      const wanted = why ? { ...body(), reason: why.value } : body();
      dialog.close();
      send(wanted, needsToken);
    };
    describe();
    $("act-title").textContent = title;
    $("act-body").replaceChildren(element("form", { class: "act", onsubmit: submit, oninput: describe },
      ...choice,
      why && element("label", null, reason === "required" ? "Reason" : "Reason, if there is one", why),
      secret && element("label", null, "Token with the scope operator", secret),
      list,
      element("p", { class: "note" }, note),
      element("button", { type: "submit", class: "primary", id: "act-submit", autofocus: !why }, button)));
    dialog.showModal();
  };
}
