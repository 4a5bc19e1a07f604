// The worklist: asks the service for today's list, draws it, and sends what the ward answers.
const EVERY = 60_000, KEY = "clinloom-token", SHOWN = 3;
const at = (id) => document.getElementById(id);
const state = { list: null, tag: null, open: new Set(), history: new Map() };

const instant = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const told = (time) => instant.format(new Date(time));
const percent = (risk) => risk < 0.01 ? "<1%" : risk > 0.99 ? ">99%" : `${Math.round(100 * risk)}%`;
const name = (patient) => patient.patient ?? `No. ${patient.id}`;

// An element with its class and texts or elements in it; texts are never read as markup.
function made(tag, kind, ...inside) {
  const found = document.createElement(tag);
  if (kind) found.className = kind;
  found.append(...inside);
  return found;
}

function drawn(tag, attributes, text) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  if (text !== undefined) found.textContent = text;
  return found;
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return fetch(`worklist/${path}`, { ...options, headers, cache: "no-store" });
}

async function refresh() {
  let answer;
  try {
    answer = await ask("list", { headers: state.tag ? { "If-None-Match": state.tag } : {} });
  } catch {
    return fail("The service cannot be reached");
  }
  if (answer.status === 401) return signIn();
  if (answer.status === 304) return;
  if (!answer.ok) return fail("The list cannot be read now");
  state.tag = answer.headers.get("etag");
  state.list = await answer.json();
  state.history.clear();
  at("signin").hidden = true;
  at("work").hidden = false;
  head();
  show();
}

function signIn() {
  at("denied").textContent = sessionStorage.getItem(KEY) ? "This token is not the right one." : "";
  sessionStorage.removeItem(KEY);
  Object.assign(state, { list: null, tag: null });
  state.history.clear();
  at("list").replaceChildren();
  at("asof").textContent = "";
  at("work").hidden = true;
  at("signin").hidden = false;
  at("token").focus();
}

const say = (text) => { at("said").textContent = text; };
// Where no list is shown yet, what went wrong stands in its place.
function fail(text) {
  if (state.list) say(`${text}; what is shown is of before.`);
  else at("asof").textContent = `${text}.`;
}

function head() {
  const { title, as_of, model, by, left } = state.list;
  document.title = `Worklist: ${title}`;
  at("title").textContent = title;
  at("asof").textContent = as_of ? `Risks as of ${told(as_of)}` : "There is no list yet.";
  const threshold = `Threshold ${percent(model.threshold)}.`;
  const rest = left ? ` ${left} patients at lower risks are left out.` : "";
  at("model").textContent = `Model ${model.study}, ${model.model}, ${model.mark.slice(0, 12)}. ${threshold}${BY[by] ?? ""}${rest}`;
}

const BY = {
  other: " Another bundle is served by now: the list is not by that.",
  "not told": " By which bundle the list was scored is not told; this is the one that is served.",
};
const rise = (patient) => patient.before ? patient.risk - patient.before.risk : null;
const SHOW = {
  all: () => true,
  above: (p) => p.positive,
  changed: (p) => p.moments === 1 || rise(p) >= 0.005,
  open: (p) => !p.answer,
};
const ORDER = {
  risk: (a, b) => b.risk - a.risk,
  rise: (a, b) => (rise(b) ?? 0) - (rise(a) ?? 0) || b.risk - a.risk,
  patient: (a, b) => name(a).localeCompare(name(b), undefined, { numeric: true }),
};

function show() {
  const words = at("find").value.trim().toLowerCase();
  const has = (p) => [name(p), ...p.reasons.map((r) => r.text)].some((t) => t.toLowerCase().includes(words));
  const all = state.list.patients;
  const found = all.filter((p) => SHOW[at("show").value](p) && has(p)).sort(ORDER[at("order").value]);
  const focused = document.activeElement?.dataset?.focus, whose = document.activeElement?.closest(".row")?.dataset.patient;
  at("list").replaceChildren(...found.map(row));
  const same = focused && document.querySelector(`[data-focus="${CSS.escape(focused)}"]`);
  if (same || whose) (same || document.querySelector(`[data-patient="${CSS.escape(whose)}"] summary`) || at("list")).focus();
  const above = found.filter((p) => p.positive).length;
  const open = found.filter((p) => !p.answer).length;
  say(found.length ? `${found.length} of ${all.length} patients, ${above} above the threshold, ${open} not answered yet.` : "Nobody fits.");
}

function row(patient) {
  const found = at("row").content.firstElementChild.cloneNode(true);
  const part = (kind) => found.querySelector(kind);
  found.dataset.patient = patient.id;
  found.classList.toggle("above", patient.positive);
  part(".percent").textContent = percent(patient.risk);
  part(".flag").textContent = patient.positive ? "▲ above threshold" : "below threshold";
  part("h2").textContent = name(patient);
  part(".when").textContent = told(patient.time);
  const reasons = patient.reasons.slice(0, SHOWN).map(reason);
  part(".why").append(...(reasons.length ? reasons : [made("li", "soft", "no reasons were told")]));
  part(".change").append(...change(patient));
  answered(part(".answer"), patient);
  const details = part("details");
  part("summary").dataset.focus = `more ${patient.id}`;
  details.open = state.open.has(patient.id);
  if (details.open) more(part(".more"), patient);
  details.addEventListener("toggle", () => {
    if (!details.open) return state.open.delete(patient.id);
    state.open.add(patient.id);
    more(part(".more"), patient);
  });
  return found;
}

function reason({ text, contribution }) {
  const raises = contribution > 0;
  const sign = made("span", `sign ${raises ? "up" : "down"}`, raises ? "↑" : "↓");
  sign.setAttribute("role", "img");
  sign.setAttribute("aria-label", raises ? "raises the risk:" : "lowers the risk:");
  return made("li", "", sign, made("span", "", text));
}

function change(patient) {
  if (!patient.before) return [made("strong", "", patient.moments > 1 ? "Nothing of yesterday" : "New on the list")];
  const points = Math.round(100 * patient.risk) - Math.round(100 * patient.before.risk);
  const words = points ? `${points > 0 ? "↑" : "↓"} ${Math.abs(points)} ${Math.abs(points) === 1 ? "point" : "points"}` : "Unchanged";
  const since = `${percent(patient.before.risk)} on ${told(patient.before.time)}`;
  const crossed = patient.positive !== patient.before.positive;
  const crossing = crossed ? [made("span", "", `now ${patient.positive ? "above" : "below"} the threshold`)] : [];
  return [made("strong", points > 0 ? "up" : points < 0 ? "down" : "", words), made("span", "", since), ...crossing];
}

function answered(place, patient) {
  const given = patient.answer;
  if (given) {
    const words = given.outcome === "acknowledged" ? "Acknowledged" : `Not useful: ${given.reason ?? "no reason"}`;
    place.replaceChildren(made("p", "", `✓ ${words}`, made("br"), made("span", "soft", told(given.time))));
    return;
  }
  const yes = made("button", "main", "Acknowledge"), no = made("button", "", "Not useful …");
  for (const [button, word] of [[yes, "acknowledge"], [no, "not useful"]]) {
    button.type = "button";
    button.dataset.focus = `${word} ${patient.id}`;
    button.setAttribute("aria-label", `${button.textContent} ${name(patient)}`);
  }
  yes.addEventListener("click", () => give(place, patient, { outcome: "acknowledged" }));
  no.addEventListener("click", () => asked(place, patient));
  place.replaceChildren(yes, no);
}

// Why a risk is of no use: one of the reasons that the service offers.
function asked(place, patient) {
  const select = made("select", "", ...state.list.reasons.map((r) => new Option(r.display, r.code)));
  const send = made("button", "main", "Send"), back = made("button", "", "Back");
  const form = made("form", "", made("label", "", "Why is it not useful?", select), made("div", "line", send, back));
  back.type = "button";
  back.addEventListener("click", () => { answered(place, patient); place.querySelector("button:last-child").focus(); });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    give(place, patient, { outcome: "not_useful", reason: select.value });
  });
  place.replaceChildren(form);
  select.focus();
}

async function give(place, patient, answer) {
  const body = JSON.stringify({ patient: patient.id, time: patient.time, ...answer });
  let kept;
  try {
    kept = await ask("answers", { method: "POST", body, headers: { "Content-Type": "application/json" } });
  } catch {
    kept = { ok: false };
  }
  if (kept.status === 401) return signIn();
  if (kept.ok) {
    await refresh();
    say(`The answer to ${name(patient)} is kept.`);
    return;
  }
  const words = kept.status === 404 ? "The list has changed; look again." : "It was not kept; try again.";
  place.querySelector("[role=alert]")?.remove();
  const alert = made("p", "up", words);
  alert.setAttribute("role", "alert");
  place.append(alert);
  if (kept.status === 404) refresh();
}

async function more(place, patient) {
  if (!state.history.has(patient.id)) {
    place.textContent = "…";
    const answer = await ask(`patients/${encodeURIComponent(patient.id)}`).catch(() => null);
    if (answer?.status === 401) return signIn();
    if (!answer?.ok) { place.textContent = "The history cannot be read now."; return; }
    state.history.set(patient.id, (await answer.json()).reverse());
  }
  const moments = state.history.get(patient.id);
  const risks = made("figure", "", made("h3", "", "Risk so far"), risk(moments));
  place.replaceChildren(risks, made("div", "", made("h3", "", "What weighs, over time"), ...weights(moments)), changes(patient));
}

// Where a moment lies between the first and the last, 0 to 1.
function placed(moments) {
  const times = moments.map((m) => Date.parse(m.time));
  const span = times.at(-1) - times[0];
  return times.map((t) => span ? (t - times[0]) / span : 1);
}

function risk(moments) {
  const [wide, high, left, right, top, low] = [380, 150, 40, 12, 10, 24];
  const threshold = state.list.model.threshold;
  const most = Math.min(1, Math.max(0.1, threshold, ...moments.map((m) => m.risk)) * 1.15);
  const x = placed(moments).map((p) => left + p * (wide - left - right));
  const y = (value) => high - low - value / most * (high - low - top);
  const last = moments.at(-1);
  const words = `Risk from ${percent(moments[0].risk)} on ${told(moments[0].time)} to ${percent(last.risk)} on ${told(last.time)}; the threshold is ${percent(threshold)}.`;
  const found = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": words });
  for (const value of [0, most / 2, most]) {
    found.append(drawn("line", { class: "grid", x1: left, x2: wide - right, y1: y(value), y2: y(value) }));
    found.append(drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, `${Math.round(100 * value)}%`));
  }
  found.append(drawn("line", { class: "limit", x1: left, x2: wide - right, y1: y(threshold), y2: y(threshold) }));
  found.append(drawn("text", { class: "limit-said", x: left + 4, y: y(threshold) - 4 }, "threshold"));
  found.append(drawn("polyline", { class: "path", points: moments.map((m, i) => `${x[i]},${y(m.risk)}`).join(" ") }));
  moments.forEach((m, i) => {
    const dot = drawn("circle", { class: "dot", cx: x[i], cy: y(m.risk), r: 4 });
    dot.append(drawn("title", {}, `${percent(m.risk)}, ${told(m.time)}`));
    found.append(dot);
  });
  if (moments.length > 1) found.append(drawn("text", { x: left, y: high - 6 }, day.format(new Date(moments[0].time))));
  found.append(drawn("text", { x: wide - right, y: high - 6, "text-anchor": "end" }, day.format(new Date(last.time))));
  return found;
}

// A line for each of the weightiest reasons: what it added at each moment at which it was one.
function weights(moments) {
  const now = moments.at(-1).reasons;
  if (!now.length) return [made("p", "soft", "No reasons were told.")];
  const largest = Math.max(...moments.flatMap((m) => m.reasons.map((r) => Math.abs(r.contribution))));
  const x = placed(moments).map((p) => 5 + 140 * p);
  const rows = now.flatMap((one) => {
    const found = moments.map((m, i) => [x[i], m.reasons.find((r) => r.feature === one.feature)]).filter(([, r]) => r);
    const points = found.map(([place, r]) => [place, 20 - 15 * r.contribution / (largest || 1)]);
    const way = one.contribution > 0 ? "raises" : "lowers";
    const svg = drawn("svg", { viewBox: "0 0 150 40", role: "img", "aria-label": `${way} the risk; a reason at ${found.length} of ${moments.length} moments` });
    svg.append(drawn("line", { class: "zero", x1: 0, x2: 150, y1: 20, y2: 20 }));
    svg.append(drawn("polyline", { class: "path", points: points.map((p) => p.join()).join(" ") }));
    points.forEach(([a, b]) => svg.append(drawn("circle", { class: "dot", cx: a, cy: b, r: 3 })));
    return [made("div", "", ...reason(one).childNodes), svg];
  });
  return [made("div", "small", ...rows), made("p", "soft", "Above the line it raises the risk, below it lowers it.")];
}

// A reason reads "what: its value"; before, what is the same is not said again.
function earlier(now, before) {
  if (!before) return " (not among the reasons before)";
  const end = before.lastIndexOf(": ") + 2;
  return ` (before: ${end > 1 && now.startsWith(before.slice(0, end)) ? before.slice(end) : before})`;
}

function changes(patient) {
  const found = patient.changed.map(({ now, before }) => made("li", "", now, made("span", "soft", earlier(now, before))));
  const none = patient.before ? "The same reasons as the day before." : "There is no risk of the day before.";
  return made("div", "", made("h3", "", "What changed since yesterday"), found.length ? made("ul", "", ...found) : made("p", "soft", none));
}

at("signin").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("token").value.trim());
  at("token").value = "";
  refresh();
});
at("filters").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["find", "show", "order"]) at(id).addEventListener("input", show);
setInterval(() => { if (at("signin").hidden && !document.hidden && !document.querySelector(".answer form")) refresh(); }, EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden && at("signin").hidden) refresh(); });
refresh();
