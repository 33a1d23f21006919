// Embeds audio with an encoder that `pcl-jax export --format=onnx` wrote.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { rateOf, resample } from "./sample_rate.js";

export const SAMPLE_RATE_HZ = 16000;

ort.env.wasm.proxy = true; // In a worker, so that the page stays responsive.

/** Decodes a file of bytes to mono Float32Array samples at 16 kHz. */
export async function decode(bytes) {
  const own = rateOf(bytes);
  // Of an unknown rate, or one that browsers refuse, the browser resamples.
  const rate = own >= 8000 && own <= 96000 ? own : SAMPLE_RATE_HZ;
  const context = new OfflineAudioContext(1, 1, rate);
  const audio = await context.decodeAudioData(bytes);
  const samples = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    const values = audio.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) {
      samples[i] += values[i] / audio.numberOfChannels;
    }
  }
  return resample(samples, rate, SAMPLE_RATE_HZ);
}

/** Opens an encoder from the bytes of its file. */
export async function open(bytes) {
  const session = await ort.InferenceSession.create(new Uint8Array(bytes));
  if (!session.inputNames.includes("samples")) {
    throw new Error("it takes no samples: pcl-jax export did not write it");
  }
  return session;
}

/** Returns the vectors of the patches of a song, by the name of their layer. */
export async function embed(session, samples) {
  const tensor = new ort.Tensor("float32", samples, [samples.length]);
  const found = await session.run({ samples: tensor });
  return { features: rows(found.features), projection: rows(found.projection) };
}

/** Returns the mean of vectors. */
export function mean(vectors) {
  const sum = new Float64Array(vectors[0].length);
  for (const vector of vectors) vector.forEach((value, i) => (sum[i] += value));
  return Array.from(sum, (value) => value / vectors.length);
}

function rows({ data, dims: [count, size] }) {
  return Array.from({ length: count }, (_, i) =>
    data.slice(i * size, (i + 1) * size),
  );
}
