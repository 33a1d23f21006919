// Functions that are run in a page with a map of songs.

// Finds the dots of the map in the chart's own list of what it draws.
export function dots(place) {
  const found = [];
  const visit = (item) => {
    if (item.marktype === "symbol" && item.name === "marks") {
      found.push(...item.items);
    }
    (item.items ?? []).forEach(visit);
  };
  visit(place.view.scenegraph().root);
  return found;
}

// Returns where a dot is on the screen.
export function placeOf(place, i) {
  const { x, y } = dots(place).find((one) => one.datum.i === i);
  const { left, top } = place.view.padding();
  const box = place.querySelector("canvas").getBoundingClientRect();
  return { x: box.x + left + x, y: box.y + top + y };
}
