// Small live plots. SVG by DOM calls; colours and strokes are the style sheet's.

import { h, replace, setAttribute, setText, svg } from "./dom.js";
import { clock } from "./format.js";
import { SPAN } from "./series.js";

const HEIGHT = 96;
const LEFT = 44;
const TOP = 6;
const BOTTOM = 16;
/** Points further apart are not joined: nothing was seen between them. */
const GAP = 25_000;

/**
 * legend: [{name, kind}] with kind one of a, b; axis: value → short text; least: the lowest top of the axis.
 * draw(lines: [{kind, points: [{at, value}]}], headline) shows them.
 */
export function plot({ title, unit, axis, least = 0, legend = [] }) {
  const figure = h("strong", { class: "figure" }, "–");
  const readout = h("span", { class: "readout" });
  const canvas = svg("svg", { class: "plot", role: "img", height: HEIGHT });
  const node = h(
    "section",
    { class: "tile" },
    h("h2", {}, title, unit && h("span", { class: "unit" }, ` ${unit}`), legend.map(({ kind, name, hint }) => h("span", { class: `legend ${kind}`, title: hint }, name))),
    h("p", { class: "headline" }, figure, readout),
    canvas,
  );
  const grid = svg("g", { class: "grid" });
  const curves = svg("g");
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  canvas.append(grid, curves, cursor);
  let width = 0;
  let shown = null;

  const draw = (lines, headline, now = Date.now()) => {
    shown = { lines, headline, now };
    setText(figure, headline);
    setAttribute(canvas, "aria-label", `${title}: ${headline} ${unit ?? ""}, the last five minutes`);
    if (width < 80) return;
    const values = lines.flatMap(({ points }) => points.map((point) => point.value).filter((value) => value !== null));
    const top = ceiling(Math.max(least, ...values));
    drawGrid(top);
    replace(curves, lines.map(({ kind, points }) => svg("path", { class: `curve ${kind}`, d: path(points, top, now) })));
  };

  const x = (at, now) => LEFT + (width - LEFT - 1) * (1 - (now - at) / SPAN);
  const y = (value, top) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);

  function path(points, top, now) {
    let d = "";
    let before = null;
    for (const { at, value } of points) {
      if (value === null || value === undefined) {
        before = null;
        continue;
      }
      const joined = before !== null && at - before < GAP;
      // A point alone would not be seen: a short stroke is.
      d += `${joined ? "L" : `M${(x(at, now) - 1).toFixed(1)} ${y(value, top).toFixed(1)}L`}${x(at, now).toFixed(1)} ${y(value, top).toFixed(1)}`;
      before = at;
    }
    return d;
  }

  let gridOf = "";
  function drawGrid(top) {
    const wanted = `${top} ${width}`;
    if (wanted === gridOf) return;
    gridOf = wanted;
    setAttribute(canvas, "viewBox", `0 0 ${width} ${HEIGHT}`);
    const marks = [0, top / 2, top].map((value) => [
      svg("line", { x1: LEFT, x2: width, y1: y(value, top), y2: y(value, top) }),
      svg("text", { x: LEFT - 6, y: y(value, top) + 3.5, "text-anchor": "end" }, axis(value)),
    ]);
    const times = [
      svg("text", { x: LEFT, y: HEIGHT - 2 }, "5 min ago"),
      svg("text", { x: width, y: HEIGHT - 2, "text-anchor": "end" }, "now"),
    ];
    replace(grid, marks, times);
  }

  canvas.addEventListener("pointermove", (event) => {
    if (!shown || width < 80) return;
    const at = shown.now - SPAN * (1 - (event.offsetX - LEFT) / (width - LEFT - 1));
    const near = shown.lines.map(({ points }) => nearest(points, at)).filter(Boolean);
    if (!near.length) return leave();
    setAttribute(cursor, "x1", x(near[0].at, shown.now));
    setAttribute(cursor, "x2", x(near[0].at, shown.now));
    setAttribute(cursor, "visibility", "visible");
    setText(readout, `${clock(near[0].at)}  ${near.map(({ value }) => axis(value)).join(" / ")}`);
  });
  const leave = () => {
    setAttribute(cursor, "visibility", "hidden");
    setText(readout, "");
  };
  canvas.addEventListener("pointerleave", leave);

  const observer = new ResizeObserver(([entry]) => {
    width = Math.floor(entry.contentRect.width);
    if (shown) draw(shown.lines, shown.headline, shown.now);
  });
  observer.observe(canvas);
  return { node, draw, dispose: () => observer.disconnect() };
}

function nearest(points, at) {
  let best = null;
  for (const point of points) {
    if (point.value === null || point.value === undefined) continue;
    if (!best || Math.abs(point.at - at) < Math.abs(best.at - at)) best = point;
  }
  return best && Math.abs(best.at - at) < GAP ? best : null;
}

/** The next of 1, 2, 4, 5 and 10 times a power of ten: halves of it are short to write. */
export function ceiling(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= most * 0.999) ?? 10 * power;
}
