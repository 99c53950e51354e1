// Figures of a mount, and its transfers.
import { fill, parts, spark } from "./charts.js";
import { by, counted, dollars, make, percent, seconds, show, size, write } from "./text.js";

const SAMPLES = 120; // of the request rate, one a second
const SMOOTH = 5; // samples of the rate that is shown as a number
const WAITS = { queued: "waits", dirty: "being written", parked: "parked" };

let samples = [];
let before = null;

// Another mount is shown: no figure of the one before stays.
export function forget() {
  samples = [];
  before = null;
  for (const value of document.querySelectorAll(".figure .value")) value.textContent = "–";
  for (const place of document.querySelectorAll(".figure .detail")) [place.textContent, place.title] = ["", ""];
  for (const place of document.querySelectorAll(".figure .bar, .figure .chart")) place.replaceChildren();
  for (const id of ["transfers", "trouble-list"]) by(id).replaceChildren();
}

export function draw(status) {
  drawQueue(status.queue);
  drawRequests(status);
  drawCache(status.cache, status.is_mirror);
  drawTransfers(status.queue);
  drawTroubles(status.troubles);
}

function drawQueue(queue) {
  const changes = [];
  if (queue.files) changes.push(counted(queue.files, "file"));
  if (queue.directories) changes.push(counted(queue.directories, "directory"));
  if (queue.deletes) changes.push(counted(queue.deletes, "deletion"));
  write("queue-left", changes[0] || "All sent");
  const { sent } = queue;
  fill(by("queue-bar"), queue.left ? sent : 1, queue.left ? queue.bytes : 1, `${size(sent)} of ${size(queue.bytes)}`);
  by("queue-bar").classList.toggle("done", !queue.left);
  const pace = changes.slice(1);
  if (queue.files) pace.push(size(queue.bytes));
  if (queue.rate) pace.push(`${size(queue.rate)}/s`);
  if (queue.left_s !== null && queue.left_s !== undefined) pace.push(`${seconds(queue.left_s)} to go`);
  else if (queue.left && queue.oldest_s >= 1) pace.push(`oldest ${seconds(queue.oldest_s)}`);
  if (queue.parked) pace.push(`${queue.parked} parked`);
  const uploaded = `${counted(queue.uploaded, "file")} (${size(queue.uploaded_bytes)}) sent since the start`;
  write("queue-pace", queue.left ? pace.join(" · ") : uploaded);
}

function drawRequests({ requests, at_s: at, mount }) {
  if (requests.total === undefined || requests.total === null) {
    write("request-rate", "–");
    write("request-classes", "not counted for this kind of bucket");
    return;
  }
  if (before && before.pid === mount.pid && at > before.at) {
    samples.push(Math.max(0, (requests.total - before.total) / (at - before.at)));
    samples = samples.slice(-SAMPLES);
  }
  before = { pid: mount.pid, at, total: requests.total };
  const last = samples.slice(-SMOOTH);
  const rate = last.length ? last.reduce((a, b) => a + b, 0) / last.length : 0;
  write("request-rate", rate && rate < 0.05 ? "< 0.1 /s" : `${rate >= 10 ? rate.toFixed(0) : rate.toFixed(1)} /s`);
  spark(by("request-chart"), samples, SAMPLES, `requests a second in the last two minutes, ${rate.toFixed(1)} now`);
  const classes = ["class_a", "class_b", "free"].map((name) => requests[name].toLocaleString("en"));
  const repeated = requests.retries ? ` · ${requests.retries.toLocaleString("en")} repeated` : "";
  write("request-classes", `class A ${classes[0]} · B ${classes[1]} · free ${classes[2]}${repeated}`);
}

export function drawCost(cost) {
  const { storage, requests } = cost;
  const month = requests.per_month.dollars;
  write("cost-month", dollars(cost.dollars_per_month));
  const text = `storage ${dollars(storage.dollars_per_month)} · requests ${dollars(month)}`;
  parts(by("cost-parts"), [storage.dollars_per_month, month], text);
  write("cost-detail", text);
  by("cost-detail").title =
    `${counted(storage.objects, "object")}, ${size(storage.bytes)}${storage.listed ? "" : ", known so far"}; ` +
    `requests of ${seconds(cost.since_s)}, at this rate; before the free tier`;
}

function drawCache(cache, isMirror) {
  if (isMirror) {
    write("cache-used", "A mirror");
    write("cache-detail", "has no cache: all is in its directory");
    return;
  }
  write("cache-used", size(cache.bytes));
  fill(by("cache-bar"), cache.bytes, cache.limit, `${size(cache.bytes)} of ${size(cache.limit)}`);
  const hits = cache.hit_rate === null ? "" : ` · ${percent(cache.hit_rate, 1)} % hits`;
  write("cache-detail", `of ${size(cache.limit)} · ${counted(cache.entries, "file")}${hits}`);
}

function drawTransfers(queue) {
  const list = by("transfers");
  const rows = new Map([...list.children].map((row) => [row.dataset.of, row]));
  const wanted = queue.transfers.map((transfer) => {
    const of = `${transfer.verb} ${transfer.path}`;
    const row = rows.get(of) || newRow(of);
    drawTransfer(row, transfer);
    return row;
  });
  if (!wanted.length) wanted.push(make("li", { class: "empty" }, "Everything is in the bucket."));
  const same = wanted.length === list.children.length && wanted.every((row, at) => row === list.children[at]);
  if (!same) list.replaceChildren(...wanted);
  show("transfers-more", queue.hidden_transfers ? `and ${queue.hidden_transfers.toLocaleString("en")} more` : "");
}

function newRow(of) {
  const bar = make("div", { class: "bar", role: "progressbar", "aria-label": "sent" });
  const row = make("li", {}, make("p", { class: "path" }), make("p", { class: "rate" }), bar, make("p", { class: "reason" }));
  row.dataset.of = of;
  return row;
}

function drawTransfer(row, transfer) {
  const [path, rate, bar, reason] = row.children;
  const at = transfer.path.replace(/\/$/, "").lastIndexOf("/") + 1;
  if (path.title !== transfer.path) {
    path.replaceChildren(make("span", {}, transfer.path.slice(0, at)), transfer.path.slice(at));
    path.title = transfer.path;
  }
  const waits = WAITS[transfer.state];
  const left = transfer.size - transfer.sent;
  row.className = transfer.state === "parked" ? "parked" : waits ? "waits" : "moves";
  bar.hidden = Boolean(waits) || transfer.verb === "delete";
  fill(bar, transfer.sent, transfer.size, `${size(transfer.sent)} of ${size(transfer.size)}`);
  const words = [];
  if (transfer.verb === "delete") words.push("delete");
  else if (!waits) words.push(`${transfer.verb === "download" ? "↓" : "↑"} ${percent(transfer.sent, transfer.size)} %`);
  if (waits) words.push(waits);
  if (transfer.verb !== "delete") words.push(size(transfer.size));
  if (transfer.rate) words.push(`${size(transfer.rate)}/s`, left > 0 ? seconds(left / transfer.rate) : null);
  rate.textContent = words.filter(Boolean).join(" · ");
  reason.textContent = transfer.reason || "";
  reason.hidden = !transfer.reason;
}

function drawTroubles(troubles) {
  by("troubles").hidden = !troubles.length;
  by("trouble-list").replaceChildren(
    ...troubles.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]),
  );
}
