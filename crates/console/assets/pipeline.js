// The picture of the pipeline: services, topics and tables, with what flows and what waits on every arrow.

import { count, rate, shape, span } from "./dom.js";

// Dots of an arrow in a second at most; above it one dot stands for more records.
const DOTS_MAX = 12;
const DOT_SECONDS = 1.5;

// Name, kind, and a line below it. The layouts give each node its centre.
const NODES = {
  client: ["HTTP", "client"],
  ingest: ["ingest", "service", "takes commands"],
  commands: ["cart-commands", "topic", "by cart"],
  processor: ["cart-processor", "service", "decides, in log order"],
  journal: ["cart_journal", "table", "Cassandra: the record"],
  replies: ["cart-replies", "topic"],
  events: ["cart-events", "topic", "by cart"],
  purchases: ["item-purchased-events", "service", "re-keys purchases"],
  purchased: ["item-purchased", "topic", "by vendor"],
  popular: ["popular-items", "service"],
  billing: ["vendor-billing", "service"],
  jdbc: ["vendor-billing-jdbc", "service"],
  quantity: ["item_quantity_by_day", "table", "Cassandra"],
  balance: ["balance_by_vendor", "table", "Cassandra"],
  vendors: ["vendor_billing", "table", "PostgreSQL"],
};

const SIZE = { client: [54, 34], service: [152, 52], topic: [132, 46], table: [158, 54] };

// From, to, what flows, and the group whose lag belongs there.
const ARROWS = [
  ["client", "ingest", "commands"],
  ["ingest", "commands", "commands"],
  ["commands", "processor", "commands", "cart-processor"],
  ["processor", "journal", "accepted"],
  ["processor", "replies", "outcomes"],
  ["replies", "ingest", "outcomes"],
  ["processor", "events", "events"],
  ["events", "purchases", "events", "item-purchased-events"],
  ["purchases", "purchased", "purchases"],
  ["purchased", "popular", "purchases", "popular-items"],
  ["purchased", "billing", "purchases", "vendor-billing"],
  ["purchased", "jdbc", "purchases", "vendor-billing-jdbc"],
  ["popular", "quantity", "purchases"],
  ["billing", "balance", "purchases"],
  ["jdbc", "vendors", "purchases"],
];

const WIDE = {
  width: 1440,
  height: 380,
  at: {
    client: [30, 62], ingest: [150, 62], commands: [330, 62], processor: [556, 62], journal: [766, 62],
    replies: [330, 168],
    events: [556, 236], purchases: [784, 236], purchased: [968, 236],
    popular: [1186, 134], billing: [1186, 236], jdbc: [1186, 338],
    quantity: [1358, 134], balance: [1358, 236], vendors: [1358, 338],
  },
};

const TALL = {
  width: 380,
  height: 1010,
  at: {
    client: [96, 26], ingest: [96, 98], commands: [96, 196], processor: [96, 316], journal: [288, 400],
    replies: [288, 196],
    events: [96, 430], purchases: [96, 546], purchased: [96, 650],
    popular: [96, 770], billing: [96, 870], jdbc: [96, 970],
    quantity: [292, 770], balance: [292, 870], vendors: [292, 970],
  },
};

const narrow = matchMedia("(max-width: 760px)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

function edge([x, y], [w, h], side) {
  return { l: [x - w / 2, y], r: [x + w / 2, y], t: [x, y - h / 2], b: [x, y + h / 2] }[side];
}

// Sides of the arrow's ends, by the positions of its nodes; a few go round a corner.
function sides(from, to, a, b) {
  const key = `${from}-${to}`;
  const special = {
    wide: { "processor-replies": "b-r", "replies-ingest": "l-b", "purchased-popular": "r-l", "purchased-jdbc": "r-l" },
    tall: { "processor-journal": "b-l", "processor-replies": "r-b", "replies-ingest": "t-r", "purchased-popular": "b-t", "purchased-billing": "l-l", "purchased-jdbc": "l-l" },
  }[narrow.matches ? "tall" : "wide"][key];
  if (special) return special.split("-");
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

export function startPipeline(host) {
  let arrows = [];
  let dots = null;
  let last = null;
  let weight = 1;

  function draw() {
    const layout = narrow.matches ? TALL : WIDE;
    const svg = shape("svg", { viewBox: `0 0 ${layout.width} ${layout.height}`, role: "img", "aria-labelledby": "pipeline-words" });
    svg.append(
      shape("title", { id: "pipeline-words" }, "The pipeline: commands go from ingest through Kafka to the processor, the journal and the read tables."),
      shape("defs", null, shape("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, shape("path", { class: "tip", d: "M0 0.8 L7 4 L0 7.2 z" }))),
    );
    const lines = shape("g", { class: "lines" });
    dots = shape("g", { class: "dots", "aria-hidden": "true" });
    const nodes = shape("g");
    const labels = shape("g", { class: "labels" });
    svg.append(lines, dots, nodes, labels);
    host.replaceChildren(svg);
    for (const [id, [name, kind, below]] of Object.entries(NODES)) {
      const [x, y] = layout.at[id];
      const group = shape("g", { class: `node ${kind}`, transform: `translate(${x} ${y})` }, ...box(name, kind));
      const low = kind === "table" ? 5 : 0;
      group.append(shape("text", { class: "name", y: (below ? -2 : 4) + low }, name));
      if (below) group.append(shape("text", { class: "below", y: 13 + low }, below));
      nodes.append(group);
    }
    arrows = ARROWS.map(([from, to, flow, group]) => {
      const [a, b] = [layout.at[from], layout.at[to]];
      const [s, e] = sides(from, to, a, b);
      const line = shape("path", { class: "line", "marker-end": "url(#tip)", d: path(edge(a, SIZE[NODES[from][1]], s), edge(b, SIZE[NODES[to][1]], e), s, e) });
      lines.append(line);
      const length = line.getTotalLength();
      const arrow = { flow, group, line, length, due: 0, rate: 0, dots: [] };
      if (group) {
        const middle = line.getPointAtLength(length / 2);
        const vertical = Math.abs(a[0] - b[0]) < 30 || s === e;
        const [dx, anchor] = vertical ? [s === e ? -6 : 10, "start"] : [0, "middle"];
        const top = vertical ? middle.y - 4 : middle.y - 9;
        arrow.waits = shape("text", { class: "waits", x: middle.x + dx, y: top, "text-anchor": anchor });
        arrow.oldest = shape("text", { class: "oldest", x: middle.x + dx, y: vertical ? top + 14 : middle.y + 17, "text-anchor": anchor });
        labels.append(arrow.waits, arrow.oldest);
      }
      return arrow;
    });
    // A rate once for each flow, where it begins.
    for (const [id, flow] of [["commands", "commands"], ["events", "events"], ["purchased", "purchases"], ["replies", "outcomes"]]) {
      const [x, y] = layout.at[id];
      const label = shape("text", { class: "rate", x, y: y + SIZE.topic[1] / 2 + 15, "text-anchor": "middle" });
      label.dataset.flow = flow;
      labels.append(label);
    }
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
    const most = Math.max(...Object.values(flows));
    weight = 1;
    while (most / weight > DOTS_MAX) weight *= 10;
    document.getElementById("scale").textContent = still.matches ? "" : weight === 1 ? "one dot = one record" : `one dot = ${count(weight)} records`;
    for (const arrow of arrows) {
      arrow.rate = flows[arrow.flow] / weight;
      arrow.line.classList.toggle("flows", flows[arrow.flow] > 0);
      if (!arrow.group) continue;
      const lag = frame.stages.find((stage) => stage.group === arrow.group)?.lag;
      arrow.waits.textContent = lag ? `${lag.isLeast ? "≥ " : ""}${count(lag.behind)} waiting` : "waiting: ?";
      arrow.oldest.textContent = lag && lag.behind > 0 ? `oldest ${span(lag.oldestWaitingMs)}` : "";
      const late = lag && lag.behind > 0 && lag.oldestWaitingMs > 5000;
      for (const label of [arrow.waits, arrow.oldest]) {
        label.classList.toggle("late", Boolean(late));
        label.classList.toggle("unknown", !lag);
        label.classList.toggle("none", Boolean(lag) && lag.behind === 0);
      }
    }
    for (const label of host.querySelectorAll(".rate")) label.textContent = `${rate(flows[label.dataset.flow])} / s`;
  }

  let before = performance.now();
  function move(now) {
    const seconds = Math.min((now - before) / 1000, 0.1);
    before = now;
    for (const arrow of arrows) {
      arrow.due += arrow.rate * seconds * (0.7 + 0.6 * Math.random());
      while (arrow.due >= 1) {
        arrow.due -= 1;
        const dot = shape("circle", { r: 3.4, class: `dot ${arrow.flow}` });
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
