// Sound as pictures: waveform and spectrogram, drawn as `omnifleet spectrogram` draws them.

const RATE = 44100; // what everything is decoded to
const SIZE = 2048; // samples of a frame, 46 ms
const FRAMES_A_COLUMN = 2;
const RANGE_DB = 80; // from the loudest of all that is shown down to black
const AT_ONCE = 64; // columns between which the browser may do something else
export const MOST_BYTES = 64 * 2 ** 20; // of a file that is decoded for a picture
const COLOURS = [
  [0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164],
]; // from quiet to loud: points of matplotlib's inferno

/** Decode a file to one channel. Throws where the browser cannot, or the file is too large to try. */
export async function decode(blob) {
  if (blob.size > MOST_BYTES) throw new Error("It is too large to draw.");
  const buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer());
  const samples = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const own = buffer.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) samples[i] += own[i] / buffer.numberOfChannels;
  }
  return { samples, seconds: buffer.duration };
}

/** Draw the waveform of a sound over `seconds`, from the lowest to the highest sample of each column. */
export function drawWave(canvas, sound, seconds, loudest) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = "#3b82c4"; // stands out on light and on dark
  const columns = Math.max(1, Math.round((width * sound.seconds) / seconds));
  for (let column = 0; column < columns; column++) {
    const start = Math.floor((column * sound.samples.length) / columns);
    const end = Math.max(start + 1, Math.floor(((column + 1) * sound.samples.length) / columns));
    let low = 0, high = 0;
    for (let i = start; i < end; i++) {
      low = Math.min(low, sound.samples[i]);
      high = Math.max(high, sound.samples[i]);
    }
    const scale = height / 2 / (loudest || 1);
    pen.fillRect(column, height / 2 - high * scale, 1, Math.max(1, (high - low) * scale));
  }
}

/** The highest absolute sample. */
export function peakOf(sound) {
  let peak = 0;
  for (const sample of sound.samples) peak = Math.max(peak, Math.abs(sample));
  return peak;
}

/** Decibels of each row, the highest pitch first, of as many columns as the sound takes of `width` over `seconds`. */
export async function levelsOf(sound, seconds, { width, height }) {
  const columns = Math.max(1, Math.round((width * sound.seconds) / seconds));
  const levels = new Float32Array(columns * height);
  const transform = new Transform(SIZE);
  const rows = firstBins(height);
  for (let column = 0; column < columns; column++) {
    if (column % AT_ONCE === AT_ONCE - 1) await new Promise((resolve) => setTimeout(resolve));
    for (let frame = 0; frame < FRAMES_A_COLUMN; frame++) {
      const middle = Math.floor(((column + frame / FRAMES_A_COLUMN) * sound.samples.length) / columns);
      const power = transform.power(sound.samples, middle - SIZE / 2);
      for (let row = 0; row < height; row++) {
        let loudest = 0;
        for (let bin = rows[row]; bin < Math.max(rows[row + 1], rows[row] + 1); bin++) loudest = Math.max(loudest, power[bin]);
        levels[column * height + height - 1 - row] += loudest / FRAMES_A_COLUMN;
      }
    }
  }
  return levels.map((power) => 10 * Math.log10(Math.max(power, 1e-12)));
}

/** Paint levels, as loud as `loudest` in the brightest colour. */
export function paint(canvas, levels, loudest) {
  const { width, height } = canvas;
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(width, height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const level = x * height + y < levels.length ? levels[x * height + y] : -Infinity;
      const shade = Math.min(1, Math.max(0, (level - loudest) / RANGE_DB + 1)) * (COLOURS.length - 1);
      const below = Math.min(COLOURS.length - 2, Math.floor(shade));
      for (let c = 0; c < 3; c++) {
        const [from, to] = [COLOURS[below][c], COLOURS[below + 1][c]];
        picture.data[(y * width + x) * 4 + c] = from + (to - from) * (shade - below);
      }
      picture.data[(y * width + x) * 4 + 3] = 255;
    }
  }
  pen.putImageData(picture, 0, 0);
}

/** The first frequency bin of each row, from the lowest row up, on the mel scale. */
function firstBins(height) {
  const highest = 2595 * Math.log10(1 + RATE / 2 / 700);
  const edge = (row) => 700 * (10 ** ((highest * row) / height / 2595) - 1);
  return Array.from({ length: height + 1 }, (_, row) => Math.min(SIZE / 2, Math.round((edge(row) * SIZE) / RATE)));
}

/** The power of frames' frequencies, by a Fourier transform of `size` samples under a Hann window. */
export class Transform {
  constructor(size) {
    const turn = (i) => (2 * Math.PI * i) / size;
    this.size = size;
    this.window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (size - 1)));
    this.gain = (this.window.reduce((sum, one) => sum + one, 0) / 2) ** 2;
    this.cos = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos(turn(i)));
    this.sin = Float64Array.from({ length: size / 2 }, (_, i) => Math.sin(turn(i)));
    const bits = Math.log2(size);
    this.order = Uint32Array.from({ length: size }, (_, i) => {
      let reversed = 0;
      for (let bit = 0; bit < bits; bit++) reversed |= ((i >> bit) & 1) << (bits - 1 - bit);
      return reversed;
    });
    this.real = new Float64Array(size);
    this.imaginary = new Float64Array(size);
  }

  /** Of the frame that begins at `start`; what lies outside of the samples is silence. */
  power(samples, start) {
    const { size, real, imaginary } = this;
    for (let i = 0; i < size; i++) real[this.order[i]] = (samples[start + i] ?? 0) * this.window[i];
    imaginary.fill(0);
    for (let half = 1; half < size; half *= 2) this.combine(half);
    const power = new Float64Array(size / 2 + 1);
    for (let i = 0; i <= size / 2; i++) power[i] = (real[i] ** 2 + imaginary[i] ** 2) / this.gain;
    return power;
  }

  /** Make transforms of twice `half` samples of those of `half`. */
  combine(half) {
    const { size, real, imaginary, cos, sin } = this;
    const step = size / 2 / half;
    for (let base = 0; base < size; base += 2 * half) {
      for (let i = 0; i < half; i++) {
        const [a, b] = [base + i, base + i + half];
        const re = real[b] * cos[i * step] + imaginary[b] * sin[i * step];
        const im = imaginary[b] * cos[i * step] - real[b] * sin[i * step];
        real[b] = real[a] - re;
        imaginary[b] = imaginary[a] - im;
        real[a] += re;
        imaginary[a] += im;
      }
    }
  }
}
