// The page of a library: finds, plays and lists songs by what the server says.

const SOUGHT_AFTER_MS = 150;
const byId = (id) => document.getElementById(id);

function say(text) {
  byId("said").textContent = text;
  byId("said").hidden = !text;
}

// Asks the server; what it refuses is shown, and null is returned. Nothing is
// shown of what is no longer wanted.
async function ask(path, given = [], request = {}, wanted = () => true) {
  const query = new URLSearchParams(given.filter(([, value]) => value !== ""));
  let error = "The server does not answer.";
  try {
    const answer = await fetch(`api/${path}?${query}`, request);
    if (answer.ok) {
      if (wanted()) say("");
      return answer;
    }
    ({ error } = await answer.json());
  } catch {
    // It is down, or breaks off.
  }
  if (wanted()) say(error);
  return null;
}

async function askForJson(...given) {
  return (await ask(...given))?.json() ?? null;
}

// Questions of one kind, of which only the last one's answer is wanted.
class Questions {
  constructor() {
    this.count = 0;
  }

  // Returns what tells whether no other one was asked since.
  next() {
    const mine = ++this.count;
    return () => mine === this.count;
  }
}

function minutes(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// ---------------------------------------------------------------- player

class Player {
  constructor() {
    this.audio = byId("audio");
    this.songs = [];
    this.at = -1;
    this.audio.addEventListener("ended", () => this.go(this.at + 1));
    this.audio.addEventListener("error", () => {
      const song = this.songs[this.at];
      if (song) byId("playing").textContent = `${song.name} cannot be played: its file is gone, or of a kind that this browser does not know.`;
    });
  }

  // Plays a song, then those that follow it in a list.
  play(songs, at) {
    this.songs = songs;
    this.go(at);
  }

  go(at) {
    const song = this.songs[at];
    if (!song) return;
    this.at = at;
    byId("player").hidden = false;
    byId("playing").textContent = `Playing: ${song.name}`;
    this.audio.src = song.audio.slice(1); // Relative, as all addresses here.
    this.audio.play().catch(() => {}); // The element says what is wrong.
  }
}

// ---------------------------------------------------------------- lists

function small(label, sign, onclick) {
  return element("button", { type: "button", class: "small", "aria-label": label, title: label, onclick }, sign);
}

// A list of songs, each of which can be chosen, played and kept.
class SongList {
  constructor(page, place, more = () => []) {
    Object.assign(this, { page, place, more, songs: [] });
  }

  item(song, i) {
    const { page } = this;
    const choose = element("button", { type: "button", class: "plain", onclick: () => page.choose(song) }, song.name);
    const about = [song.album, song.genres.slice(0, 3).join(", "), minutes(song.seconds)].filter(Boolean).join(" · ");
    const who = element("span", { class: "who" }, choose, element("span", { class: "note" }, about));
    const line = element("div", { class: "song" }, who);
    if ("score" in song) line.append(element("span", { class: "cosine", title: "cosine" }, song.score.toFixed(3)));
    if (song.audio) line.append(small(`Play ${song.name}`, "\u25b6\ufe0e", () => page.player.play(this.songs, i)));
    line.append(...this.more(song, i));
    return element("li", {}, line);
  }

  show(songs) {
    this.songs = songs;
    this.place.replaceChildren(...songs.map((song, i) => this.item(song, i)));
  }
}

// ---------------------------------------------------------------- page

class LibraryPage {
  constructor(library) {
    this.library = library;
    this.player = new Player();
    const add = (song) => [small(`Add ${song.name} to the playlist`, "+", () => this.keep([song]))];
    this.found = new SongList(this, byId("found"), add);
    this.near = new SongList(this, byId("near"), add);
    this.way = new SongList(this, byId("way"), add);
    this.mine = new SongList(this, byId("mine"), (song, i) => [small(`Remove ${song.name}`, "\u00d7", () => this.drop(i))]);
    this.shape = byId("shape");
    this.chosen = null; // A song, or a file that was sent.
    this.sought = new Questions();
    this.asked = new Questions();
    this.paths = new Questions();
    this.sent = null; // The answer to a file.
  }

  start() {
    const { songs, genres, audio } = this.library;
    byId("about").textContent = `${songs} songs${audio ? "" : ", without audio"}`;
    this.shape.elements.genre.append(...genres.map((value) => element("option", {}, value)));
    const words = byId("words");
    words.addEventListener("input", () => this.soon(() => this.seek(words.value)));
    words.addEventListener("keydown", (event) => {
      if (event.key === "Enter") byId("found").querySelector("button.plain")?.focus();
    });
    byId("file").addEventListener("change", () => {
      const [file] = byId("file").files;
      if (file) this.choose({ file, name: file.name });
    });
    this.shape.addEventListener("input", () => this.soon(() => this.refresh()));
    this.shape.addEventListener("submit", (event) => event.preventDefault());
    byId("steps").addEventListener("submit", (event) => {
      event.preventDefault();
      this.findPath();
    });
    byId("keep-way").addEventListener("click", () => this.keep(this.way.songs));
    byId("play-list").hidden = !audio;
    byId("play-list").addEventListener("click", () => this.mine.songs.length && this.player.play(this.mine.songs, 0));
    byId("smooth").addEventListener("click", () => this.smooth());
    byId("clear").addEventListener("click", () => this.set([]));
    byId("save").addEventListener("click", () => this.save());
    this.seek("");
  }

  soon(act) {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, SOUGHT_AFTER_MS);
  }

  async seek(words) {
    const wanted = this.sought.next();
    const answer = await askForJson("songs", [["q", words], ["k", 20]], {}, wanted);
    if (answer && wanted()) this.found.show(answer.songs);
  }

  async choose(song) {
    this.chosen = song;
    await this.refresh();
    byId("nearest").scrollIntoView({ block: "nearest" });
  }

  wishes() {
    const { elements } = this.shape;
    const names = ["k", "genre", "diversity", "per_artist", "max_minutes"];
    const same = ["artist", "album"].filter((name) => elements[name].checked);
    return [
      ...names.map((name) => [name, elements[name].value]),
      ["exclude_same", same.join(",")],
      ["order", elements.order.checked ? "true" : ""],
    ];
  }

  async refresh() {
    const song = this.chosen;
    if (!song) return;
    const wanted = this.asked.next();
    if (song.file) {
      await Promise.allSettled([this.sent]); // The server takes one at a time.
      if (!wanted()) return;
    }
    const like = song.file ? [] : [["like", song.id]];
    const request = song.file ? { method: "POST", body: song.file } : {};
    const asking = askForJson("similar", [...like, ...this.wishes()], request, wanted);
    if (song.file) this.sent = asking;
    const answer = await asking;
    if (!wanted()) return;
    this.showChosen(song, answer);
    this.near.show(answer?.songs ?? []);
    await this.map?.mark(song.id, this.near.songs.map((one) => one.id));
  }

  showChosen(song, answer) {
    const buttons = [];
    if (song.audio) buttons.push(element("button", { type: "button", onclick: () => this.player.play([song], 0) }, "\u25b6\ufe0e Play"));
    if (song.id) {
      buttons.push(
        element("button", { type: "button", onclick: () => this.keep([song]) }, "Add to the playlist"),
        element("button", { type: "button", onclick: () => this.end("from", song) }, "Path from here"),
        element("button", { type: "button", onclick: () => this.end("to", song) }, "Path to here"),
      );
    }
    buttons.push(element("button", { type: "button", onclick: () => this.keep(this.near.songs) }, "Add all below"));
    const facts = [song.album, song.genres?.join(", "), song.id].filter(Boolean);
    byId("chosen").replaceChildren(
      element("h3", {}, song.name),
      ...facts.map((one) => element("div", { class: "note" }, one)),
      element("div", { class: "controls" }, ...buttons),
      ...(answer?.said ?? []).map((one) => element("p", { class: "note" }, one)),
    );
  }

  end(which, song) {
    this[which] = song;
    byId(which).textContent = song.name;
    if (this.from && this.to) this.findPath();
  }

  async findPath() {
    if (!this.from || !this.to) {
      say("A path needs two songs: choose them, and give “Path from here” and “Path to here”.");
      return;
    }
    const k = byId("steps").elements.k.value;
    const wanted = this.paths.next();
    const answer = await askForJson("path", [["from", this.from.id], ["to", this.to.id], ["k", k]], {}, wanted);
    if (!wanted()) return;
    this.way.show(answer?.songs ?? []);
    byId("keep-way").hidden = !answer;
  }

  // -------------------------------------------------------------- playlist

  set(songs) {
    // The scores are of the lists that the songs come from.
    this.mine.show(songs.map(({ score, rank, ...song }) => song));
    const seconds = songs.reduce((sum, one) => sum + one.seconds, 0);
    byId("length").textContent = songs.length ? `${songs.length} songs, ${minutes(seconds)}` : "It has no songs.";
  }

  keep(songs) {
    const known = new Set(this.mine.songs.map((one) => one.id));
    this.set([...this.mine.songs, ...songs.filter((one) => !known.has(one.id))]);
  }

  drop(i) {
    this.set(this.mine.songs.filter((_, j) => j !== i));
  }

  post(given) {
    const songs = this.mine.songs.map((one) => one.id);
    if (!songs.length) {
      say("The playlist has no songs: add some first.");
      return null;
    }
    const headers = { "content-type": "application/json" };
    return ask("playlist", given, { method: "POST", headers, body: JSON.stringify({ songs }) });
  }

  async smooth() {
    const answer = await this.post([["order", "true"]]);
    if (answer) this.set((await answer.json()).songs);
  }

  async save() {
    const kind = byId("kind").value;
    const paths = byId("relative").checked ? "relative" : "absolute";
    const answer = await this.post([["format", kind], ["paths", paths]]);
    if (!answer) return;
    const href = URL.createObjectURL(await answer.blob());
    element("a", { href, download: `playlist.${kind}` }).click();
    URL.revokeObjectURL(href);
  }
}

// The map, once the songs are placed.
class LibraryMap {
  constructor(made, page) {
    this.songs = new Songs({ ...made.songs, audio: [] });
    this.rowOf = new Map(made.songs.id.map((id, i) => [id, i]));
    const open = async (i) => {
      const song = await askForJson("song", [["id", made.songs.id[i]]]);
      if (song) page.choose(song);
    };
    this.map = new SongMap(byId("song-map"), made.spec, this.songs, open);
    const left = made.left_out ? `; ${made.left_out} more are not drawn` : "";
    byId("placed").textContent = `${this.songs.length} songs, placed by ${made.method}${left}: songs near each other sound alike to the encoder. A click on a dot shows the nearest songs. Drag to move; Shift and the wheel zoom.`;
  }

  async start() {
    const by = byId("by");
    const { has } = this.songs.columns;
    const known = Object.keys(has).filter((kind) => has[kind].names.length);
    by.append(...(known.length ? known : Object.keys(has)).map((kind) => element("option", {}, kind)));
    by.addEventListener("change", () => this.map.colour(by.value));
    const sought = byId("sought");
    sought.addEventListener("input", () => this.map.seek(sought.value));
    await this.map.colour(by.value);
  }

  async mark(id, near) {
    const rows = near.map((one) => this.rowOf.get(one) ?? -1);
    await this.map.choose(this.rowOf.get(id) ?? -1, rows);
  }
}

async function start() {
  const library = await askForJson("library");
  if (!library) return;
  const page = new LibraryPage(library);
  page.start();
  const made = await askForJson("map");
  if (made) {
    page.map = new LibraryMap(made, page);
    await page.map.start();
    if (page.chosen) await page.refresh();
  }
  document.documentElement.dataset.ready = "yes";
}

start();
