// The emulator's page: one stream of deployments, one of the selected one's logs. Text is only ever set as text.
const STATES = ["SEEKING", "SEEKED", "DEPLOYING", "READY", "TERMINATING", "TERMINATED"];
const POINTS = 120; // samples shown in a chart
const LOG_LINES = 3000;
const token = new URLSearchParams(location.search).get("token");
const $ = (id) => document.getElementById(id);

const deployments = new Map(); // id -> what the emulator last said of it, with its samples
let catalogue = { versions: [], cities: [], url: "" };
let selected = null;
let logStream = null;

function at(path) {
  return token ? `${path}?token=${encodeURIComponent(token)}` : path;
}

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

async function send(method, path, body) {
  const response = await fetch(at(path), {
    method,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts[0] ? `${parts[0]} h ${parts[1]} min` : parts[1] ? `${parts[1]} min ${parts[2]} s` : `${parts[2]} s`;
}

function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

// The list on the left ---------------------------------------------------------------------------------------------

function showList() {
  const ordered = [...deployments.values()].sort((a, b) => b.created - a.created);
  const list = $("list");
  const kept = new Map([...list.children].map((item) => [item.dataset.id, item]));
  ordered.forEach((each, index) => {
    const item = kept.get(each.id) ?? newItem(each.id);
    kept.delete(each.id);
    const button = item.firstElementChild;
    const [name, state, sub] = button.children;
    name.textContent = `${each.application} ${each.version}`;
    state.textContent = each.status;
    state.className = `state ${each.status}`;
    sub.textContent = `${each.id} · ${each.city ?? "no place yet"}${each.restarts ? ` · restarted ${each.restarts}×` : ""}`;
    if (each.id === selected) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  for (const item of kept.values()) item.remove();
  const active = ordered.filter((each) => each.status !== "TERMINATED").length;
  $("count").textContent = ordered.length ? `${active} active of ${ordered.length}` : "none";
  document.title = active ? `(${active}) Edgegap emulator` : "Edgegap emulator";
}

function newItem(id) {
  const item = make("li");
  item.dataset.id = id;
  const button = make("button");
  button.type = "button";
  button.append(make("span"), make("span", "", "state"), make("span", "", "sub"));
  button.addEventListener("click", () => select(id));
  item.append(button);
  return item;
}

// The selected deployment ------------------------------------------------------------------------------------------

function select(id) {
  if (selected === id) return;
  selected = id;
  showList();
  showDetail();
  followLogs();
}

function showDetail() {
  const each = deployments.get(selected);
  $("empty").hidden = Boolean(each);
  $("deployment").hidden = !each;
  if (!each) return;
  $("name").textContent = `${each.application} ${each.version}`;
  $("where").textContent = [each.city, each.country, each.host].filter(Boolean).join(" · ");
  const trouble = each.error ?? each.log_trouble;
  $("trouble").hidden = !trouble;
  $("trouble").textContent = trouble ?? "";
  const ended = each.status === "TERMINATED";
  $("stop").disabled = ended || Boolean(each.stop_by);
  $("stop").textContent = ended ? "Stopped" : each.stop_by ? "Stopping" : "Stop";
  showStates(each);
  showFacts(each);
  showPorts(each);
  showCharts(each);
}

function showStates(each) {
  const entered = new Map(each.history.map(([state, moment]) => [state, moment]));
  const names = entered.has("ERROR") ? STATES.flatMap((state) => (state === "READY" ? (entered.has("READY") ? ["READY", "ERROR"] : ["ERROR"]) : [state])) : STATES;
  $("states").replaceChildren(...names.map((state) => {
    const item = make("li", state.toLowerCase());
    const moment = entered.get(state);
    const current = state === each.status;
    if (state === "ERROR") item.className = "bad";
    else if (current) item.className = state === "READY" || state === "TERMINATED" ? "now" : "now wait";
    else if (moment) item.className = "past";
    if (current) item.setAttribute("aria-current", "step");
    item.append(make("time", moment ? clock(moment) : "–"));
    return item;
  }));
}

function showFacts(each) {
  const now = each.ended ?? Date.now() / 1000;
  const facts = [
    ["Deployment", each.id],
    ["Ready for", each.ready ? span(now - each.ready) : "–"],
    ["Ends", each.ended ? clock(each.ended) : each.removal ? `in ${span(each.removal - now)}` : each.ready ? "no limit" : "–"],
    ["Restart policy", `${each.restart_policy}, ${each.restarts} restart${each.restarts === 1 ? "" : "s"}`],
    ["Grace", `${each.grace} s`],
    ["Last exit", each.crash ?? "–"],
    ["Stopped by", each.stop_by ?? "–"],
    ["Tags", each.tags.join(", ") || "–"],
  ];
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const group = make("div");
    group.append(make("dt", name), make("dd", value, name === "Deployment" ? "mono" : ""));
    return group;
  }));
}

function showPorts(each) {
  const empty = ["SEEKING", "SEEKED"].includes(each.status) ? "not allocated yet" : "none";
  const key = JSON.stringify([each.public_ip, each.ports, empty]);
  if ($("ports").dataset.key === key && $("ports").children.length) return;
  $("ports").dataset.key = key;
  const rows = each.ports.map((port) => {
    const address = `${each.public_ip}:${port.external}`;
    const copy = make("button", "Copy", "small");
    copy.type = "button";
    copy.setAttribute("aria-label", `Copy ${address}`);
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(address);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    const row = make("tr");
    const cells = [make("td", port.name), make("td", address, "mono"), make("td", port.protocol), make("td", String(port.internal), "mono"), make("td")];
    cells[4].append(copy);
    row.append(...cells);
    return row;
  });
  if (!rows.length) {
    const row = make("tr");
    const cell = make("td", empty, "quiet");
    cell.colSpan = 5;
    row.append(cell);
    rows.push(row);
  }
  $("ports").replaceChildren(...rows);
}

// Charts -----------------------------------------------------------------------------------------------------------

function path(values, most, close) {
  const step = 300 / (POINTS - 1);
  const start = 300 - (values.length - 1) * step;
  const points = values.map((value, index) => `${(start + index * step).toFixed(1)},${(78 - 74 * (value / most)).toFixed(1)}`);
  return close ? `M${start.toFixed(1)},80 L${points.join(" L")} L300,80 Z` : `M${points.join(" L")}`;
}

function chart(id, label, series, most, shown, top) {
  const svg = $(id);
  const draw = (values, className, close) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("class", className);
    element.setAttribute("d", path(values, most, close));
    return element;
  };
  const lines = series[0].length > 1 ? [draw(series[0], "area", true), ...series.map((values, index) => draw(values, index ? "line two" : "line", false))] : [];
  svg.replaceChildren(...lines);
  svg.setAttribute("aria-label", `${label}: ${shown}`);
  $(`${id}-value`).textContent = shown;
  $(`${id}-scale`).replaceChildren(make("span", `last ${span(Math.max(0, series[0].length - 1) * catalogue.sample_seconds)}`), make("span", top));
}

function showCharts(each) {
  const samples = each.samples.slice(-POINTS);
  const column = (index) => samples.map((sample) => sample[index]);
  const last = samples.at(-1);
  const cpu = column(1), memory = column(2), received = column(3), sent = column(4);
  const top = (least, ...columns) => Math.max(least, ...columns.flat().map((value) => value * 1.2));
  const cpuTop = top(5, cpu), memoryTop = top(16, memory), networkTop = top(1000, received, sent);
  const ofCpu = `of ${Math.round(each.cpu_units / 10.24)} %`, ofMemory = `of ${each.memory_mb} MB`;
  chart("cpu", "CPU", [cpu], cpuTop, last ? `${last[1].toFixed(1)} ${ofCpu}` : "–", `up to ${Math.round(cpuTop)} % of a vCPU`);
  chart("memory", "Memory", [memory], memoryTop, last ? `${Math.round(last[2])} ${ofMemory}` : "–", `up to ${Math.round(memoryTop)} MB`);
  chart("network", "Network", [received, sent], networkTop, last ? `in ${bytes(last[3])}/s, out ${bytes(last[4])}/s` : "–", `up to ${bytes(networkTop)}/s, out is dashed`);
}

// Logs -------------------------------------------------------------------------------------------------------------

function followLogs() {
  logStream?.close();
  const pane = $("logs");
  pane.replaceChildren();
  $("logs-note").textContent = "";
  $("status-page").hidden = true;
  if (!selected) return;
  let end = ""; // of the output so far: a line may come in two pieces
  const stream = logStream = new EventSource(at(`/emulator/deployments/${selected}/logs`));
  stream.addEventListener("open", () => pane.replaceChildren()); // a reconnected stream begins anew
  stream.addEventListener("log", (event) => {
    const { stream: name, text } = JSON.parse(event.data);
    pane.append(make("span", text, name));
    while (pane.childElementCount > LOG_LINES) pane.firstElementChild.remove();
    if ($("follow").checked) pane.scrollTop = pane.scrollHeight;
    // The agent's own page, where the game has an agent; only ever a page of this machine.
    const found = /arbitrium-agent: status page: (\S+)\s/.exec(end + text);
    if (found && URL.canParse(found[1]) && new URL(found[1]).hostname === "127.0.0.1") {
      $("status-page").href = found[1];
      $("status-page").hidden = false;
    }
    end = (end + text).slice(-300);
  });
  stream.addEventListener("end", (event) => {
    $("logs-note").textContent = JSON.parse(event.data).note;
    $("status-page").hidden = true;
    stream.close();
  });
}

// What the emulator says -------------------------------------------------------------------------------------------

function showCatalogue() {
  $("url").textContent = catalogue.url;
  fill($("version"), catalogue.versions.map(({ application, version }) => [`${application} ${version}`, JSON.stringify({ application, version })]));
  fill($("city"), catalogue.cities.map((city) => [city, city]));
  $("warnings").hidden = !(catalogue.warnings ?? []).length;
  $("warnings-title").textContent = `${(catalogue.warnings ?? []).length} things to know`;
  $("warnings-list").replaceChildren(...(catalogue.warnings ?? []).map((text) => make("li", "", text)));
  $("tls").hidden = !catalogue.tls;
  $("tls-text").textContent = catalogue.tls
    ? `Served on port ${catalogue.tls.port}. Clients trust ${catalogue.tls.authority}. To undo it: take the line for api.edgegap.com out of the hosts file, remove the authority from where it is trusted, and delete its directory. Until then the real platform cannot be reached from this machine.`
    : "";
  const none = catalogue.versions.length === 0;
  for (const control of $("deploy").elements) control.disabled = none;
  $("empty-text").textContent = none
    ? "There is no version yet. Create one over the API, or begin with a versions file:"
    : "Choose a version and deploy it here, or over the API:";
  $("example").textContent = none
    ? `arbitrium-agent emulate versions.toml\n\n# versions.toml\n[[applications]]\nname = "game"\n\n[[applications.versions]]\nname = "1"\nreq_cpu = 512\nreq_memory = 512\ncommand = "arbitrium-agent run -- ./my-server"\nports = [{ port = 7777, protocol = "UDP", name = "gameport" }]`
    : `curl -X POST ${catalogue.url}/v2/deployments \\\n  -H "authorization: token $EDGEGAP_API_TOKEN" -H "content-type: application/json" \\\n  -d '${JSON.stringify({ ...catalogue.versions[0], users: [{ user_type: "geo_coordinates", user_data: { latitude: 48.9, longitude: 2.4 } }] })}'`;
}

function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([text, value]) => {
    const option = make("option", text);
    option.value = value;
    return option;
  }));
  if (options.some(([, value]) => value === before)) select.value = before;
}

function take(said) {
  const before = deployments.get(said.id);
  const samples = [...(before?.samples ?? []), ...said.samples].slice(-POINTS);
  deployments.set(said.id, { ...said, samples });
  if (before && before.status !== said.status) {
    $("announce").textContent = `${said.application} ${said.version}, ${said.id}: ${said.status.toLowerCase()}`;
  }
  if (!selected) select(said.id);
  showList();
  if (said.id === selected) showDetail();
}

function connect() {
  const stream = new EventSource(at("/emulator/stream"));
  const says = (text, className) => {
    $("connection").textContent = text;
    $("connection").className = `connection ${className}`;
  };
  stream.addEventListener("open", () => {
    says("live", "live");
    deployments.clear();
  });
  stream.addEventListener("error", () => says("connection lost, trying again", "lost"));
  stream.addEventListener("catalogue", (event) => { catalogue = JSON.parse(event.data); showCatalogue(); });
  stream.addEventListener("deployment", (event) => take(JSON.parse(event.data)));
  stream.addEventListener("gone", (event) => {
    const { id } = JSON.parse(event.data);
    deployments.delete(id);
    if (selected === id) { selected = null; followLogs(); showDetail(); }
    showList();
  });
}

$("deploy").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("deploy-trouble").hidden = true;
  try {
    const { request_id: id } = await send("POST", "/emulator/deployments", { ...JSON.parse($("version").value), city: $("city").value });
    selected = id;
    showList();
    showDetail();
    followLogs();
  } catch (error) {
    $("deploy-trouble").textContent = error.message;
    $("deploy-trouble").hidden = false;
  }
});

$("stop").addEventListener("click", async () => {
  $("stop").disabled = true;
  try {
    await send("POST", `/emulator/deployments/${selected}/stop`);
  } catch (error) {
    $("trouble").textContent = error.message;
    $("trouble").hidden = false;
  }
});

// Time passes for what is shown as a length of time.
setInterval(() => {
  const each = deployments.get(selected);
  if (each?.ready && !each.ended) showFacts(each);
}, 1000);

showList();
showDetail();
connect();
