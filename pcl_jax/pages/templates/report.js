// Draws the charts of a report, and answers clicks on headings of tables.

const FEW_ROWS = 25;

function rowsOf(columns) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, i) =>
    Object.fromEntries(names.map((name) => [name, columns[name][i]])),
  );
}

// ---------------------------------------------------------------- songs

// The panel of a song: what is known of it, and its nearest songs.
class Panel {
  constructor(place, songs, choose) {
    Object.assign(this, { place, songs, choose });
    this.player = element("audio", { controls: "", preload: "none" });
    this.said = element("p", { class: "note", role: "status" });
    this.player.addEventListener("error", () => {
      this.said.textContent = `${this.playing} cannot be played: its file is gone or of a kind that this browser does not know.`;
    });
  }

  play(i) {
    this.playing = this.songs.name(i);
    this.said.textContent = `Playing: ${this.playing}`;
    this.player.src = this.songs.audio[i];
    this.player.play().catch(() => {}); // The element says what is wrong.
  }

  button(i) {
    if (!this.songs.audio[i]) return "";
    const label = `Play ${this.songs.name(i)}`;
    return element("button", { type: "button", class: "play", "aria-label": label, title: label, onclick: () => this.play(i) }, "\u25b6\ufe0e");
  }

  neighbour(chosen, i, cosine) {
    const go = element("button", { type: "button", class: "plain", onclick: () => this.choose(i) }, this.songs.name(i));
    const line = element("div", {}, element("span", { class: "who" }, go), element("span", { class: "cosine", title: "cosine" }, (cosine / 1000).toFixed(3)), this.button(i));
    const same = ["artist", "sub-genre"].filter((kind) => this.songs.share(kind, chosen, i));
    const genres = this.songs.has["sub-genre"][i].join(", ");
    const about = element("div", { class: "note" }, genres);
    if (same.length) about.append(element("span", { class: "same" }, `same ${same.join(" and ")}`));
    return element("li", {}, line, about);
  }

  show(i) {
    const { near, cosine, id } = this.songs.columns;
    const facts = Object.entries(this.songs.has)
      .filter(([, all]) => all[i].length)
      .map(([kind, all]) => `${kind}: ${some(all[i], 4)}`);
    this.said.textContent = "";
    const list = element("ol", {}, ...near[i].map((j, k) => this.neighbour(i, j, cosine[i][k])));
    const head = element("div", { class: "controls" }, element("h3", {}, this.songs.name(i)), this.button(i));
    const about = [...facts, `id: ${id[i]}`].map((one) => element("div", { class: "note" }, one));
    const player = this.songs.audio.length ? [this.player, this.said] : [];
    this.place.replaceChildren(head, ...about, ...player, element("p", {}, near[i].length ? "Nearest songs, by cosine:" : "There is no other song."), list);
  }
}

async function startSongs(songs, specs) {
  const place = document.getElementById("song-map");
  let choose;
  const panel = new Panel(document.getElementById("nearest"), songs, (i) => choose(i));
  const map = new SongMap(place, specs[place.dataset.map], songs, (i) => choose(i));
  choose = async (i) => {
    panel.show(i);
    await map.choose(i, songs.columns.near[i]);
  };
  const field = document.getElementById("song");
  const rowOf = new Map();
  for (let i = songs.length - 1; i >= 0; i--) rowOf.set(songs.name(i), i);
  document.getElementById("songs").append(...[...rowOf.keys()].reverse().map((value) => element("option", { value })));
  field.addEventListener("change", () => {
    const i = rowOf.get(field.value) ?? songs.columns.name.findIndex((one) => one.toLowerCase().includes(field.value.trim().toLowerCase()));
    if (field.value.trim() && i >= 0) choose(i);
  });
  const by = document.getElementById("by");
  by.addEventListener("change", () => map.colour(by.value));
  const sought = document.getElementById("sought");
  sought.addEventListener("input", () => map.seek(sought.value));
  await map.colour(by.value);
  return choose;
}

// ---------------------------------------------------------------- items

class ItemTable {
  constructor(items, songs, choose) {
    Object.assign(this, { items, songs, choose });
    this.table = document.getElementById("item-table");
    this.more = document.getElementById("more");
    this.counted = document.getElementById("counted");
    this.task = document.getElementById("task");
    this.filter = document.getElementById("filter");
    this.more.addEventListener("click", () => this.show(Infinity));
    this.filter.addEventListener("input", () => this.show());
    this.task.addEventListener("change", () => this.start());
  }

  start() {
    this.given = this.items[this.task.value];
    this.sort = { column: -1, down: false };
    this.show();
  }

  label(i) {
    return this.given.song ? this.songs.name(this.given.song[i]) : this.given.label[i];
  }

  order() {
    const { column, down } = this.sort;
    const words = this.filter.value.trim().toLowerCase();
    const count = (this.given.song ?? this.given.label).length;
    const labels = Array.from({ length: count }, (_, i) => this.label(i));
    const rows = labels.map((_, i) => i).filter((i) => labels[i].toLowerCase().includes(words));
    if (column < -1) return rows;
    const values = column < 0 ? labels : this.given.columns[column];
    const sign = down ? -1 : 1;
    return rows.sort((a, b) => {
      const [x, y] = [values[a], values[b]];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (column < 0 ? x.localeCompare(y) : x - y);
    });
  }

  heading(name, column) {
    const isSorted = this.sort.column === column;
    const sort = isSorted ? (this.sort.down ? "descending" : "ascending") : "none";
    const mark = isSorted ? (this.sort.down ? " \u25bc" : " \u25b2") : "";
    const button = element("button", { type: "button", onclick: () => {
      this.sort = { column, down: isSorted ? !this.sort.down : column >= 0 };
      this.show();
      this.table.querySelectorAll("th button")[column + 1].focus();
    } }, name + mark);
    return element("th", { scope: "col", "aria-sort": sort }, button);
  }

  cell(i) {
    const { song } = this.given;
    if (!song) return this.label(i);
    const go = async () => {
      document.getElementById("map").scrollIntoView();
      await this.choose(song[i]);
      document.getElementById("nearest").focus({ preventScroll: true });
    };
    return element("button", { type: "button", class: "plain", onclick: go }, this.label(i));
  }

  show(most = FEW_ROWS) {
    if (!this.given) {
      this.table.replaceChildren();
      this.more.hidden = true;
      this.counted.textContent = "This task has no values of single items.";
      return;
    }
    const { key, names, columns } = this.given;
    const order = this.order();
    const shown = order.slice(0, most);
    const head = element("tr", {}, this.heading(key, -1), ...names.map((name, i) => this.heading(name, i)));
    const body = shown.map((i) => element("tr", {}, element("th", { scope: "row" }, this.cell(i)), ...columns.map((column) => element("td", {}, column[i] === null ? "\u2013" : String(column[i])))));
    this.table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
    this.more.hidden = shown.length === order.length;
    this.counted.textContent = `${shown.length} of ${order.length} rows`;
  }
}

// ---------------------------------------------------------------- page

async function start() {
  const { charts, history, songs: columns, items } = pcl_data;
  const rows = rowsOf(history);
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = charts[place.dataset.chart];
    await draw(place, spec, spec.data.name === "history" ? rows : null);
  }
  const songs = columns && new Songs(columns);
  const choose = songs ? await startSongs(songs, charts) : () => {};
  if (document.getElementById("item-table")) new ItemTable(items, songs, choose).start();
  document.documentElement.dataset.ready = "yes";
}

start();
