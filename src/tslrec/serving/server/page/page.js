// The page of a served recommender: a history is put together, and what is recommended for it is shown.
// Text is set as text only, never as HTML. An answer to an older request is never shown: see `begin`.

const LENGTHS = [5, 10, 20, 50, 100];
const FOUND = 20; // items that a search shows
const NAMED = 50; // items whose titles one request asks for
const TYPING_MS = 150; // a search waits for so long a pause in typing

const state = { history: [], k: 10, filterSeen: true, near: null, models: [] };
let served = { models: [], default: null, limits: {} };
const titles = new Map(); // of every raw id that an answer named; null: without a title
const unknown = new Set(); // raw ids that the catalogue lacks
const find = (id) => document.getElementById(id);

// ---- Elements

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const nameOf = (item) => titles.get(item) ?? item;
const idOf = (item) => (titles.get(item) ? `id ${item}` : "no title");
const titled = (item) => element("span", { class: "title", title: nameOf(item) }, nameOf(item));
const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// Exchanges the rows of a list. The keyboard's focus stays at its place in the list.
function replaceRows(list, rows) {
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...list.children].findIndex((row) => row.contains(focused)) : -1;
  const role = focused?.dataset.role;
  list.replaceChildren(...rows);
  if (focused && rows.length) focusOn(list, place, role);
}

function focusOn(list, place, role) {
  const row = list.children[Math.min(Math.max(place, 0), list.children.length - 1)];
  const wanted = row?.querySelector(`[data-role="${role}"]:not(:disabled)`);
  (wanted ?? row?.querySelector("button:not(:disabled)") ?? find("search")).focus();
}

function showError(place, error, again) {
  const retry = element("button", { type: "button", onclick: again }, "Try again");
  place.replaceChildren(element("span", { class: "error" }, error.message, retry));
}

// ---- Requests

const running = new Map();

// Begins a request of a kind; the one of this kind that still runs is given up.
function begin(kind) {
  running.get(kind)?.abort();
  const controller = new AbortController();
  running.set(kind, controller);
  return controller.signal;
}

async function ask(path, signal, body = null) {
  const posted = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response, answer;
  try {
    response = await fetch(path, { signal, ...(body === null ? {} : posted) });
  } catch {
    throw new Error("The server does not answer; check that it runs.");
  }
  try {
    answer = await response.json();
  } catch {
    throw new Error(`The server's answer (status ${response.status}) is not JSON.`);
  }
  if (!response.ok) throw new Error(answer.error ?? `The server answers with status ${response.status}.`);
  return answer;
}

function remember(items) {
  for (const { item, title } of items) titles.set(item, title);
  return items;
}

// ---- The state in the URL: #history=7,12&k=10&filter_seen=true

function writeHash(push = false) {
  const list = (values) => values.map(encodeURIComponent).join(",");
  const parts = [`history=${list(state.history)}`, `k=${state.k}`, `filter_seen=${state.filterSeen}`];
  if (state.near !== null) parts.push(`near=${encodeURIComponent(state.near)}`);
  if (served.models.length > 2) parts.push(`models=${list(state.models)}`);
  history[push ? "pushState" : "replaceState"](null, "", `#${parts.join("&")}`);
}

function readHash() {
  const given = new Map(
    location.hash.slice(1).split("&").map((part) => {
      const cut = part.indexOf("=");
      return cut < 0 ? [part, ""] : [part.slice(0, cut), part.slice(cut + 1)];
    }),
  );
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text; // a link that was cut off within a %-sequence
    }
  };
  const list = (name) => (given.get(name) ?? "").split(",").filter((text) => text).map(decode);
  const names = served.models.map((model) => model.name);
  const asked = list("models").filter((name) => names.includes(name));
  state.history = list("history").slice(0, served.limits.history);
  state.k = Math.min(Math.max(Math.trunc(Number(given.get("k"))) || 10, 1), longest());
  state.filterSeen = given.get("filter_seen") !== "false";
  state.near = given.has("near") ? decode(given.get("near")) : null;
  state.models = [...new Set([...asked, served.default, ...names])].filter((name) => names.includes(name)).slice(0, 2);
  if (!asked.length) state.models.sort((a, b) => names.indexOf(a) - names.indexOf(b));
}

function longest() {
  return Math.min(served.limits.k, ...served.models.map((model) => model.items));
}

// ---- Search

let options = [];
let active = -1;

async function search() {
  const text = find("search").value.trim();
  const signal = begin("search");
  let found;
  try {
    found = await ask(`items?search=${encodeURIComponent(text)}&limit=${FOUND}`, signal);
  } catch (error) {
    if (signal.aborted) return;
    showOptions([]);
    return showError(find("found-note"), error, search);
  }
  if (signal.aborted) return;
  showOptions(remember(found.items));
  const notes = { 0: "No item has all of these words.", [FOUND]: `The ${FOUND} most popular of them.` };
  const count = found.items.length;
  find("found-note").textContent = text ? (notes[count] ?? `${counted(count, "item")}.`) : "The most popular items.";
}

function showOptions(items) {
  options = items.map((each) => each.item);
  find("found").replaceChildren(
    ...items.map(({ item, count }, place) =>
      element(
        "li",
        { id: `option-${place}`, role: "option", "aria-selected": "false", onclick: (event) => addOnce(event, item) },
        titled(item),
        element("span", { class: "meta" }, `${idOf(item)} · ${counted(count, "interaction")}`),
      ),
    ),
  );
  find("found").scrollTop = 0;
  choose(find("search").value.trim() && items.length ? 0 : -1);
}

function choose(place) {
  const list = find("found").children;
  list[active]?.setAttribute("aria-selected", "false");
  active = place;
  list[active]?.setAttribute("aria-selected", "true");
  list[active]?.scrollIntoView({ block: "nearest" });
  if (active < 0) find("search").removeAttribute("aria-activedescendant");
  else find("search").setAttribute("aria-activedescendant", `option-${active}`);
}

let typing = 0;

function wireSearch() {
  const field = find("search");
  field.addEventListener("input", () => {
    clearTimeout(typing);
    choose(-1); // the items below answer the text as it was
    typing = setTimeout(search, TYPING_MS);
  });
  field.addEventListener("keydown", (event) => {
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in moves && options.length) {
      const from = active < 0 && event.key === "ArrowUp" ? 0 : active;
      choose((from + moves[event.key] + options.length) % options.length);
    } else if (event.key === "Enter" && active >= 0) {
      add(options[active]);
      field.select();
    } else return;
    event.preventDefault();
  });
  find("found").addEventListener("mousedown", (event) => event.preventDefault()); // the focus stays in the field
}

// ---- History

function add(item) {
  const most = served.limits.history;
  if (state.history.length >= most) return say(`The history is full; the server takes ${counted(most, "item")}.`);
  state.history.push(item);
  say(`Added ${nameOf(item)} to the history, item ${state.history.length}.`);
  changed();
}

// The second click of a double click must not add an item twice.
function addOnce(event, item) {
  if (event.detail < 2) add(item);
}

function say(text) {
  find("said").textContent = text;
}

function remove(place) {
  const [item] = state.history.splice(place, 1);
  say(`Removed ${nameOf(item)} from the history.`);
  changed();
  focusOn(find("history"), place, "remove");
}

function move(place, by, role) {
  const [item] = state.history.splice(place, 1);
  state.history.splice(place + by, 0, item);
  say(`${nameOf(item)} is item ${place + by + 1} of the history.`);
  changed();
  focusOn(find("history"), place + by, role);
}

function showHistory() {
  const last = state.history.length - 1;
  const tool = (role, sign, label, disabled, onclick) => {
    const properties = { type: "button", "data-role": role, "aria-label": label, title: label };
    return element("button", { ...properties, disabled, onclick }, sign);
  };
  const rows = state.history.map((item, place) =>
    element(
      "li",
      {},
      element("span", { class: "rank" }, `${place + 1}`),
      element(
        "div",
        {},
        titled(item),
        element(
          "div",
          { class: "below" },
          element("span", { class: "meta" }, unknown.has(item) ? "not in the catalogue" : idOf(item)),
          tool("up", "↑", `Move ${nameOf(item)} up`, place === 0, () => move(place, -1, "up")),
          tool("down", "↓", `Move ${nameOf(item)} down`, place === last, () => move(place, 1, "down")),
          tool("remove", "✕", `Remove ${nameOf(item)}`, false, () => remove(place)),
          unknown.has(item) ? null : similarButton(item),
        ),
      ),
    ),
  );
  replaceRows(find("history"), rows);
  find("history-empty").hidden = last >= 0;
  find("example").hidden = last >= 0;
  find("clear").hidden = last < 0;
  const read = Math.min(...served.models.map((model) => model.max_len));
  const long = last + 1 > read ? `A model here reads the last ${counted(read, "item")} of a history only.` : "";
  const full = last + 1 >= served.limits.history ? "The history is full." : "";
  find("history-note").textContent = [full, long].filter(Boolean).join(" ");
}

async function fillExample() {
  const signal = begin("example");
  try {
    const { items } = await ask("items?search=&limit=3", signal);
    if (signal.aborted || state.history.length) return;
    state.history = remember(items).map((each) => each.item);
    changed();
    find("clear").focus();
  } catch (error) {
    if (!signal.aborted) showError(find("history-note"), error, fillExample);
  }
}

// Raw ids that came with the URL have no titles here yet.
async function nameItems() {
  const named = [...state.history, ...(state.near === null ? [] : [state.near])];
  const wanted = [...new Set(named)].filter((item) => !titles.has(item) && !unknown.has(item));
  if (!wanted.length) return;
  const signal = begin("titles");
  try {
    for (let from = 0; from < wanted.length; from += NAMED) {
      const part = wanted.slice(from, from + NAMED);
      const { items } = await ask(`items?${part.map((item) => `item=${encodeURIComponent(item)}`).join("&")}`, signal);
      remember(items);
      for (const item of part) if (!titles.has(item)) unknown.add(item);
    }
  } catch (error) {
    if (!signal.aborted) showError(find("history-note"), error, nameItems);
    return;
  }
  if (!signal.aborted) showHistory();
}

// ---- Lists of items: one column a model

function buildColumns() {
  const two = state.models.length > 1;
  document.querySelector(".answers").classList.toggle("one", !two);
  find("arrows").hidden = !two;
  for (const id of ["recommended", "near"]) {
    find(id).classList.toggle("two", two);
    find(id).replaceChildren(
      ...state.models.map((name, place) =>
        element(
          "div",
          { class: "column", "data-model": name },
          id === "near" && !two ? null : columnHead(name, place, id === "recommended"),
          element("p", { class: "line", role: "status" }),
          element("ol", { class: "rows" }),
        ),
      ),
    );
  }
}

function columnHead(name, place, full) {
  const model = served.models.find((each) => each.name === name);
  if (!full) return element("div", { class: "column-head" }, element("h3", {}, name));
  const method = model.method === name ? null : model.method;
  const trained = [model.model, model.data].filter((each) => each !== null).join(" on ");
  const about = [method, trained, model.seed === null ? null : `seed ${model.seed}`, counted(model.items, "item")];
  return element(
    "div",
    { class: "column-head" },
    element("h3", {}, served.models.length > 2 ? modelChoice(name, place) : name),
    element("p", { class: "note" }, about.filter(Boolean).join(" · ")),
    element("p", { class: "note" }, metricsOf(model)),
  );
}

// The test metric of a model under both protocols of ranking; NDCG@10 if the run has it.
function metricsOf({ metrics }) {
  const names = Object.keys(metrics).map((key) => key.split("/").at(-1));
  const name = names.includes("NDCG@10") ? "NDCG@10" : names[0];
  const shown = { masked: "masked", unmasked: "not masked" };
  const parts = Object.keys(shown).flatMap((protocol) => {
    const value = metrics[`test/${protocol}/${name}`];
    return Number.isFinite(value) ? [`${value.toFixed(4).replace(/^0/, "")} ${shown[protocol]}`] : [];
  });
  return parts.length ? `Test ${name} ${parts.join(", ")}` : "No test metrics";
}

// The answers of all models to one question.
function askAll(path, signal, question) {
  return Promise.allSettled(state.models.map((model) => ask(path, signal, { ...question, model })));
}

function modelChoice(name, place) {
  const choice = element("select", { "aria-label": `Model of list ${place + 1}` });
  choice.append(...served.models.map((each) => element("option", { selected: each.name === name }, each.name)));
  choice.addEventListener("change", () => {
    const other = state.models[1 - place];
    if (other === choice.value) state.models[1 - place] = name;
    state.models[place] = choice.value;
    buildColumns();
    changed();
    find("recommended").children[place].querySelector("select").focus();
  });
  return choice;
}

function similarButton(item) {
  const label = `Items similar to ${nameOf(item)}`;
  const properties = { class: "similar", type: "button", "data-role": "similar", "aria-label": label, title: label };
  return element("button", { ...properties, onclick: () => showNear(item) }, "Similar");
}

// How an item's rank differs from its rank in the other list.
function markOf(rank, other) {
  if (other === undefined) return element("span", { class: "mark only" }, "only here");
  if (other === rank) return element("span", { class: "mark same" }, "same rank");
  const [sign, words] = other > rank ? ["↑", "higher"] : ["↓", "lower"];
  const by = Math.abs(other - rank);
  const sentence = `${counted(by, "rank")} ${words} than in the other list`;
  const shown = element("span", { "aria-hidden": "true" }, `${sign}${by}`);
  return element("span", { class: "mark", title: sentence }, shown, element("span", { class: "hidden" }, sentence));
}

function rowOf({ item, rank, value, share }, mark) {
  const bar = share === null ? null : element("span", { class: "bar", "aria-hidden": "true" });
  bar?.style.setProperty("--share", share);
  const id = element("span", { class: "id", title: idOf(item) }, idOf(item));
  const number = element("span", { class: "value" }, value ?? "popular");
  return element(
    "li",
    { "data-item": item, class: mark?.classList.contains("only") ? "only" : null },
    element("span", { class: "rank" }, `${rank}`),
    element(
      "button",
      {
        class: "add",
        type: "button",
        "data-role": "add",
        title: `Add ${nameOf(item)} to the history`,
        onclick: (event) => addOnce(event, item),
      },
      element("span", { class: "title" }, element("span", { class: "hidden" }, "Add "), nameOf(item)),
      element("span", { class: "meta" }, id, mark, number, bar),
    ),
    similarButton(item),
  );
}

// Shows the answers to one question, one for each model; `read` makes rows of an answer.
function showLists(id, answers, again, read, notes) {
  const lists = answers.map((answer) => (answer.status === "fulfilled" ? read(answer.value) : null));
  const ranks = lists.map((list) => list && new Map(list.map((each) => [each.item, each.rank])));
  find(id).hidden = false;
  [...find(id).children].forEach((column, place) => {
    const line = column.querySelector(".line");
    const other = ranks[1 - place];
    const mark = (each) => (other ? markOf(each.rank, other.get(each.item)) : null);
    if (lists[place]) line.textContent = notes(answers[place].value, lists[place]);
    else showError(line, answers[place].reason, again);
    replaceRows(column.querySelector(".rows"), (lists[place] ?? []).map((each) => rowOf(each, mark(each))));
  });
  return lists;
}

function emptyLists(id) {
  for (const column of find(id).children) {
    column.querySelector(".line").textContent = "";
    replaceRows(column.querySelector(".rows"), []);
  }
}

const waiting = new Set();

function busy(kind, on) {
  waiting[on ? "add" : "delete"](kind);
  document.querySelector(".answers").setAttribute("aria-busy", `${waiting.size > 0}`);
}

// ---- Recommendations

async function recommend() {
  const signal = begin("recommend");
  if (!state.history.length) {
    busy("recommend", false);
    emptyLists("recommended");
    find("legend").hidden = true;
    find("summary").textContent = "Add an item to the history to see recommendations.";
    return;
  }
  busy("recommend", true);
  const question = { histories: [state.history], k: state.k, filter_seen: state.filterSeen };
  const answers = await askAll("recommend", signal, question);
  if (signal.aborted) return;
  busy("recommend", false);
  const read = ({ lists }) => {
    const items = remember(lists[0].items);
    const best = Math.max(...items.map((each) => each.score ?? 0));
    return items.map(({ item, rank, score }) => ({
      item,
      rank,
      value: score?.toFixed(3) ?? null,
      share: score !== null && best > 0 ? Math.max(score, 0) / best : null,
    }));
  };
  const lists = showLists("recommended", answers, recommend, read, ({ lists: [list] }, rows) => {
    if (list.cold) return "No item of the history is in the catalogue; these are the most popular items.";
    const dropped = `${counted(list.unknown, "item")} of the history ignored: not in the catalogue.`;
    const fewer = `No more than ${counted(rows.length, "item")} can be recommended.`;
    return [list.unknown ? dropped : "", rows.length < state.k ? fewer : ""].filter(Boolean).join(" ");
  });
  find("summary").textContent = summaryOf(lists);
  find("legend").hidden = lists.every((list) => !list?.length);
}

function summaryOf(lists) {
  if (lists.includes(null)) return "";
  const [first, second] = lists;
  if (!second) return `${counted(first.length, "item")} for a history of ${state.history.length}.`;
  const ranks = new Map(second.map((each) => [each.item, each.rank]));
  const shared = first.filter((each) => ranks.has(each.item));
  const same = shared.filter((each) => ranks.get(each.item) === each.rank).length;
  const most = Math.max(first.length, second.length);
  return `The lists share ${shared.length} of ${counted(most, "item")}, ${same} at the same rank.`;
}

// ---- Nearest items

function showNear(item) {
  state.near = item;
  writeHash();
  similar();
  find("near-heading").focus({ preventScroll: true });
  find("near-heading").closest("section").scrollIntoView({ block: "nearest" });
}

// The item whose neighbours are shown: the one that was asked for, else the last known one of the history.
function nearItem() {
  return state.near ?? state.history.findLast((item) => !unknown.has(item)) ?? null;
}

async function similar() {
  const signal = begin("similar");
  const item = nearItem();
  const none = "Add an item of the catalogue to the history to see what is nearest to it.";
  find("near-note").textContent = item === null ? none : `By cosine to ${nameOf(item)}`;
  if (item === null) {
    busy("similar", false);
    find("near").hidden = true;
    return emptyLists("near");
  }
  busy("similar", true);
  const question = { items: [item], k: state.k };
  const answers = await askAll("similar", signal, question);
  if (signal.aborted) return;
  busy("similar", false);
  const read = ({ lists }) =>
    remember(lists[0].items).map(({ item, rank, cosine }) => ({
      item,
      rank,
      value: cosine.toFixed(3),
      share: Math.max(cosine, 0),
    }));
  showLists("near", answers, similar, read, () => "");
}

// ---- Everything together

function changed(push = false) {
  writeHash(push);
  showHistory();
  recommend();
  nameItems().then(similar);
}

function showSettings() {
  const lengths = [...new Set([...LENGTHS.filter((each) => each <= longest()), state.k])].sort((a, b) => a - b);
  find("k").replaceChildren(...lengths.map((each) => element("option", { selected: each === state.k }, `${each}`)));
  find("filter-seen").checked = state.filterSeen;
}

function restore() {
  readHash();
  showSettings();
  buildColumns();
  changed();
}

function wire() {
  wireSearch();
  find("example").addEventListener("click", fillExample);
  find("clear").addEventListener("click", () => {
    Object.assign(state, { history: [], near: null });
    say("The history is empty.");
    changed(true); // the browser's Back restores it
    find("search").focus();
  });
  find("k").addEventListener("change", () => {
    state.k = Number(find("k").value);
    changed();
  });
  find("filter-seen").addEventListener("change", () => {
    state.filterSeen = find("filter-seen").checked;
    changed();
  });
  document.querySelector(".options").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("popstate", restore); // Back, Forward, and an edited hash
}

async function start() {
  const signal = begin("start");
  const main = document.querySelector("main");
  find("failure").hidden = true;
  try {
    served = await ask("models", signal);
  } catch (error) {
    if (signal.aborted) return;
    find("failure").hidden = false;
    main.hidden = true;
    return showError(find("failure"), error, start);
  }
  main.hidden = main.inert = false;
  wire();
  restore();
  search();
}

start();
