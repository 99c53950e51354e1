// Cache map: a directory's names as areas of their sizes, each filled as far as its bytes are on this host.
import { by, counted, make, percent, show, size } from "./text.js";

const LEAST = 0.006; // of the map, for each name: a directory that is not listed yet can be opened
const LABEL = [64, 26]; // pixels of an area that has a label
const WORDY = 130; // pixels of an area that has a label with its size
const NEST = [110, 74]; // pixels of a directory whose names are drawn in it
const GAP = 3; // pixels between areas
const DRAWN = 120; // areas; the list below has all names
const STATES = { clean: "", queued: "waits", dirty: "being written", parked: "parked", local: "stays here" };

let last = null;
let again = () => {}; // draws the areas anew, in a map of another size

new ResizeObserver(() => again()).observe(by("map"));

export function forget() {
  last = null;
  again = () => {};
  by("map").replaceChildren();
  by("names").tBodies[0].replaceChildren();
}

// `open(ref)` is called for a directory that is chosen.
export function draw(level, path, open) {
  const key = JSON.stringify([level, path]);
  if (key === last) return;
  last = key;
  drawCrumbs(path, open);
  const unlisted = level.tiles.filter((tile) => tile.kind === "directory" && !tile.listed).length;
  const notes = [];
  if (!level.tiles.length) notes.push("Nothing is known to be in this directory.");
  if (unlisted) notes.push(`${counted(unlisted, "directory")} not listed in full yet: opening one lists it.`);
  if (level.more.names) notes.push(`${counted(level.more.names, "smaller name")} (${size(level.more.bytes)}) not shown.`);
  show("map-note", notes.join(" "));
  by("map").hidden = !level.tiles.length;
  again = () => keepFocus(by("map"), () => drawAreas(level.tiles.slice(0, DRAWN), open));
  again();
  keepFocus(by("names"), () => drawNames(level.tiles, open));
}

// Draws a part anew; the name that has the keyboard's focus keeps it.
function keepFocus(part, redraw) {
  const ref = part.contains(document.activeElement) ? document.activeElement.dataset.ref : null;
  redraw();
  if (ref) [...part.querySelectorAll("button")].find((button) => button.dataset.ref === ref)?.focus();
}

function drawCrumbs(path, open) {
  const parts = path ? path.split("/") : [];
  const buttons = [make("button", { type: "button", onclick: () => open("") }, "/")];
  parts.forEach((part, at) => {
    const ref = parts.slice(0, at + 1).join("/");
    const isLast = at === parts.length - 1;
    buttons.push(
      make("button", { type: "button", onclick: () => open(ref), "aria-current": isLast ? "page" : null }, nameOf(part)),
    );
  });
  by("crumbs").replaceChildren(...buttons);
}

// A part of a ref, for people: its bytes as UTF-8, others as replacement characters.
function nameOf(part) {
  const bytes = [];
  for (let at = 0; at < part.length; at += 1) {
    if (part[at] === "%") {
      bytes.push(parseInt(part.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(part.charCodeAt(at));
    }
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

function drawAreas(tiles, open) {
  const map = by("map");
  const { clientWidth: width, clientHeight: height } = map;
  map.replaceChildren(...areas(tiles, [0, 0, width || 1, height || 1], open, ""));
}

// The areas of names in a frame; a directory's own are drawn over its area, where there is room.
function areas(tiles, [left, top, width, height], open, kind) {
  const total = tiles.reduce((sum, tile) => sum + tile.bytes, 0) || 1;
  const places = squarified(tiles.map((tile) => tile.bytes / total + LEAST), width, height);
  return tiles.flatMap((tile, at) => {
    const [x, y, w, h] = places[at];
    const frame = [left + x, top + y, Math.max(1, w - GAP), Math.max(1, h - GAP)];
    if (!tile.tiles || !tile.tiles.length || w < NEST[0] || h < NEST[1]) return [area(tile, frame, open, kind)];
    const inside = [frame[0] + 5, frame[1] + 25, frame[2] - 10 + GAP, frame[3] - 30 + GAP];
    return [area(tile, frame, open, "nest"), ...areas(tile.tiles, inside, open, "inner")];
  });
}

function area(tile, [x, y, width, height], open, kind) {
  const isDirectory = tile.kind === "directory";
  const text = describe(tile);
  const labels = [];
  if (kind !== "nest") {
    labels.push(make("i"));
    labels[0].style.height = `${tile.bytes ? (100 * tile.here_bytes) / tile.bytes : 0}%`;
  }
  const share = `${percent(tile.here_bytes, tile.bytes)} %`;
  const whole = width < WORDY ? share : `${share} of ${size(tile.bytes)}`;
  const amount = tile.listed || tile.files ? whole : "not listed yet";
  const name = isDirectory ? `${tile.name}/` : tile.name;
  if (kind === "nest") labels.push(make("b", {}, name, make("small", {}, amount)));
  else if (width >= LABEL[0] && height >= LABEL[1]) labels.push(make("b", {}, name), height >= 2 * LABEL[1] ? make("small", {}, amount) : "");
  const classes = ["area", kind, tile.pending && kind !== "nest" ? "unsent" : "", isDirectory ? "directory" : ""].filter(Boolean).join(" ");
  const attributes = { class: classes, title: text, "aria-label": text };
  const made = isDirectory
    ? make("button", { ...attributes, type: "button", "data-ref": tile.ref, onclick: () => open(tile.ref) }, ...labels)
    : make("div", { ...attributes, role: "img" }, ...labels);
  Object.assign(made.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  return made;
}

function describe(tile) {
  const isDirectory = tile.kind === "directory";
  const words = [isDirectory ? `${tile.name}/` : tile.name];
  if (isDirectory) words.push(counted(tile.files, "file"));
  words.push(`${size(tile.here_bytes)} of ${size(tile.bytes)} here`);
  if (tile.pending) words.push(isDirectory ? `${counted(tile.pending, "change")} not sent yet` : STATES[tile.state] || tile.state);
  if (isDirectory && !tile.listed) words.push("not listed in full yet");
  return words.join(", ");
}

// Squarified treemap (Bruls, Huizing, van Wijk): [x, y, width, height] for each weight, which fall.
export function squarified(weights, width, height) {
  const sum = weights.reduce((a, b) => a + b, 0);
  const order = weights.map((weight, at) => [(weight * width * height) / sum, at]).sort((a, b) => b[0] - a[0]);
  const found = new Array(weights.length);
  let [x, y, w, h] = [0, 0, width, height];
  let at = 0;
  while (at < order.length) {
    const side = Math.min(w, h);
    const row = [order[at]];
    let area_ = order[at][0];
    while (at + row.length < order.length) {
      const next = order[at + row.length];
      if (worst([...row, next], area_ + next[0], side) > worst(row, area_, side)) break;
      row.push(next);
      area_ += next[0];
    }
    const thick = side ? area_ / side : 0;
    let along = 0;
    for (const [size_, number] of row) {
      const length = thick ? size_ / thick : 0;
      found[number] = w >= h ? [x, y + along, thick, length] : [x + along, y, length, thick];
      along += length;
    }
    if (w >= h) [x, w] = [x + thick, w - thick];
    else [y, h] = [y + thick, h - thick];
    at += row.length;
  }
  return found;
}

// The worst ratio of sides in a row along `side`.
function worst(row, area_, side) {
  const [most, least] = [row[0][0], row[row.length - 1][0]];
  const square = (side * side) / (area_ * area_);
  return Math.max(square * most, 1 / (square * least));
}

function drawNames(tiles, open) {
  const sorted = [...tiles].sort((a, b) => (b.kind === "directory") - (a.kind === "directory") || (a.name < b.name ? -1 : 1));
  by("names").tBodies[0].replaceChildren(
    ...sorted.map((tile) => {
      const isDirectory = tile.kind === "directory";
      const name = isDirectory
        ? make("button", { type: "button", class: "link", "data-ref": tile.ref, onclick: () => open(tile.ref) }, `${tile.name}/`)
        : make("span", {}, tile.name);
      const bar = make("div", { class: "bar", "aria-hidden": "true" }, make("i"));
      bar.firstChild.style.width = `${tile.bytes ? (100 * tile.here_bytes) / tile.bytes : 0}%`;
      const here = isDirectory && !tile.listed && !tile.files ? "?" : `${percent(tile.here_bytes, tile.bytes)} %`;
      const states = [isDirectory && tile.pending ? `${tile.pending} not sent` : STATES[tile.state] ?? tile.state, tile.pinned ? "pinned" : ""];
      return make(
        "tr",
        { class: tile.pending ? "unsent" : "" },
        make("th", { scope: "row" }, name),
        make("td", { class: "number" }, isDirectory && !tile.listed && !tile.files ? "" : size(tile.bytes)),
        make("td", { class: "share" }, bar, make("span", {}, here)),
        make("td", {}, states.filter(Boolean).join(", ")),
      );
    }),
  );
}
