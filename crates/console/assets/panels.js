// The figures and lists: each takes what it needs from a frame.

import { $, count, element, minute, money, rate, shape, short, span, text } from "./dom.js";

const SPANS = ["1 min", "15 min", "today"];

export function startPanels(dialogs) {
  let last = null;
  let chosen = "15 min";

  const buttons = SPANS.map((name) =>
    element("button", { type: "button", role: "radio", "aria-checked": String(name === chosen), onclick: () => choose(name) }, name),
  );
  $("spans").append(...buttons);
  // As radio buttons: one stop for Tab, arrows move.
  $("spans").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = SPANS[(SPANS.indexOf(chosen) + step + SPANS.length) % SPANS.length];
    choose(next);
    buttons[SPANS.indexOf(next)].focus();
  });
  choose(chosen);

  function choose(name) {
    chosen = name;
    for (const button of buttons) {
      const isChosen = button.textContent === name;
      button.setAttribute("aria-checked", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
    }
    if (last) top(last);
  }

  function show(frame) {
    last = frame;
    figures(frame);
    curve(frame.curve);
    servers(frame);
    newest(frame.newest, dialogs);
    top(frame);
    balances(frame);
    audit(frame);
    generations(frame.readModels);
    text("viewers", count(frame.viewers));
  }

  function top(frame) {
    const lists = frame.top.find((one) => one.name === chosen);
    bars($("top-items"), lists.items, (line) => line.pieces, (line) => count(line.pieces), (line) => line.name ?? short(line.id));
    bars($("top-vendors"), lists.vendors, (line) => Number(line.turnover), (line) => money(line.turnover), (line) => element("span", { class: "mono" }, short(line.id)), (line) => line.name && `sells ${line.name}`);
  }

  return { show };
}

function figures(frame) {
  const per = (value) => rate(value / frame.recentSeconds);
  text("commands-rate", per(frame.recent.commands));
  text("events-rate", per(frame.recent.events));
  text("accepted", count(frame.window.accepted));
  text("refused", count(frame.window.refused));
  text("events", count(frame.window.events));
  for (const [name, step] of [["outcome", frame.steps.outcome], ["purchase", frame.steps.purchase]]) {
    text(`${name}-p50`, step ? span(step.p50Ms) : "–");
    text(`${name}-p99`, step ? span(step.p99Ms) : "–");
  }
  text("log-len", frame.logLen === null ? "–" : count(frame.logLen));
  text("total-purchases", count(frame.totals.purchases));
  text("total-turnover", money(frame.totals.turnover));
  const reading = frame.reading.find(([topic]) => topic === "item-purchased")?.[1];
  text("reading", reading && reading.of > 0 ? ` (still counting: ${Math.floor((100 * reading.done) / reading.of)} %)` : "");
}

// Two areas: accepted commands, and refused ones on top.
function curve(seconds) {
  const svg = $("curve");
  const most = Math.max(4, ...seconds.map(([accepted, refused]) => accepted + refused));
  const [width, height] = [240, 44];
  const x = (index) => ((index / (seconds.length - 1)) * width).toFixed(1);
  const y = (value) => (height - (value / most) * (height - 3)).toFixed(1);
  const area = (upper, lower) => {
    const there = seconds.map((one, index) => `${x(index)} ${y(upper(one))}`);
    const back = seconds.map((one, index) => `${x(index)} ${y(lower(one))}`).reverse();
    return `M${there.join(" L")} L${back.join(" L")} z`;
  };
  if (!svg.firstChild) svg.append(shape("path", { class: "accepted" }), shape("path", { class: "refused" }));
  svg.children[0].setAttribute("d", area(([accepted]) => accepted, () => 0));
  svg.children[1].setAttribute("d", area(([accepted, refused]) => accepted + refused, ([accepted]) => accepted));
}

function servers(frame) {
  // The audit has a panel of its own, and nothing else on the page needs it.
  const used = frame.servers.filter((server) => server.state !== "unused" && server.name !== "audit");
  const list = used.map((server) =>
    element("li", { class: server.state, title: server.error },
      element("span", { class: "lamp", "aria-hidden": "true" }), server.name,
      server.state === "away" && element("span", { class: "why" }, ` away for ${span(frame.atMs - server.sinceMs)}`),
      server.error && element("span", { class: "hidden" }, `: ${server.error}`),
    ),
  );
  $("servers").replaceChildren(...list);
}

const VERBS = { add: "add", remove: "remove", adjust: "change", checkout: "buy", batch: "batch" };

function newest(commands, dialogs) {
  const body = $("newest");
  // A row with the focus stays the same element, so that the keyboard does not lose its place.
  const known = new Map([...body.rows].map((row) => [row.dataset.place, row]));
  const rows = commands.map((command) => {
    const place = `${command.partition}/${command.offset}`;
    const state = command.isRefused === null ? "pending" : command.isRefused ? "refused" : "accepted";
    const before = known.get(place);
    if (before && before.dataset.state === state) return before;
    const row = element("tr", { "data-place": place, "data-state": state },
      element("td", null, element("button", { type: "button", class: "link row", onclick: () => dialogs.journey(`${command.partition}/${command.offset}`) },
        element("b", null, VERBS[command.kind]), " ", command.what)),
      element("td", null, element("button", { type: "button", class: "link mono", title: "the cart's history", "aria-label": `history of cart ${short(command.cartId)}`, onclick: () => dialogs.cart(command.cartId) }, short(command.cartId))),
      element("td", null, element("span", { class: `tag ${state}` }, state), command.isRefused ? element("small", { class: "why", title: command.outcome }, command.outcome) : null),
      element("td", { class: "number" }, command.tookMs === null ? "…" : span(command.tookMs)),
    );
    if (before && before.contains(document.activeElement)) {
      const index = [...before.querySelectorAll("button")].indexOf(document.activeElement);
      queueMicrotask(() => row.querySelectorAll("button")[index]?.focus());
    }
    return row;
  });
  if (rows.length === 0) {
    body.replaceChildren(element("tr", null, element("td", { colspan: 4, class: "empty" }, "No command yet. Be the first: buy something.")));
    return;
  }
  if (rows.length !== body.rows.length || rows.some((row, index) => row !== body.rows[index])) {
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    body.replaceChildren(...rows);
    if (focused && body.contains(focused)) focused.focus();
  }
}

function bars(list, lines, size, label, name, below) {
  const most = Math.max(1e-9, ...lines.map(size));
  const items = lines.map((line) => {
    const bar = shape("svg", { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, shape("rect", { width: Math.max(0.5, (100 * size(line)) / most), height: 4 }));
    return element("li", { title: line.id, "data-id": line.id }, element("span", { class: "what" }, name(line), below && below(line) ? element("small", null, below(line)) : null), element("span", { class: "amount" }, label(line)), bar);
  });
  list.replaceChildren(...(items.length ? items : [element("li", { class: "empty" }, "nothing was sold")]));
}

function cell(of) {
  if (!of) return element("td", { class: "number" }, "–");
  const balance = of.balance === null ? "none yet" : money(of.balance);
  if (of.state === "equal") {
    const behind = of.behind > 0 ? `${count(of.behind)} to come` : "";
    return element("td", { class: "number equal", "data-state": "equal" }, balance, element("span", { class: "mark", title: "equal at the position of the table" }, " ✓"), element("span", { class: "hidden" }, "equal"), behind && element("small", null, behind));
  }
  if (of.state === "different") {
    return element("td", { class: "number different", "data-state": "different" }, balance, element("span", { class: "mark" }, " ✗"), element("small", null, `should be ${money(of.counted)}`));
  }
  return element("td", { class: "number", "data-state": "notYet" }, of.balance === null ? "–" : balance, element("small", { title: of.reason }, `not yet comparable: ${of.reason}`));
}

function balances(frame) {
  const rows = frame.balances.map((line) =>
    element("tr", { "data-vendor": line.vendorId },
      element("th", { scope: "row", title: line.vendorId }, element("span", { class: "mono" }, short(line.vendorId)), element("small", null, line.month)),
      element("td", { class: "number" }, money(line.counted)), cell(line.cassandra), cell(line.postgres)),
  );
  $("balances").replaceChildren(...(rows.length ? rows : [element("tr", null, element("td", { colspan: 4, class: "empty" }, "nothing was sold yet"))]));
  const cells = frame.balances.flatMap((line) => [line.cassandra, line.postgres]);
  const different = cells.filter((one) => one.state === "different").length;
  const equal = cells.filter((one) => one.state === "equal").length;
  const state = $("balances-state");
  state.dataset.state = different ? "different" : equal === cells.length && equal > 0 ? "equal" : "";
  state.textContent = different ? `${different} of ${cells.length} differ` : equal === cells.length && equal > 0 ? "all equal" : cells.length ? `${equal} of ${cells.length} equal, the others not yet comparable` : "";
}

// A line for each read table that has, or had, more than one generation.
function generations(models) {
  const shown = models.filter((model) => model.unknown || model.switched || model.generations.length > 1);
  $("generations").hidden = shown.length === 0;
  $("generations").replaceChildren(...shown.map((model) => element("li", { "data-model": model.name }, element("span", { class: "mono" }, model.table), ": ", generationsOf(model))));
}

function generationsOf({ generations, switched, unknown }) {
  if (unknown) return `its generations are not known: ${unknown}`;
  const one = ({ number, isActive, behind }) => {
    const waiting = behind ? `${behind.isMost ? "≤ " : ""}${count(behind.records)} waiting` : "waiting: ?";
    return `generation ${number}${isActive ? ", which readers see" : ""} (${waiting})`;
  };
  const since = switched ? `; since ${minute(switched.atMs)} UTC, by ${switched.by}${switched.reason ? `: ${switched.reason}` : ""}` : "";
  return generations.map(one).join(", ") + since;
}

function audit(frame) {
  const node = $("audit");
  const of = frame.audit;
  const server = frame.servers.find((one) => one.name === "audit");
  if (!of) {
    node.dataset.state = "";
    node.textContent = server.state === "away" ? `no audit is running, or it does not answer: ${server.error}` : "none running: start cartctl audit --watch, and this page with --audit-url";
    return;
  }
  node.dataset.state = of.findings > 0 ? "different" : of.audits > 0 ? "equal" : "";
  const findings = of.findings === 1 ? "1 finding" : `${count(of.findings)} findings`;
  const when = of.completedAtMs === null ? "" : `, ended ${span(frame.atMs - of.completedAtMs)} ago`;
  const failed = of.failures > 0 ? `; ${count(of.failures)} could not be made` : "";
  node.textContent = of.audits === 0 ? "the first one is not finished yet" : `${findings} in ${count(of.commands)} commands${when} (audit ${count(of.audits)}${failed})`;
}
