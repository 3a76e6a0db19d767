// The page's own script: tables that sort, a table of all trials that filters, a section for each trial, lines across
// parallel axes. No library, no network. What it shows lies in the page (sweep/report/page_data.py).
"use strict";
(() => {
  const PAGE_ROWS = 100;            // rows drawn at first: all 2,400 would take a second to lay out
  const FEW_VALUES = 12;            // values of a column up to which they are offered as a choice
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  const WORDS = { a: "supports", b: "refutes", c: "not enough info", "-": "no answer" };

  const make = (tag, options = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), options);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const compare = (one, other) => {
    if (one === other) return 0;
    if (one === null || one === "" || one === undefined) return 1;      // what is missing stays last
    if (other === null || other === "" || other === undefined) return -1;
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en", { numeric: true });
  };
  const printed = (value, column) => {
    if (value === null || value === undefined || value === "") return "—";
    if (typeof value !== "number" || column.kind !== "number") return String(value);
    const text = column.name === "p" && value < 0.001 ? "< 0.001" : value.toFixed(3);
    return ((column.sign && value > 0 ? "+" : "") + text).replace("-", "−");
  };
  const verdictClass = (text) => ({ better: "better", worse: "worse", higher: "better", lower: "worse" })[text] || "";

  // ---- tables that are printed in the page: a click on a heading sorts
  const cellKey = (cell) => {
    const key = cell.dataset.key ?? cell.textContent.trim();
    return key !== "" && !Number.isNaN(Number(key)) ? Number(key) : key === "—" ? "" : key;
  };
  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      head.tabIndex = 0;
      head.title = "sort";
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [cellKey(row.cells[place]), row]);
        rows.sort(([a], [b]) => (a === "" || b === "" ? compare(a, b) : up ? compare(a, b) : compare(b, a)));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
    });
  }

  // ---- the table of all trials
  function filterOf(text, columns) {
    // words must occur in a row; NAME=VALUE, NAME>NUMBER and NAME<NUMBER hold for a column
    const names = columns.map((column) => column.name.replaceAll(" ", "_").toLowerCase());
    const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
      const [, name, sign, value] = /^([^=<>]+)(=|<|>)(.+)$/.exec(word) || [];
      const place = names.indexOf((name || "").toLowerCase());
      if (place < 0) return (row) => row.some((cell) => String(cell ?? "").toLowerCase().includes(word.toLowerCase()));
      if (sign === "=") return (row) => String(row[place] ?? "").toLowerCase() === value.toLowerCase();
      return (row) => row[place] !== null && (sign === "<" ? row[place] < Number(value) : row[place] > Number(value));
    });
    return (row) => tests.every((test) => test(row));
  }

  function trialTable(place, data, drawn) {
    const { columns, rows } = data;
    let order = rows.map((_, i) => i), sorted = null, up = true, most = PAGE_ROWS, kept = order;
    const search = make("input", { type: "search", placeholder: "filter: words, model=NAME, accuracy>0.5, …", className: "filter" });
    search.setAttribute("aria-label", "filter the trials");
    const choices = columns.map((column, i) => {
      const values = column.kind === "number" || i === 0 ? [] : [...new Set(rows.map((row) => row[i]))].sort(compare);
      if (values.length < 2 || values.length > FEW_VALUES) return null;
      const select = make("select", {}, make("option", { value: "", textContent: `${column.name}: all` }),
        ...values.map((value, k) => make("option", { value: String(k), textContent: value === "" ? "—" : String(value) })));
      select.setAttribute("aria-label", column.name);
      select.holds = (row) => select.value === "" || row[i] === values[Number(select.value)];
      return select;
    }).filter(Boolean);
    const count = make("p", { className: "count" }), body = make("tbody");
    const heads = columns.map((column, i) => {
      const head = make("th", { textContent: column.name, tabIndex: 0, title: "sort", className: i < 2 ? `fixed${i}` : "" });
      const sort = () => { up = sorted === i ? !up : true; sorted = i; update(); };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
      return head;
    });
    const more = make("button", { type: "button", textContent: "show all" });
    more.addEventListener("click", () => { most = Infinity; update(); });
    const cell = (row, column, i) => {
      const element = make("td", { className: i < 2 ? `fixed${i}` : "" });
      if (i === 0) element.append(make("a", { href: `#trial-${row[0]}`, textContent: row[0].slice(0, 8) }));
      else element.textContent = printed(row[i], column);
      if (column.name.startsWith("verdict")) element.classList.add(verdictClass(row[i]) || "none");
      return element;
    };
    function update() {
      const holds = filterOf(search.value, columns);
      kept = order.filter((i) => holds(rows[i]) && choices.every((select) => select.holds(rows[i])));
      if (sorted !== null) {
        const empty = (value) => value === null || value === "";
        kept.sort((a, b) => {
          const [x, y] = [rows[a][sorted], rows[b][sorted]];
          return empty(x) || empty(y) ? compare(x, y) : up ? compare(x, y) : compare(y, x);
        });
      }
      heads.forEach((head, i) => i === sorted ? head.setAttribute("aria-sort", up ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
      body.replaceChildren(...kept.slice(0, most).map((i) => make("tr", {}, ...columns.map((column, k) => cell(rows[i], column, k)))));
      count.textContent = `${kept.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} trials` +
        (kept.length > most ? `, the first ${most} shown ` : " ");
      if (kept.length > most) count.append(more);
      drawn(kept);
    }
    let wait = 0;
    search.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(update, 120); });
    choices.forEach((select) => select.addEventListener("change", update));
    place.append(make("div", { className: "filters" }, search, ...choices), count,
      make("div", { className: "wide" }, make("table", { className: "trials" }, make("thead", {}, make("tr", {}, ...heads)), body)));
    update();
    return () => kept;
  }

  // ---- parallel coordinates of the trials that the filter keeps
  const shade = (share) => {                                            // viridis, read off at five points
    const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
    const at = Math.min(0.92, Math.max(0, share)) * 4, low = Math.floor(at), part = at - low;
    const mixed = stops[low].map((value, i) => Math.round(value + (stops[Math.min(4, low + 1)][i] - value) * part));
    return `rgb(${mixed.join(",")})`;
  };
  function parallel(place, data) {
    const { columns, rows } = data;
    const skipped = new Set(["trial", "verdict", "status", "low", "high", "p", "verdict on plain", "macro F1", "difference", "against plain"]);
    const axes = columns.map((column, i) => ({ column, i })).filter(({ column, i }) =>
      !skipped.has(column.name) && new Set(rows.map((row) => row[i]).filter((v) => v !== null && v !== "")).size > 1);
    if (axes.length < 2) return () => {};
    const colour = axes.find(({ column }) => column.name === "accuracy") || axes.find(({ column }) => column.name === "NLL") || axes[axes.length - 1];
    for (const axis of axes) {
      const values = [...new Set(rows.map((row) => row[axis.i]).filter((v) => v !== null && v !== ""))].sort(compare);
      const numbers = values.filter((value) => typeof value === "number");
      axis.metric = axis.column.kind === "number";
      axis.values = values;
      const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
      axis.at = axis.metric
        ? (value) => (typeof value === "number" ? (high > low ? (value - low) / (high - low) : 0.5) : null)
        : (value) => (values.includes(value) ? (values.length > 1 ? values.indexOf(value) / (values.length - 1) : 0.5) : null);
      axis.ticks = axis.metric ? [low, high].map((v) => [axis.at(v), v.toFixed(3)]) : values.length > 12 ? [[0, values[0]], [1, values[values.length - 1]]] : values.map((v) => [axis.at(v), String(v)]);
    }
    const canvas = make("canvas", { className: "parallel" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "parallel coordinates of the trials");
    place.append(canvas);
    return (kept) => {
      const width = place.clientWidth || 900, height = 340, top = 34, bottom = 16, left = 96, right = 60;
      const ratio = window.devicePixelRatio || 1;
      canvas.width = width * ratio; canvas.height = height * ratio;
      canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
      const pen = canvas.getContext("2d"), ink = getComputedStyle(document.body).color;
      pen.scale(ratio, ratio);
      pen.font = "11px system-ui, sans-serif";
      const x = (k) => left + (k * (width - left - right)) / (axes.length - 1);
      const y = (share) => height - bottom - share * (height - top - bottom);
      pen.globalAlpha = Math.max(0.06, Math.min(0.7, 60 / kept.length));
      for (const i of kept) {
        const share = colour.at(rows[i][colour.i]);
        pen.strokeStyle = share === null ? "#999999" : shade(share);
        pen.beginPath();
        let broken = true;
        axes.forEach((axis, k) => {
          const at = axis.at(rows[i][axis.i]);
          if (at === null) { broken = true; return; }                   // a field that means nothing here: a gap
          if (broken) pen.moveTo(x(k), y(at)); else pen.lineTo(x(k), y(at));
          broken = false;
        });
        pen.stroke();
      }
      pen.globalAlpha = 1;
      pen.fillStyle = ink; pen.strokeStyle = ink;
      axes.forEach((axis, k) => {
        pen.beginPath(); pen.moveTo(x(k), y(0)); pen.lineTo(x(k), y(1)); pen.stroke();
        pen.textAlign = k === 0 ? "left" : k === axes.length - 1 ? "right" : "center";
        pen.font = "bold 11px system-ui, sans-serif";
        pen.fillText(axis.column.name, k === 0 ? 4 : k === axes.length - 1 ? width - 4 : x(k), 14);
        pen.font = "10px system-ui, sans-serif";
        pen.textAlign = k === 0 ? "right" : "left";
        for (const [at, text] of axis.ticks) pen.fillText(text.length > 14 ? `${text.slice(0, 13)}…` : text, x(k) + (k === 0 ? -5 : 5), y(at) + 3);
      });
    };
  }

  // ---- one trial
  const svg = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    if (text !== undefined) element.textContent = text;
    return element;
  };
  function curve(name, [epochs, values], index) {
    const points = epochs.map((epoch, i) => [epoch, values[i]]).filter(([, value]) => value !== null);
    const width = 300, height = 170, left = 46, bottom = 26, top = 20;
    const [x0, x1] = [points[0][0], points[points.length - 1][0]];
    const all = points.map(([, value]) => value), low = Math.min(...all), high = Math.max(...all);
    const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - 10);
    const y = (v) => height - bottom - ((v - low) / (high - low || 1)) * (height - bottom - top);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": name });
    picture.append(svg("path", { d: `M${left},${top}V${height - bottom}H${width - 10}`, fill: "none", stroke: "currentColor", "stroke-width": 0.8 }),
      svg("polyline", { points: points.map(([e, v]) => `${x(e).toFixed(1)},${y(v).toFixed(1)}`).join(" "), fill: "none", stroke: COLOURS[index % COLOURS.length], "stroke-width": 1.8 }),
      svg("text", { x: left, y: 12, class: "head" }, name), svg("text", { x: left - 4, y: y(high) + 4, "text-anchor": "end" }, high.toPrecision(4)),
      svg("text", { x: left - 4, y: y(low) + 4, "text-anchor": "end" }, low.toPrecision(4)),
      svg("text", { x: x(x0), y: height - 10 }, String(x0)), svg("text", { x: x(x1), y: height - 10, "text-anchor": "end" }, `epoch ${x1}`));
    return picture;
  }
  const table = (heads, rows) => {
    const found = make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { textContent: head })))),
      make("tbody", {}, ...rows.map((row) => make("tr", { className: row.look || "" }, ...row.map((text) => make("td", { textContent: text ?? "—" }))))));
    sortable(found);
    return make("div", { className: "wide words" }, found);
  };
  function histogram(title, told) {
    const most = Math.max(...told.counts, 1), width = 300, height = 130;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
    const step = (width - 20) / told.counts.length;
    told.counts.forEach((count, i) => picture.append(svg("rect", { x: 10 + i * step, y: 100 - (count / most) * 80, width: Math.max(1, step - 2), height: (count / most) * 80, fill: COLOURS[0] })));
    picture.append(svg("text", { x: 10, y: 12, class: "head" }, title), svg("text", { x: 10, y: 116 }, String(told.least)),
      svg("text", { x: width - 10, y: 116, "text-anchor": "end" }, String(told.most)), svg("text", { x: width / 2, y: 128, "text-anchor": "middle" }, `mean ${told.mean}`));
    return picture;
  }
  function changedAnswers(page, data) {
    const { group, answers } = page.changed, places = data.groups[group], base = data.bases[`${page.base} ${group}`];
    const rows = [];
    [...answers].forEach((now, i) => {
      if (now === ".") return;
      const [text, about, truth] = data.questions[places[i]];
      const kind = now === truth ? "newly right" : base[i] === truth ? "newly wrong" : "wrong in another way";
      const row = [kind, text, about, WORDS[truth], WORDS[base[i]], WORDS[now]];
      row.look = { "newly right": "better", "newly wrong": "worse" }[kind] || "";
      rows.push(row);
    });
    rows.sort((a, b) => compare(a[0], b[0]));
    const count = (kind) => rows.filter((row) => row[0] === kind).length;
    return [make("p", { textContent: `${count("newly right")} newly right, ${count("newly wrong")} newly wrong, ${count("wrong in another way")} wrong in another way.` }),
      table(["change", "claim", "page", "truth", "reference", "this trial"], rows)];
  }
  function showTrial(section, id, data, order) {
    const place = data.rows.findIndex((row) => row[0] === id);
    if (place < 0) { section.replaceChildren(make("p", { textContent: `No trial ${id} in this report.` })); return; }
    const row = data.rows[place], page = Object.fromEntries(Object.entries(data.pages).map(([part, all]) => [part, all[place]]));
    const at = (name) => row[data.columns.findIndex((column) => column.name === name)];
    const number = (value, sign) => printed(value, { kind: "number", sign });
    const list = order(), here = list.indexOf(place);
    const link = (i, text) => (list[i] === undefined ? null : make("a", { href: `#trial-${data.rows[list[i]][0]}`, textContent: text }));
    const parts = [make("p", { className: "nav" }, make("a", { href: "#trials", textContent: "← all trials" }), " ", link(here - 1, "previous"), " ", here < 0 ? null : link(here + 1, "next")),
      make("h1", { textContent: `Trial ${id}` }), make("p", { textContent: page.words })];
    if (page.origin) parts.push(make("p", {}, page.origin, " ", page.parent ? make("a", { href: `#trial-${page.parent}`, textContent: "the trial it is a clone of" }) : null));
    if (page.error) parts.push(make("p", { className: "worse", textContent: `${at("status")}: ${page.error}` }));
    else if (at("status") !== "done") parts.push(make("p", { className: "worse", textContent: at("status") }));
    if (typeof at("difference") === "number")
      parts.push(make("p", {}, `${data.what}, against the pretrained model: ${number(at("difference"), 1)} [${number(at("low"), 1)}, ${number(at("high"), 1)}], corrected p ${printed(at("p"), { kind: "number", name: "p" })}: `,
        make("strong", { className: verdictClass(at("verdict")), textContent: at("verdict") }), ". ", page.base ? make("a", { href: `#trial-${page.base}`, textContent: "its reference" }) : null));
    if (page.plain)
      parts.push(make("p", {}, `FEVER accuracy, against plain memorising: ${number(page.plain.difference, 1)} [${page.plain.interval.map((v) => number(v, 1)).join(", ")}], corrected p ${printed(page.plain.p, { kind: "number", name: "p" })}: `,
        make("strong", { className: verdictClass(page.plain.verdict), textContent: page.plain.verdict }), ". ", make("a", { href: `#trial-${page.plain.trial}`, textContent: "plain memorising" })));
    const curves = Object.entries(page.curves || {});
    if (curves.length) parts.push(make("h2", { textContent: "Curves" }), make("div", { className: "curves" }, ...curves.map(([name, points], i) => curve(name, points, i))),
      make("p", { className: "count", textContent: "This one training, epoch by epoch: no interval. Lines over seeds, with theirs, are in the report's figures." }));
    if (page.changed?.answers) parts.push(make("h2", { textContent: "Answers that changed from the reference" }), ...changedAnswers(page, data));
    else if (page.changed) parts.push(make("p", { textContent: "The answers that changed are left out of this page, which would be too large; they lie in the trial's folder." }));
    if (page.samples) parts.push(make("h2", { textContent: "Sampled answers that changed" }),
      table(["change", "prompt", "true target", "reference", "this trial"], page.samples.map(([q, t, b, a, gained]) => [gained ? "more often true" : "less often true", q, t, b, a])));
    if (typeof page.allocation === "number") {
      const told = data.allocations[page.allocation];
      const overlap = typeof told.correlation === "number" ? ` Shared entries follow the similarity of texts with a correlation of ${told.correlation} (expected: ${told.expected_correlation}).` : "";
      parts.push(make("h2", { textContent: "Its allocation" }), make("p", { textContent: `${told.name}: ${told.groups} groups of documents on ${told.memory_dim} entries.${overlap}` }),
        make("div", { className: "curves" }, histogram("entries of a group", told.entries), histogram("groups on an entry", told.load)));
    }
    parts.push(make("h2", { textContent: "Fields and metrics" }), make("div", { className: "curves" },
      table(["field", "value"], Object.entries(page.fields)), table(["metric", "value"], Object.entries(page.metrics || {}).map(([name, value]) => [name, String(value)]))),
      make("p", {}, "Its folder: ", make("code", { textContent: page.folder })));
    section.replaceChildren(...parts);
  }

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }
  async function start() {
    document.querySelectorAll("main table").forEach((each) => { if (each.tHead) sortable(each); });
    const holder = document.getElementById("packed-trials"), place = document.getElementById("trials-here");
    if (!holder || !place) return;
    let data;
    try { data = await unpack(holder.textContent); } catch (error) {
      place.textContent = `This browser cannot unpack the table of trials (${error}); the same rows are in tables/trials.csv.`;
      return;
    }
    const main = document.querySelector("main"), section = document.getElementById("one-trial");
    const lines = document.getElementById("parallel-here");
    const draw = lines ? parallel(lines, data) : () => {};
    const order = trialTable(place, data, draw);
    let scroll = 0;
    const route = () => {
      const id = /^#trial-(.+)$/.exec(location.hash)?.[1];
      if (id && section.hidden) scroll = window.scrollY;
      section.hidden = !id;
      main.hidden = Boolean(id);
      if (id) { showTrial(section, decodeURIComponent(id), data, order); window.scrollTo(0, 0); }
      else if (location.hash === "#trials" || !location.hash) { if (scroll) window.scrollTo(0, scroll); scroll = 0; }
    };
    window.addEventListener("hashchange", route);
    window.addEventListener("resize", () => { if (!main.hidden) draw(order()); });
    route();
    document.body.dataset.ready = "yes";
  }
  start();
})();
