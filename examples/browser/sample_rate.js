// The sample rate of a file, which WebAudio does not tell, and its change.
//
// Chromium's own change of rate treats sounds between 6 and 8 kHz otherwise than
// soxr does, with which encoders are trained: a bird's vector was 4 % off. So
// files are decoded at their own rate, and the filter is that of soxr's HQ.

const CUTOFF = 0.478436; // Of the lower rate: half the height is left.
const HALF_LENGTH = 96.833; // Of the filter, in samples of the lower rate.
const BETA = 13.04; // Of its Kaiser window.

const MPEG_RATES_HZ = [11025, 12000, 8000];

/** Returns the sample rate of a file's bytes in Hz, null where it is unknown. */
export function rateOf(buffer) {
  const view = new DataView(buffer);
  const bytes = new Uint8Array(buffer);
  const text = (at, length) =>
    String.fromCharCode(...bytes.subarray(at, at + length));
  try {
    if (text(0, 4) === "RIFF") return view.getUint32(find(text, "fmt ") + 12, true);
    if (text(0, 4) === "fLaC") return flacRate(view, 4);
    if (text(0, 4) === "OggS") return oggRate(view, text, 27 + bytes[26]);
    if (text(4, 4) === "ftyp") return mp4Rate(view, bytes, text);
    return mpegRate(view, bytes, text);
  } catch {
    return null; // Cut short, or not what it seemed.
  }
}

function find(text, chunk) {
  const at = text(0, 4096).indexOf(chunk);
  if (at < 0) throw new RangeError(`no ${chunk}`);
  return at;
}

function flacRate(view, block) {
  return view.getUint32(block + 14) >>> 12;
}

function oggRate(view, text, packet) {
  if (text(packet, 8) === "OpusHead") return 48000;
  if (text(packet + 1, 6) === "vorbis") return view.getUint32(packet + 12, true);
  if (text(packet + 1, 4) === "FLAC") return flacRate(view, packet + 13);
  return null;
}

/** Reads the description of AAC samples, which names the rate. */
function mp4Rate(view, bytes, text) {
  const name = [..."mp4a"].map((letter) => letter.charCodeAt(0));
  for (let at = bytes.indexOf(name[0]); at >= 0; ) {
    if (text(at, 4) === "mp4a" && text(at + 4, 6) === "\0\0\0\0\0\0") {
      return view.getUint16(at + 28);
    }
    at = bytes.indexOf(name[0], at + 1);
  }
  return null;
}

/** Reads the header of the first MP3 or AAC frame, after a tag. */
function mpegRate(view, bytes, text) {
  let at = 0;
  if (text(0, 3) === "ID3") {
    const size = [6, 7, 8, 9].reduce((sum, i) => 128 * sum + bytes[i], 0);
    at = 10 + size;
  }
  while ((view.getUint16(at) & 0xffe0) !== 0xffe0) at++;
  const version = (bytes[at + 1] >> 3) & 3;
  const isMp3 = (bytes[at + 1] & 6) !== 0;
  const rate = MPEG_RATES_HZ[(bytes[at + 2] >> 2) & 3];
  if (!isMp3 || !rate) return null;
  return rate * [1, 0, 2, 4][version] || null;
}

/** Returns samples of one rate at another one. */
export function resample(samples, fromHz, toHz) {
  if (fromHz === toHz) return samples;
  const divisor = greatestDivisor(fromHz, toHz);
  const [up, down] = [toHz / divisor, fromHz / divisor];
  const found = new Float32Array(
    Math.max(1, Math.round((samples.length * up) / down)),
  );
  const filters = Array(up);
  for (let i = 0; i < found.length; i++) {
    const phase = (i * down) % up;
    filters[phase] ??= makeFilter(phase / up, fromHz, toHz);
    const filter = filters[phase];
    const first = Math.floor((i * down) / up) + 1 - filter.length / 2;
    const begin = Math.max(0, -first);
    const end = Math.min(filter.length, samples.length - first);
    let sum = 0;
    for (let j = begin; j < end; j++) sum += filter[j] * samples[first + j];
    found[i] = sum;
  }
  return found;
}

/** Returns a low-pass filter around a point between two samples. */
function makeFilter(fraction, fromHz, toHz) {
  const scale = Math.min(fromHz, toHz) / fromHz;
  const radius = Math.ceil(HALF_LENGTH / scale) + 1;
  const filter = new Float64Array(2 * radius);
  for (let j = 0; j < filter.length; j++) {
    const time = (j + 1 - radius - fraction) * scale;
    const place = time / HALF_LENGTH;
    if (Math.abs(place) >= 1) continue;
    const angle = 2 * Math.PI * CUTOFF * time;
    const wave = angle ? Math.sin(angle) / angle : 1;
    const window = bessel(BETA * Math.sqrt(1 - place ** 2)) / bessel(BETA);
    filter[j] = 2 * CUTOFF * scale * wave * window;
  }
  return filter;
}

/** Returns the modified Bessel function of the first kind and order 0. */
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestDivisor(a, b) {
  return b ? greatestDivisor(b, a % b) : a;
}
