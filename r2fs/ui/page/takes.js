// Takes of conflicts: side by side, each with a player, and a button that keeps one.
import { by, counted, make, moment, position, show, size, write } from "./text.js";
import { drawWave, peaksOf, waveform } from "./waveform.js";

const LETTERS = "ABCDEFGHIJ";
const STATES = { queued: "not sent yet", uploading: "on its way", dirty: "being written", parked: "parked" };

let last = null;
let players = []; // of all takes: one plays at a time
let updates = new Map(); // ref: the function that shows a take's changed facts

export function forget() {
  last = null;
  players = [];
  by("takes").replaceChildren();
  by("conflicts").hidden = true;
}

// `fileUrl(ref)` is a take's address; `keep(message)` is called with the choice.
export function draw(answer, fileUrl, keep) {
  by("conflicts").hidden = !answer.files.length;
  // A player goes on while its take is the same: what of it is here, and its state, are shown in place.
  const key = JSON.stringify(answer, (name, value) => (["whole", "state", "open"].includes(name) ? undefined : value));
  if (key === last) {
    for (const take of answer.files.flatMap((file) => file.takes)) updates.get(take.ref)(take);
    return;
  }
  last = key;
  players = [];
  updates = new Map();
  const number = answer.files.length + answer.more;
  write("conflicts-title", number === 1 ? "A conflict: two hosts wrote one name" : `${number} conflicts: two hosts wrote one name`);
  const more = answer.more ? `${counted(answer.more, "further file")} not shown.` : "";
  const hint = answer.why_not ? `Here they can only be heard: ${answer.why_not}.` : "Nothing is lost: listen, and keep one.";
  write("conflicts-hint", [hint, answer.note, more].filter(Boolean).join(" "));
  by("takes").replaceChildren(...answer.files.map((file) => fileCard(file, answer.why_not, fileUrl, keep)));
}

function fileCard(file, whyNot, fileUrl, keep) {
  const at = file.path.lastIndexOf("/") + 1;
  const title = make("h3", {}, make("span", {}, file.path.slice(0, at)), file.path.slice(at));
  const group = { waves: [], longest: 0 };
  const takes = file.takes.map((take, number) => takeCard(file, take, number, whyNot, group, fileUrl, keep));
  return make("article", { class: "file" }, title, make("div", { class: "takes" }, ...takes));
}

const letterOf = (number) => LETTERS[number] || String(number + 1);

function takeCard(file, take, number, whyNot, group, fileUrl, keep) {
  const letter = letterOf(number);
  const who = take.origin ? `of ${take.origin.host}, ${take.origin.day}` : "has the name now";
  const facts = make("p", { class: "facts" });
  const [wave, ...parts] = player(take, fileUrl(take.ref), group);
  const update = (now) => {
    const words = [size(now.size), moment(now.modified_at_s), now.state === "clean" ? null : STATES[now.state] || now.state];
    if (wave && wave.found) words.unshift(position(wave.found.seconds));
    facts.textContent = words.filter(Boolean).join(" · ");
    if (wave) wave.update(now);
  };
  updates.set(take.ref, update);
  if (wave) wave.told = () => update(take);
  update(take);
  const button = make(
    "button",
    { type: "button", class: "keep", disabled: Boolean(whyNot), onclick: () => ask(file, take, letter, keep) },
    "Keep this take",
  );
  return make(
    "section",
    { class: "take", "aria-label": `take ${letter}` },
    make("header", {}, make("b", { class: "letter" }, letter), make("p", {}, make("strong", {}, who), make("span", { class: "name" }, take.name))),
    ...parts,
    facts,
    button,
  );
}

// The wave, if the take has one, and the elements of its player.
function player(take, url, group) {
  if (!take.plays) return [null, make("p", { class: "hint" }, "No player for this kind of file. ", make("a", { href: url, download: true }, "Save a copy"))];
  const canvas = waveform();
  const note = make("p", { class: "elsewhere" });
  const audio = make("audio", { controls: true, preload: "none", src: url });
  const wave = { canvas, audio, found: null, told: () => {} };
  const redraw = () => drawWave(canvas, wave.found, group.longest, audio.currentTime);
  let wanted = false;
  wave.update = (now) => {
    note.textContent = now.whole ? "" : "In the bucket, not on this host: playing downloads it";
    if (wanted || !now.whole) return;
    wanted = true;
    peaksOf(now, url).then((found) => {
      wave.found = found;
      group.longest = Math.max(group.longest, found ? found.seconds : 0);
      wave.told();
      for (const each of group.waves) drawWave(each.canvas, each.found, group.longest, each.audio.currentTime);
    });
  };
  group.waves.push(wave);
  players.push(audio);
  audio.addEventListener("timeupdate", redraw);
  audio.addEventListener("seeked", redraw);
  audio.addEventListener("play", () => switchTo(audio));
  canvas.addEventListener("click", (event) => seek(event, wave, group));
  new ResizeObserver(redraw).observe(canvas);
  return [wave, make("div", { class: "screen" }, canvas, note), audio];
}

// One take plays at a time, and the next goes on where the one before was: the ear compares.
function switchTo(audio) {
  for (const other of players) {
    if (other === audio || other.paused) continue;
    other.pause();
    if (audio.currentTime === 0 && other.currentTime < (audio.duration || Infinity)) audio.currentTime = other.currentTime;
  }
}

function seek(event, wave, group) {
  if (!wave.found) return;
  const at = (event.offsetX / wave.canvas.clientWidth) * (group.longest || wave.found.seconds);
  if (at <= wave.found.seconds) wave.audio.currentTime = at;
  if (wave.audio.paused) wave.audio.play();
}

// ------------------------------------------------------------------ the choice
function ask(file, take, letter, keep) {
  const others = file.takes.filter((one) => one !== take);
  const named = `${others.length > 1 ? "takes" : "take"} ${others.map((one) => letterOf(file.takes.indexOf(one))).join(" and ")}`;
  const name = file.path.slice(file.path.lastIndexOf("/") + 1);
  write("choice-title", `Keep take ${letter}?`);
  write("choice-text", `${name} will be this take: ${size(take.size)}, ${moment(take.modified_at_s)}.`);
  write("choice-legend", others.length > 1 ? "The other takes" : "The other take");
  write("choice-aside", `Keep ${named} as well, under a name with “(other take)”`);
  write("choice-delete", `Delete ${named} for good`);
  by("choice-others").hidden = !others.length;
  show("choice-error", "");
  const dialog = by("choice");
  const radios = [...dialog.querySelectorAll("input")];
  radios[0].checked = true;
  const button = by("choice-keep");
  const chosen = () => radios.find((radio) => radio.checked).value;
  const label = () => {
    const deletes = chosen() === "delete" && others.length > 0;
    button.textContent = deletes ? `Keep take ${letter}, delete ${named}` : `Keep take ${letter}`;
    button.classList.toggle("danger", deletes);
  };
  for (const radio of radios) radio.onchange = label;
  label();
  by("choice-cancel").onclick = () => dialog.close();
  button.disabled = false;
  button.onclick = async () => {
    button.disabled = true;
    const seen = Object.fromEntries(file.takes.map((one) => [one.ref, one.evidence]));
    const failure = await keep({ original: file.ref, kept: take.ref, seen, then: chosen() });
    button.disabled = false;
    if (failure) show("choice-error", failure);
    else dialog.close();
  };
  dialog.showModal();
}
