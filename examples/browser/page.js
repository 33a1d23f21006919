import { SAMPLE_RATE_HZ, decode, embed, mean, open } from "./embed.js";

const element = (id) => document.getElementById(id);
let opened = { file: null, session: null };
let address = null;

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  element("result").hidden = true;
  try {
    await run(element("encoder").files[0], element("song").files[0]);
  } catch (error) {
    say(error.message, true);
  }
  button.disabled = false;
});

function say(text, isWrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", isWrong);
}

/** Awaits a step; its error says which file cannot be used, and why. */
async function step(text, file, work) {
  say(text);
  try {
    return await work();
  } catch (error) {
    const reason = error.message ?? error;
    throw new Error(`${file.name} cannot be used (${reason}).`);
  }
}

async function run(encoder, song) {
  const session = await step("Opening the encoder …", encoder, async () => {
    if (opened.file !== encoder) {
      const session = await open(await encoder.arrayBuffer());
      opened = { file: encoder, session };
    }
    return opened.session;
  });
  const begin = performance.now();
  const samples = await step("Decoding the song …", song, async () =>
    decode(await song.arrayBuffer()),
  );
  const seconds = samples.length / SAMPLE_RATE_HZ;
  // The samples move to the worker, and are gone from here.
  const vectors = await step("Embedding …", song, () =>
    embed(session, samples),
  );
  show(song.name, seconds, vectors, begin);
}

function show(name, seconds, { features, projection }, begin) {
  const taken = (performance.now() - begin) / 1000;
  element("seconds").textContent = `${seconds.toFixed(1)} s`;
  element("patches").textContent = features.length;
  element("size").textContent = features[0].length;
  element("time").textContent = `${taken.toFixed(1)} s`;
  draw(features);
  const table = {
    song: name,
    patches: features.length,
    features: mean(features),
    projection: mean(projection),
  };
  const kind = { type: "application/json" };
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(new Blob([JSON.stringify(table)], kind));
  element("download").href = address;
  element("download").download = `${name}.json`;
  element("result").hidden = false;
  say("Done.");
}

/** Draws the features, each row of them from its least to its largest. */
function draw(features) {
  const picture = element("picture");
  const [width, height] = [features.length, features[0].length];
  Object.assign(picture, { width, height });
  picture.setAttribute("aria-label", `${height} features of ${width} patches`);
  const context = picture.getContext("2d");
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    const row = features.map((vector) => vector[y]);
    const least = Math.min(...row);
    const range = Math.max(...row) - least || 1;
    row.forEach((value, x) => {
      const share = (value - least) / range;
      const pixel = [230 - 200 * share, 236 - 150 * share, 245 - 70 * share];
      image.data.set([...pixel, 255], 4 * (y * width + x));
    });
  }
  context.putImageData(image, 0, 0);
}
