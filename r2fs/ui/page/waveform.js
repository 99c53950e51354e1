// Waveforms of takes that are on this host: drawn beside each other on one scale of time.
import { make } from "./text.js";

const LARGEST = 64 * 1024 * 1024; // bytes of a file that is decoded
const RATE = 8000; // Hz: enough for peaks, and a sixth of the memory
const COLUMNS = 600;

const known = new Map(); // evidence: promise of peaks

// The promise of {peaks, seconds}, or of null for what cannot be decoded.
export function peaksOf(take, url) {
  if (!take.plays || !take.whole || take.size > LARGEST || !take.size) return Promise.resolve(null);
  const key = `${take.ref} ${take.evidence}`;
  if (!known.has(key)) known.set(key, load(url));
  return known.get(key);
}

async function load(url) {
  try {
    const answer = await fetch(url);
    if (!answer.ok) return null;
    const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await answer.arrayBuffer());
    return { peaks: columns(decoded), seconds: decoded.duration };
  } catch {
    return null; // of a kind that this browser does not know: its player says so
  }
}

function columns(decoded) {
  const peaks = new Float32Array(COLUMNS);
  const step = decoded.length / COLUMNS;
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    const data = decoded.getChannelData(channel);
    for (let column = 0; column < COLUMNS; column += 1) {
      const stop = Math.max(Math.floor((column + 1) * step), Math.floor(column * step) + 1);
      for (let at = Math.floor(column * step); at < stop && at < data.length; at += 1) {
        peaks[column] = Math.max(peaks[column], Math.abs(data[at]));
      }
    }
  }
  return peaks;
}

export function waveform() {
  return make("canvas", { class: "wave", "aria-hidden": "true" });
}

// Draws the peaks, with the played part in another colour. `longest`: seconds of the longest take beside it.
export function drawWave(canvas, wave, longest, played) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  if (!width || !height) return;
  if (canvas.width !== Math.round(width)) canvas.width = Math.round(width);
  if (canvas.height !== Math.round(height)) canvas.height = Math.round(height);
  const style = getComputedStyle(canvas);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const middle = canvas.height / 2;
  context.fillStyle = style.getPropertyValue("--line");
  context.fillRect(0, middle - ratio / 2, canvas.width, ratio);
  if (!wave) return;
  const [ahead, done] = [style.getPropertyValue("--wave"), style.getPropertyValue("--accent")];
  const length = (canvas.width * wave.seconds) / (longest || wave.seconds || 1);
  const step = 3 * ratio;
  for (let x = 0; x < length; x += step) {
    const from = Math.floor((x / length) * COLUMNS);
    const to = Math.max(from + 1, Math.floor(((x + step) / length) * COLUMNS));
    let peak = 0;
    for (let at = from; at < to && at < COLUMNS; at += 1) peak = Math.max(peak, wave.peaks[at]);
    const tall = Math.max(ratio, peak * (canvas.height - 4 * ratio));
    context.fillStyle = x / length <= played / (wave.seconds || 1) && played > 0 ? done : ahead;
    context.fillRect(x, middle - tall / 2, 2 * ratio, tall);
  }
}
