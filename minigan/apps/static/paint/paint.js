// The page of `minigan paint`: puts map, picture, palette and styles together.

import { ask, post, Pictures } from "./client.js";
import { Labels } from "./labels.js";
import { Board, colourTable, draw } from "./board.js";
import { byId, examples, make, palette, Styles } from "./panels.js";

const SEEDS = 2 ** 32;
let model, board, table, styles, markClass, pictures;
let sent = null;                                 // the map of the last request
let shown = null, before = null;                 // pictures: {blob, bitmap}

async function start() {
  try {
    model = await (await ask("api/model")).json();
  } catch (error) {
    byId("latency").textContent = "not connected";
    byId("dot").className = "bad";
    return say(error);
  }
  const { title, note, width, height, classes } = model;
  byId("about").textContent = note ? `${title} \u00b7 ${note}` : title;
  document.title = `${title} \u00b7 minigan paint`;
  document.documentElement.style.setProperty("--aspect", width / height);
  table = colourTable(classes);
  for (const id of ["picture", "over"]) {
    byId(id).width = width;
    byId(id).height = height;
  }
  pictures = new Pictures({ request, show, busy, failed: say });
  board = new Board({
    map: byId("map"), aim: byId("aim"), labels: new Labels(width, height), table, changed,
    picked: choose, under: (k) => { byId("under").textContent = k === null ? "" : classes[k].name; },
  });
  markClass = palette(classes, choose);
  styles = new Styles(model, () => pictures.want(), say);
  byId("size").max = Math.max(4, Math.round(Math.min(width, height) / 3));
  setSize(Math.max(2, Math.round(Math.min(width, height) / 16)));
  setTool("brush");
  setTip("round");
  choose(classes.length > 6 ? 6 : 0);
  listen();
  const first = await examples(model, table, (bytes) => board.replace(bytes)).catch((error) => (say(error), []));
  const kept = restore();
  if (kept || first.length) board.labels.data.set(kept ?? first[0]);
  board.history.begin();
  board.redraw();
  changed(false);
}

// From the map to the picture ----------------------------------------------------------------------

function changed(inTheMiddle) {
  draw(byId("over"), board.labels, table);
  byId("undo").disabled = !board.history.done.length;
  byId("redo").disabled = !board.history.undone.length;
  if (!inTheMiddle) keep();
  const same = sent && board.labels.data.every((k, i) => k === sent[i]);
  if (!same || !inTheMiddle && !shown) pictures.want(inTheMiddle);
}

function request() {
  sent = board.labels.data.slice();
  const wanted = new URLSearchParams({ seed: seed() });
  if (styles.id) {
    wanted.set("style", styles.id);
    wanted.set("mix", byId("mix").value / 100);
  }
  return { path: `api/render?${wanted}`, body: sent };
}

async function show(blob) {
  const bitmap = await createImageBitmap(blob);
  if (!board.drawing) before = shown;
  shown = { blob, bitmap };
  showPicture(shown);
  byId("save-picture").disabled = false;
}

function showPicture({ bitmap }) {
  const canvas = byId("picture");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function busy(now) {
  byId("dot").className = now ? "busy" : byId("message").hidden ? "ok" : "bad";
  if (now || pictures.median === null) return;
  const waits = pictures.live ? "" : " \u00b7 slow: the picture follows when a stroke ends";
  byId("latency").textContent = `${Math.round(pictures.median)} ms from stroke to picture, median of ${pictures.times.length}${waits}`;
}

function say(error) {
  if (error) sent = null;                        // so that the next change asks again
  byId("message").hidden = !error;
  byId("message").textContent = error ? error.message : "";
}

// What is chosen -----------------------------------------------------------------------------------

const seed = () => Math.min(SEEDS - 1, Math.max(0, Math.floor(+byId("seed").value || 0)));

function choose(label) {
  board.label = label;
  markClass(label);
  board.showAim();
}

function press(group, name, wanted) {
  for (const button of byId(group).children) button.setAttribute("aria-pressed", button.dataset[name] === wanted);
}

function setTool(tool) {
  if (board.drawing) board.finish();
  board.tool = tool;
  press("tools", "tool", tool);
  board.showAim();
}

function setTip(tip) {
  board.square = tip === "square";
  press("tips", "tip", tip);
}

function setSize(size) {
  board.size = Math.min(+byId("size").max, Math.max(1, size));
  byId("size").value = board.size;
  byId("size-shown").textContent = board.size;
  board.showAim();
}

function dice() {
  byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 100000;
  pictures.want();
}

// Files --------------------------------------------------------------------------------------------

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const savePicture = () => shown && download(shown.blob, `paint-seed${seed()}.png`);

async function saveMap() {
  try {
    download(await (await post("api/map", board.labels.data)).blob(), "paint-map.png");
  } catch (error) { say(error); }
}

async function openMap(file) {
  byId("map-file").value = "";
  if (!file) return;
  try {
    const answer = await post("api/labels", file, "image/png");
    board.replace(new Uint8Array(await answer.arrayBuffer()));
    say(null);
  } catch (error) { say(error); }
}

// A reload of the page does not lose the map -------------------------------------------------------

const place = () => `${model.title} ${model.width} ${model.height} ${model.classes.length}`;

function keep() {
  try {
    sessionStorage.setItem(place(), Array.from(board.labels.data, (k) => String.fromCharCode(k + 32)).join(""));
  } catch { /* no room, or forbidden: then a reload starts anew */ }
}

function restore() {
  const kept = sessionStorage.getItem(place());
  if (!kept || kept.length !== board.labels.data.length) return null;
  return Uint8Array.from(kept, (c) => Math.min(model.classes.length - 1, c.charCodeAt(0) - 32));
}

// Listening ----------------------------------------------------------------------------------------

function listen() {
  const on = (id, kind, act) => byId(id).addEventListener(kind, act);
  on("tools", "click", (event) => { const b = event.target.closest("button"); if (b) setTool(b.dataset.tool); });
  on("tips", "click", (event) => { const b = event.target.closest("button"); if (b) setTip(b.dataset.tip); });
  on("size", "input", () => setSize(+byId("size").value));
  on("undo", "click", () => board.step("undo"));
  on("redo", "click", () => board.step("redo"));
  on("clear", "click", () => board.fillAll());
  on("seed", "input", () => pictures.want());
  on("mix", "input", () => pictures.want());
  on("dice", "click", dice);
  on("veil", "input", () => { byId("over").style.opacity = byId("veil").value / 100; });
  on("save-picture", "click", savePicture);
  on("save-map", "click", saveMap);
  on("open-map", "click", () => byId("map-file").click());
  on("map-file", "change", (event) => openMap(event.target.files[0]));
  addEventListener("keydown", key);
  addEventListener("keyup", (event) => { if (event.code === "KeyC" && shown) showPicture(shown); });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("drop"); });
  addEventListener("dragleave", () => document.body.classList.remove("drop"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("drop");
    if (model.takes_styles) styles.show(event.dataTransfer.files[0]);
  });
}

const TOOLS = { b: "brush", f: "fill", l: "line", r: "rect", i: "pick" };

function key(event) {
  if (event.target.matches?.("input[type=number]")) return;
  const name = event.key.toLowerCase(), digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  let act = null;
  if (event.ctrlKey || event.metaKey) {
    if (name === "z") act = () => board.step(event.shiftKey ? "redo" : "undo");
    else if (name === "y") act = () => board.step("redo");
    else if (name === "s") act = savePicture;
  } else if (event.altKey) return;
  else if (digit) {
    const label = (+digit[1] + 9) % 10 + (event.shiftKey ? 10 : 0);
    if (label < model.classes.length) act = () => choose(label);
  } else if (TOOLS[name]) act = () => setTool(TOOLS[name]);
  else if (name === "[") act = () => setSize(board.size - 1);
  else if (name === "]") act = () => setSize(board.size + 1);
  else if (name === "d" && model.seeded) act = dice;
  else if (name === "delete") act = () => board.fillAll();
  else if (name === "c" && before) act = () => showPicture(before);
  if (!act) return;
  event.preventDefault();
  act();
}

addEventListener("hashchange", () => location.reload());     // another start has another token
start();
