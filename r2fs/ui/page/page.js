// The page: which mount is shown, what is asked how often, and what is said when no answer comes.
import * as map from "./map.js";
import * as queue from "./queue.js";
import * as takes from "./takes.js";
import { by, clock, make, show, write } from "./text.js";

const EVERY = { status: 1000, cost: 15000, level: 5000, takes: 3000, mounts: 5000 }; // ms
const PATIENCE = { status: 8000, cost: 20000, level: 60000, takes: 20000, mounts: 10000, keep: 60000 }; // ms
// The daemon of a large tree sums for seconds: it is asked for a twentieth of the time.
const SUMS = ["level", "cost"];
const SOON = 300; // ms
const LONGEST = 120000; // ms
const DEAF = "does not answer";

const state = { mounts: [], mount: null, path: "", seen: null, conflicts: 0 };

// ------------------------------------------------------------------ requests
class Failure extends Error {}

async function get(route, parameters = {}) {
  return request(route, `${route}?${new URLSearchParams(parameters)}`, {});
}

async function post(route, message) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(message) };
  return request(route, route, options);
}

async function request(route, address, options) {
  const signal = AbortSignal.timeout(PATIENCE[route]);
  let answer;
  try {
    answer = await fetch(address, { ...options, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Failure(`r2fs ui ${DEAF}: nothing came for ${PATIENCE[route] / 1000} s.`);
    throw new Failure("r2fs ui has ended: start it again, and open the address that it prints.");
  }
  let value;
  try {
    value = await answer.json();
  } catch {
    throw new Failure("This address is of an r2fs ui that has ended: open the address that the running one has printed.");
  }
  if (value.error) throw new Failure(value.error);
  return value;
}

// ------------------------------------------------------------------ which mount, which directory: in the address
function place(mount, path) {
  return `#${new URLSearchParams({ mount, path })}`;
}

function fromAddress() {
  const of = new URLSearchParams(location.hash.slice(1));
  return { mount: of.get("mount"), path: of.get("path") || "" };
}

function arrive() {
  const { mount, path } = fromAddress();
  const known = state.mounts.find((one) => one.id === mount) || state.mounts[0];
  const id = known ? known.id : null;
  if (id !== state.mount) {
    state.mount = id;
    state.seen = null;
    state.conflicts = 0;
    for (const part of [queue, map, takes]) part.forget();
    show("notice", "");
  }
  state.path = known && known.id === mount ? path : "";
  drawMounts();
  if (id) {
    for (const loop of Object.values(loops)) loop.now();
    look(state.path);
  }
}

function open(ref) {
  location.hash = place(state.mount, ref);
}

function drawMounts() {
  by("mounts").replaceChildren(
    ...state.mounts.map((one) =>
      make("a", { href: place(one.id, ""), "aria-current": one.id === state.mount ? "page" : null, title: one.url }, one.mountpoint),
    ),
  );
  by("mounts").hidden = state.mounts.length < 2;
}

// ------------------------------------------------------------------ loops
const loops = {};

// Runs `work` again and again, one at a time, and not while nobody looks.
function loop(name, work) {
  let timer = 0;
  let running = false;
  let again = false;
  async function run() {
    clearTimeout(timer);
    if (running) {
      again = true;
      return;
    }
    running = true;
    const began = performance.now();
    try {
      if (!document.hidden) await work();
    } finally {
      running = false;
      const took = performance.now() - began;
      const pause = SUMS.includes(name) && took > SOON ? Math.max(EVERY[name], Math.min(20 * took, LONGEST)) : EVERY[name];
      timer = setTimeout(run, again ? 0 : pause);
      again = false;
    }
  }
  loops[name] = { now: run };
}

loop("mounts", async () => {
  try {
    const { mounts } = await get("mounts");
    const changed = JSON.stringify(mounts) !== JSON.stringify(state.mounts);
    state.mounts = mounts;
    if (changed) arrive();
    if (!mounts.length) alarm("Nothing is mounted: r2fs mount URL DIR. This page shows the mount as soon as it is there.");
    else if (by("alarm").textContent.startsWith("Nothing")) alarm("");
  } catch (error) {
    alarm(told(error));
  }
});

loop("status", async () => {
  const mount = state.mount;
  if (!mount) return;
  try {
    const status = await get("status", { mount });
    if (mount !== state.mount) return;
    const isFirst = !state.seen;
    state.seen = status;
    alarm("");
    write("where", status.mount.mountpoint);
    by("where").append(make("span", {}, status.mount.url));
    document.title = `${status.queue.left ? `↑ ${status.queue.left} · ` : ""}${status.mount.mountpoint} · r2fs`;
    health(status);
    queue.draw(status);
    if (status.queue.conflicts !== state.conflicts) {
      state.conflicts = status.queue.conflicts;
      loops.takes.now();
    }
    foot(status);
    if (isFirst) for (const part of ["cost", "level"]) loops[part].now();
    if (isFirst) look(state.path);
  } catch (error) {
    if (mount === state.mount) alarm(told(error));
  }
});

loop("cost", () => quietly("cost-detail", async (mount) => {
  const cost = await get("cost", { mount });
  if (mount === state.mount) queue.drawCost(cost);
}));

loop("takes", () => quietly("conflicts-hint", async (mount) => {
  if (!state.conflicts) return takes.forget();
  const answer = await get("takes", { mount });
  if (mount === state.mount) takes.draw(answer, fileUrl, keep);
}));

loop("level", () => quietly("map-note", async (mount) => {
  if (state.seen.is_mirror) show("map-note", "All files of a mirror are in its directory.");
  else await level(mount, state.path, {});
}));

// Does the work of one panel, whose errors stand in the panel: that of the whole mount is told by its status.
async function quietly(id, work) {
  const mount = state.mount;
  if (!mount || !state.seen) return;
  try {
    await work(mount);
  } catch (error) {
    if (mount === state.mount && by("alarm").hidden) show(id, told(error));
  }
}

async function level(mount, path, parameters) {
  const found = await get("level", { mount, path, ...parameters });
  if (mount === state.mount && path === state.path) map.draw(found, path, open);
}

// The mount reads the listing of a directory that somebody opens, as for `ls`.
function look(path) {
  if (path) quietly("map-note", (mount) => level(mount, path, { look: "1" }));
}

function fileUrl(ref) {
  return `file?${new URLSearchParams({ mount: state.mount, path: ref })}`;
}

// Returns the failure, if any.
async function keep(choice) {
  try {
    const kept = await post("keep", { mount: state.mount, ...choice });
    const others = [
      kept.aside.length ? `The other take is ${kept.aside.join(", ")}.` : "",
      kept.deleted.length ? `Deleted: ${kept.deleted.join(", ")}.` : "",
    ];
    show("notice", [`${kept.name} is the take that you chose.`, ...others].filter(Boolean).join(" "));
    loops.status.now();
    loops.level.now();
    return "";
  } catch (error) {
    return told(error);
  } finally {
    loops.takes.now();
  }
}

// ------------------------------------------------------------------ what is said
function told(error) {
  return error instanceof Failure ? error.message : `This page has a defect: ${error}`;
}

function alarm(text) {
  const stale = text && state.seen ? ` Shown is the state of ${clock(state.seen.at_s)}.` : "";
  if (by("alarm").dataset.text === text) return;
  by("alarm").dataset.text = text;
  show("alarm", text ? `${text}${stale}` : "");
  by("main").classList.toggle("stale", Boolean(text));
  if (text) {
    by("health").className = "health bad";
    write("health", state.mount ? "no answer" : "");
  }
}

function health(status) {
  const place_ = by("health");
  const { mount, answers } = status;
  const words = answers ? (mount.state === "running" ? "online" : mount.state) : "bucket away";
  place_.className = `health ${!answers ? "bad" : status.troubles.length || status.queue.conflicts ? "busy" : "good"}`;
  write("health", mount.read_only ? `${words}, read-only` : words);
}

function foot(status) {
  const other = status.daemon_version === status.version ? "" : ` · this page is of ${status.version}: r2fs restart replaces the daemon`;
  write("foot", `r2fs ${status.daemon_version} · ${status.mount.driver} · process ${status.mount.pid}${other}`);
}

window.addEventListener("hashchange", arrive);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const each of Object.values(loops)) each.now();
});
for (const each of Object.values(loops)) each.now();
