// The picture of the pipeline: services, topics and tables, with what flows and what waits on every arrow.

import { $, count, element, rate, shape, span } from "./dom.js";

// Dots of an arrow in a second at most; above it one dot stands for more records.
const DOTS_MAX = 12;
const WEIGHTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
const DOT_SECONDS = 1.5;

// Name, kind, a line below it, what is counted in a topic, and the group that keeps a table. The layouts give each node its centre.
const NODES = {
  client: ["HTTP", "client"],
  ingest: ["ingest", "service", "takes commands"],
  commands: ["cart-commands", "topic", "by cart", "commands"],
  processor: ["cart-processor", "service", "decides, in log order"],
  journal: ["cart_journal", "table", "Cassandra: the record"],
  replies: ["cart-replies", "topic", "", "outcomes"],
  events: ["cart-events", "topic", "by cart", "events"],
  purchases: ["item-purchased-events", "service", "re-keys purchases"],
  purchased: ["item-purchased", "topic", "by vendor", "purchases"],
  popular: ["popular-items", "service"],
  billing: ["vendor-billing", "service"],
  jdbc: ["vendor-billing-jdbc", "service"],
  quantity: ["item_quantity_by_day", "table", "Cassandra", undefined, "popular-items"],
  balance: ["balance_by_vendor", "table", "Cassandra", undefined, "vendor-billing"],
  vendors: ["vendor_billing", "table", "PostgreSQL", undefined, "vendor-billing-jdbc"],
};

const SIZE = { client: [54, 34], service: [170, 52], topic: [142, 46], table: [158, 54] };

// From, to, what flows (a count of the frame, or what a group processes), and the group whose lag belongs there.
const ARROWS = [
  ["client", "ingest", "commands"],
  ["ingest", "commands", "commands"],
  ["commands", "processor", "cart-processor", "cart-processor"],
  ["processor", "journal", "accepted"],
  ["processor", "replies", "outcomes"],
  ["replies", "ingest", "outcomes"],
  ["processor", "events", "events"],
  ["events", "purchases", "item-purchased-events", "item-purchased-events"],
  ["purchases", "purchased", "purchases"],
  ["purchased", "popular", "popular-items", "popular-items"],
  ["purchased", "billing", "vendor-billing", "vendor-billing"],
  ["purchased", "jdbc", "vendor-billing-jdbc", "vendor-billing-jdbc"],
  ["popular", "quantity", "popular-items"],
  ["billing", "balance", "vendor-billing"],
  ["jdbc", "vendors", "vendor-billing-jdbc"],
];

// The colour of the dots that leave a node, where it is not that of the flow.
const KINDS = { commands: "commands", events: "events", purchased: "purchases", popular: "purchases", billing: "purchases", jdbc: "purchases" };

// The seconds over which a group's rate is measured.
const RATE_MS = 6000;

const WIDE = {
  box: [0, 12, 1560, 336],
  at: {
    client: [28, 48], ingest: [168, 48], commands: [352, 48], processor: [618, 48], journal: [820, 48],
    replies: [352, 150],
    events: [618, 214], purchases: [874, 214], purchased: [1058, 214],
    popular: [1288, 114], billing: [1288, 214], jdbc: [1288, 314],
    quantity: [1478, 114], balance: [1478, 214], vendors: [1478, 314],
  },
  sides: { "processor-replies": "b-r", "replies-ingest": "l-b", "purchased-popular": "r-l", "purchased-jdbc": "r-l" },
};

const TALL = {
  box: [-22, 4, 410, 1024],
  at: {
    client: [96, 26], ingest: [96, 98], commands: [96, 190], processor: [96, 314], journal: [298, 398],
    replies: [298, 190],
    events: [96, 428], purchases: [96, 550], purchased: [96, 648],
    popular: [96, 788], billing: [96, 892], jdbc: [96, 996],
    quantity: [300, 788], balance: [300, 892], vendors: [300, 996],
  },
  sides: { "processor-journal": "b-l", "processor-replies": "r-b", "replies-ingest": "t-r", "purchased-popular": "b-t", "purchased-billing": "l-l", "purchased-jdbc": "l-l" },
};

const narrow = matchMedia("(max-width: 760px)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

function edge([x, y], [w, h], side) {
  return { l: [x - w / 2, y], r: [x + w / 2, y], t: [x, y - h / 2], b: [x, y + h / 2] }[side];
}

// Sides of the arrow's ends, by the positions of its nodes; a few go round a corner.
function sides(layout, from, to) {
  const special = layout.sides[`${from}-${to}`];
  if (special) return special.split("-");
  const [a, b] = [layout.at[from], layout.at[to]];
  if (Math.abs(a[1] - b[1]) < 30) return a[0] < b[0] ? ["r", "l"] : ["l", "r"];
  return a[1] < b[1] ? ["b", "t"] : ["t", "b"];
}

function path([x1, y1], [x2, y2], s, e) {
  const out = { l: [-1, 0], r: [1, 0], t: [0, -1], b: [0, 1] };
  const far = s === e ? 34 : Math.max(18, (Math.abs(x2 - x1) + Math.abs(y2 - y1)) * 0.32);
  const [[a, b], [c, d]] = [out[s], out[e]];
  return `M${x1} ${y1} C${x1 + a * far} ${y1 + b * far} ${x2 + c * far} ${y2 + d * far} ${x2} ${y2}`;
}

function box(name, kind) {
  const [w, h] = SIZE[kind];
  const rect = (attributes) => shape("rect", { x: -w / 2, y: -h / 2, width: w, height: h, class: "box", ...attributes });
  if (kind === "table") {
    const curve = (y) => `M${-w / 2} ${y} a${w / 2} 7 0 0 1 ${w} 0`;
    return [
      shape("path", { class: "box", d: `${curve(-h / 2 + 6)} v${h - 12} a${w / 2} 7 0 0 1 ${-w} 0 z` }),
      shape("path", { class: "rim", d: `M${-w / 2} ${-h / 2 + 6} a${w / 2} 7 0 0 0 ${w} 0` }),
    ];
  }
  if (kind === "topic") {
    const ticks = [];
    for (let x = -w / 2 + 17; x < w / 2 - 8; x += 17) ticks.push(shape("path", { class: "tick", d: `M${x} ${-h / 2} v5 M${x} ${h / 2} v-5` }));
    return [rect({ rx: 3 }), ...ticks];
  }
  return [rect({ rx: kind === "client" ? 17 : 10 })];
}

// Two texts, how many wait and how old the oldest is: above and below a level arrow, beside an upright one, and above the boxes
// of the services that share a topic.
function waiting(from, middle, to, side) {
  const label = (name, x, y, anchor) => shape("text", { class: name, x, y, "text-anchor": anchor });
  if (from === "purchased") {
    const y = to[1] - SIZE.service[1] / 2 - 8;
    return [label("waits", to[0] - SIZE.service[0] / 2 + 2, y, "start"), label("oldest brief", to[0] + SIZE.service[0] / 2 - 2, y, "end")];
  }
  if (side === "b") return [label("waits", middle.x + 12, middle.y - 3, "start"), label("oldest", middle.x + 12, middle.y + 13, "start")];
  return [label("waits", middle.x, middle.y - 10, "middle"), label("oldest", middle.x, middle.y + 20, "middle")];
}

export function startPipeline(host, dialogs) {
  // The labels of the picture are for the pointer; these also for the keyboard.
  const groups = ARROWS.flatMap(([, , , group]) => group ?? []);
  $("groups").append(...groups.map((group) => element("button", { type: "button", class: "link mono", "data-group": group, onclick: () => dialogs.group(group) }, group)));

  let arrows = [];
  let dots = null;
  let last = null;
  let weight = 1;

  function draw() {
    const layout = narrow.matches ? TALL : WIDE;
    const svg = shape("svg", { viewBox: layout.box.join(" "), role: "img", "aria-labelledby": "pipeline-words" });
    svg.append(
      shape("title", { id: "pipeline-words" }, "The pipeline: commands go from ingest through Kafka to the processor, the journal and the read tables."),
      shape("defs", null, shape("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerUnits: "userSpaceOnUse", markerWidth: 10, markerHeight: 10, orient: "auto" }, shape("path", { class: "tip", d: "M0 0.8 L7 4 L0 7.2 z" }))),
    );
    const lines = shape("g", { class: "lines" });
    dots = shape("g", { class: "dots", "aria-hidden": "true" });
    const nodes = shape("g");
    const labels = shape("g", { class: "labels" });
    svg.append(lines, dots, nodes, labels);
    host.replaceChildren(svg);
    for (const [id, [name, kind, below, flow, keeper]] of Object.entries(NODES)) {
      const [x, y] = layout.at[id];
      const group = shape("g", { class: `node ${kind}`, transform: `translate(${x} ${y})` }, ...box(name, kind));
      const low = kind === "table" ? 5 : 0;
      group.append(shape("text", { class: "name", y: (below || flow ? -3 : 4) + low }, name));
      if (below || flow) group.append(shape("text", { class: "below", y: 13 + low, "data-flow": flow, "data-key": below, "data-keeper": keeper }, below));
      nodes.append(group);
    }
    arrows = ARROWS.map(([from, to, flow, group]) => {
      const [a, b] = [layout.at[from], layout.at[to]];
      const [s, e] = sides(layout, from, to);
      const line = shape("path", { class: "line", "marker-end": "url(#tip)", d: path(edge(a, SIZE[NODES[from][1]], s), edge(b, SIZE[NODES[to][1]], e), s, e) });
      lines.append(line);
      const length = line.getTotalLength();
      const arrow = { flow, group, kind: KINDS[from] ?? flow, line, length, due: 0, rate: 0, dots: [] };
      if (group) {
        labels.append(...(arrow.labels = waiting(from, line.getPointAtLength(length / 2), b, s)));
        for (const label of arrow.labels) label.addEventListener("click", () => dialogs.group(group));
      }
      return arrow;
    });
    if (last) show(last);
  }

  function show(frame) {
    last = frame;
    const per = (value) => value / frame.recentSeconds;
    const flows = {
      commands: per(frame.recent.commands),
      accepted: per(frame.recent.accepted),
      outcomes: per(frame.recent.accepted + frame.recent.refused),
      events: per(frame.recent.events),
      purchases: per(frame.recent.purchases),
    };
    for (const stage of frame.stages) flows[stage.group] = processed(stage, frame.atMs);
    const most = Math.max(...Object.values(flows));
    weight = WEIGHTS.find((one) => most / one <= DOTS_MAX) ?? WEIGHTS.at(-1);
    document.getElementById("scale").textContent = still.matches ? "" : weight === 1 ? "one dot = one record" : `one dot = ${count(weight)} records`;
    for (const arrow of arrows) {
      arrow.rate = flows[arrow.flow] / weight;
      arrow.line.classList.toggle("flows", flows[arrow.flow] > 0);
      if (!arrow.group) continue;
      const lag = frame.stages.find((stage) => stage.group === arrow.group)?.lag;
      const [waits, oldest] = arrow.labels;
      waits.textContent = lag ? `${lag.isLeast ? "≥ " : ""}${count(lag.behind)} waiting` : "waiting: ?";
      oldest.textContent = lag && lag.behind > 0 ? `${oldest.classList.contains("brief") ? "" : "oldest "}${span(lag.oldestWaitingMs)}` : "";
      const late = lag && lag.behind > 0 && lag.oldestWaitingMs > 5000;
      for (const label of arrow.labels) {
        label.classList.toggle("late", Boolean(late));
        label.classList.toggle("unknown", !lag);
        label.classList.toggle("none", Boolean(lag) && lag.behind === 0);
      }
    }
    for (const label of host.querySelectorAll("[data-keeper]")) {
      const generation = frame.stages.find((stage) => stage.group === label.dataset.keeper)?.generation;
      label.textContent = generation > 1 ? `${label.dataset.key} · generation ${generation}` : label.dataset.key;
    }
    for (const label of host.querySelectorAll("[data-flow]")) {
      label.textContent = [`${rate(flows[label.dataset.flow])} / s`, label.dataset.key].filter(Boolean).join(" · ");
    }
  }

  // The rate at which a group processes records, from the growth of its count.
  const counts = new Map();
  function processed(stage, atMs) {
    const known = (counts.get(stage.group) ?? []).filter((one) => atMs - one.atMs <= RATE_MS);
    if (typeof stage.processed === "number" && known.at(-1)?.atMs !== atMs) known.push({ atMs, count: stage.processed });
    counts.set(stage.group, known);
    const [first, last] = [known[0], known.at(-1)];
    return known.length > 1 ? Math.max(0, (1000 * (last.count - first.count)) / (last.atMs - first.atMs)) : 0;
  }

  let before = performance.now();
  function move(now) {
    const seconds = Math.min((now - before) / 1000, 0.1);
    before = now;
    for (const arrow of arrows) {
      arrow.due += arrow.rate * seconds * (0.7 + 0.6 * Math.random());
      while (arrow.due >= 1) {
        arrow.due -= 1;
        const dot = shape("circle", { r: 3.4, class: `dot ${arrow.kind}` });
        dots.append(dot);
        arrow.dots.push({ dot, age: 0, takes: Math.max(0.5, Math.min(DOT_SECONDS, arrow.length / 130)) });
      }
      arrow.dots = arrow.dots.filter((moving) => {
        moving.age += seconds;
        const share = moving.age / moving.takes;
        if (share >= 1) {
          moving.dot.remove();
          return false;
        }
        const { x, y } = arrow.line.getPointAtLength(share * arrow.length);
        moving.dot.setAttribute("cx", x);
        moving.dot.setAttribute("cy", y);
        return true;
      });
    }
    requestAnimationFrame(move);
  }

  narrow.addEventListener("change", draw);
  draw();
  if (!still.matches) requestAnimationFrame(move);
  return { show };
}
