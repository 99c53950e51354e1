// Bars and sparklines. Widths are set by the object model: the page's policy allows no style attributes.
import { make, percent } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

// A bar that is `part` of `whole` full.
export function fill(bar, part, whole, text) {
  if (!bar.firstChild) bar.append(make("i"));
  const share = percent(part, whole);
  bar.firstChild.style.width = `${whole ? Math.min(100, (100 * part) / whole) : 0}%`;
  if (bar.getAttribute("role") === "progressbar") {
    bar.setAttribute("aria-valuenow", share);
    bar.setAttribute("aria-valuetext", text);
  }
}

// A bar of parts, as large as their values.
export function parts(bar, values, text) {
  const sum = values.reduce((a, b) => a + b, 0);
  while (bar.childElementCount < values.length) bar.append(make("i"));
  values.forEach((value, number) => {
    bar.children[number].style.width = `${sum ? (100 * value) / sum : 0}%`;
  });
  bar.setAttribute("aria-label", text);
}

// A line of values, the newest at the right; `room` values wide.
export function spark(place, values, room, text) {
  let svg = place.firstChild;
  if (!svg) {
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 24");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    for (const name of ["area", "line"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
    place.append(svg);
  }
  svg.setAttribute("aria-label", text);
  const top = Math.max(1, ...values);
  const step = 100 / (room - 1);
  const first = 100 - (values.length - 1) * step;
  const points = values.map((value, at) => `${(first + at * step).toFixed(2)},${(23 - (21 * value) / top).toFixed(2)}`);
  const [area, line] = svg.children;
  if (points.length < 2) return;
  line.setAttribute("d", `M${points.join("L")}`);
  area.setAttribute("d", `M${first.toFixed(2)},24L${points.join("L")}L100,24Z`);
}
