// Amounts as text, and elements made of text: no string of a mount ever becomes markup.

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = Number(bytes) || 0;
  let unit = 0;
  while (Math.abs(value) >= (unit ? 1023.95 : 1023.5) && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

export function seconds(value) {
  const whole = Math.floor(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 2 * 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function position(value) {
  const whole = Math.floor(value);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Two digits that count below a cent, as r2fs cost prints.
export function dollars(amount) {
  if (!amount || amount >= 0.01) return `${(amount || 0).toFixed(2)} $`;
  const places = Math.min(1 - Math.floor(Math.log10(amount)), 12);
  return `${amount.toFixed(places).replace(/0+$/, "").replace(/\.$/, "")} $`;
}

export function counted(number, word) {
  if (number === 1) return `1 ${word}`;
  return `${number.toLocaleString("en")} ${/[rlt]y$/.test(word) ? `${word.slice(0, -1)}ies` : `${word}s`}`;
}

export function percent(part, whole) {
  if (!whole) return 0;
  // Neither 0 nor 100 while it is not exactly so.
  const exact = (100 * part) / whole;
  if (part <= 0) return 0;
  if (part >= whole) return 100;
  return Math.min(99, Math.max(1, Math.round(exact)));
}

export function moment(at) {
  return new Date(at * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString();
}

// make("p", {class: "hint", title: "…"}, "text", element)
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const by = (id) => document.getElementById(id);

export function write(id, text) {
  const place = by(id);
  if (place.textContent !== text) place.textContent = text;
  place.title = "";
}

export function show(id, text) {
  write(id, text);
  by(id).hidden = !text;
}
