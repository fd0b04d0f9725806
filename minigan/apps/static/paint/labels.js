// The label map: one byte per pixel, the number of its class. It is the truth; colours are only how
// it is shown. Nothing here has soft edges, or pixels between two classes would become a third.

export class Labels {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height);
  }

  at(x, y) { return this.data[y * this.width + x]; }
  has(x, y) { return x >= 0 && y >= 0 && x < this.width && y < this.height; }

  put(pixels, label) { for (const i of pixels) this.data[i] = label; }
}

// Shapes: each gives the indices of the pixels that it covers --------------------------------------

export function tip(size, square) {              // offsets from the centre; `size` pixels across
  const found = [];
  const first = -Math.floor((size - 1) / 2), middle = first + (size - 1) / 2;
  for (let y = first; y < first + size; y++)
    for (let x = first; x < first + size; x++)
      if (square || Math.hypot(x - middle, y - middle) <= size / 2) found.push([x, y]);
  return found;
}

export function line(map, [x, y], [x1, y1], brush) {    // Bresenham, with a tip at every point
  const found = new Set();
  const dx = Math.abs(x1 - x), dy = -Math.abs(y1 - y);
  const right = x < x1 ? 1 : -1, down = y < y1 ? 1 : -1;
  let error = dx + dy;
  for (;;) {
    for (const [a, b] of brush) if (map.has(x + a, y + b)) found.add((y + b) * map.width + x + a);
    if (x === x1 && y === y1) return found;
    const twice = 2 * error;
    if (twice >= dy) { error += dy; x += right; }
    if (twice <= dx) { error += dx; y += down; }
  }
}

export function rectangle(map, [x, y], [x1, y1]) {
  const found = new Set();
  for (let b = Math.max(0, Math.min(y, y1)); b <= Math.min(map.height - 1, Math.max(y, y1)); b++)
    for (let a = Math.max(0, Math.min(x, x1)); a <= Math.min(map.width - 1, Math.max(x, x1)); a++)
      found.add(b * map.width + a);
  return found;
}

export function flood(map, [x, y]) {             // what is connected and of the same class
  const found = new Set();
  if (!map.has(x, y)) return found;
  const wanted = map.at(x, y), open = [[x, y]];
  while (open.length) {
    const [a, b] = open.pop(), i = b * map.width + a;
    if (!map.has(a, b) || map.data[i] !== wanted || found.has(i)) continue;
    found.add(i);
    open.push([a + 1, b], [a - 1, b], [a, b + 1], [a, b - 1]);
  }
  return found;
}

// Undo and redo: of each change the runs of pixels that differ, before and after -------------------

export class History {
  constructor(map, depth = 100) {
    this.map = map;
    this.depth = depth;
    this.done = [];
    this.undone = [];
    this.begin();
  }

  begin() { this.before = this.map.data.slice(); }

  commit() {                                     // whether anything has changed since begin()
    const runs = differences(this.before, this.map.data);
    if (!runs.length) return false;
    this.done.push(runs);
    if (this.done.length > this.depth) this.done.shift();
    this.undone = [];
    this.begin();
    return true;
  }

  undo() { return this.move(this.done, this.undone, "before"); }
  redo() { return this.move(this.undone, this.done, "after"); }

  move(from, to, which) {
    const runs = from.pop();
    if (!runs) return false;
    for (const run of runs) this.map.data.set(run[which], run.start);
    to.push(runs);
    this.begin();
    return true;
  }
}

function differences(before, after) {
  const runs = [];
  for (let i = 0; i < after.length; i++) {
    if (before[i] === after[i]) continue;
    const start = i;
    while (i < after.length && before[i] !== after[i]) i++;
    runs.push({ start, before: before.slice(start, i), after: after.slice(start, i) });
  }
  return runs;
}
