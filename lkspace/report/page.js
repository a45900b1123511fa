"use strict";
/* Draws the page from the JSON in #data. Every text goes in as text; Plotly's labels, which read a little markup, are
   escaped. window.__lk says what is shown: ready, selected (a trial's number), front (of the two axes), overall. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const trials = data.trials;
  const byNumber = new Map(trials.map((t) => [t.number, t]));
  const state = { x: 0, y: 0, selected: null, sort: null, descending: false, filter: "all", limit: 200 };
  const lk = { ready: false, selected: null, front: [], overall: trials.filter((t) => t.front).map((t) => t.number) };
  window.__lk = lk;

  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const escape = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  /* Axes: the objectives; the trial's number stands in where there is only one. */
  const axes = data.objectives.map((o) => ({ ...o, unit: data.scores[o.score].unit, of: (t) => t.values[o.score] }));
  if (axes.length === 1) axes.unshift({ name: "trial", unit: null, better: "in order", sign: 0, of: (t) => t.number });
  const single = data.objectives.length === 1;

  const counted = (t) => t.outcome === "complete" && t.feasible;
  const stopped = (t) => t.outcome === "stopped";
  const broken = (t) => t.outcome === "failed" || t.outcome === "diverged";
  const placed = (t, x, y) => x.of(t) !== null && y.of(t) !== null;

  /* The trials that no other one dominates in two objectives, from the best to the worst across; ties together. */
  function frontOf(points, x, y) {
    const cost = (axis, t) => axis.sign * axis.of(t);
    const order = [...points].sort((a, b) => cost(x, a) - cost(x, b) || cost(y, a) - cost(y, b));
    const front = [];
    for (const t of order) {
      const last = front[front.length - 1];
      const equal = last && cost(x, last) === cost(x, t) && cost(y, last) === cost(y, t);
      if (!last || equal || cost(y, t) < cost(y, last)) front.push(t);
    }
    return front;
  }

  function hover(t) {
    const lines = [`<b>trial ${t.number}</b>  ${t.id}`];
    data.scores.forEach((score, i) => {
      if (t.values[i] === null) return;
      const ends = t.intervalShown[i] ? ` (${t.intervalShown[i]})` : "";
      const again = t.againShown[i] ? `, again ${t.againShown[i]}` : "";
      lines.push(escape(`${score.name} ${t.shown[i]}${ends}${again}`));
    });
    const a = t.architecture;
    lines.push(`B[${a.blocks}]  C[${a.channels}]`, `K[${a.kernels}]  re-param[${a.reparam.map((k) => k ?? "-")}]`);
    lines.push(`shortcut[${a.shortcut.map((s) => (s ? "y" : "n")).join("")}]  dw ${a.dw_ratio}  ffn ${a.ffn_ratio}`);
    if (t.outcome !== "complete") lines.push(escape(`${t.outcome}: ${t.reason}`));
    return lines.join("<br>");
  }

  /* Figures. */

  const axisLayout = (title, unit, log) => ({
    title: { text: escape(title), font: { size: 13, color: colour("quiet") }, standoff: 10 },
    type: log ? "log" : "linear",
    tickformat: { "%": "~%", "": "~s" }[unit] ?? "~g",
    gridcolor: colour("grid"), linecolor: colour("line"), zeroline: false, automargin: true,
    ticks: "outside", tickcolor: colour("line"), nticks: 8,
  });
  const layout = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("text") },
    margin: { l: 64, r: 16, t: 16, b: 48 },
    hoverlabel: {
      align: "left", bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text"), size: 13 },
    },
    ...more,
  });
  const options = { displayModeBar: false, responsive: true };

  function points(list, x, y, marker) {
    return {
      type: "scatter", mode: "markers", x: list.map(x.of), y: list.map(y.of), customdata: list.map((t) => t.number),
      hovertext: list.map(hover), hoverinfo: "text", marker, cliponaxis: false,
    };
  }

  function bars(list, axis) {
    if (axis.score === undefined || !list.some((t) => t.interval[axis.score])) return undefined;
    const gap = (t, end) => (t.interval[axis.score] ? Math.abs(t.interval[axis.score][end] - axis.of(t)) : 0);
    return {
      type: "data", symmetric: false, array: list.map((t) => gap(t, 1)), arrayminus: list.map((t) => gap(t, 0)),
      thickness: 1.4, width: 5, color: colour("quiet"),
    };
  }

  /* The staircase: what the front reaches, drawn on to the edge of the points shown. */
  function staircase(front, shown, x, y) {
    if (!front.length || single) return [];
    const worst = (axis) => shown.reduce((w, t) => (axis.sign * axis.of(t) > axis.sign * w ? axis.of(t) : w), axis.of(front[0]));
    const first = front[0], last = front[front.length - 1];
    return [{
      type: "scatter", mode: "lines", hoverinfo: "skip", line: { shape: "hv", width: 2, color: colour("front") },
      x: [x.of(first), ...front.map(x.of), worst(x)], y: [worst(y), ...front.map(y.of), y.of(last)],
    }];
  }

  function drawFront() {
    const x = axes[state.x], y = axes[state.y];
    const shown = trials.filter((t) => placed(t, x, y) && t.outcome !== "running");
    const feasible = shown.filter(counted);
    const pair = single ? feasible.filter((t) => t.front) : frontOf(feasible, x, y);
    const onPair = new Set(pair);
    const others = feasible.filter((t) => t.front && !onPair.has(t));
    const dominated = feasible.filter((t) => !t.front && !onPair.has(t));
    lk.front = pair.map((t) => t.number);
    const diamonds = points(pair, x, y, {
      symbol: "diamond", size: 12, color: colour("front"), line: { width: 1.5, color: colour("panel") },
    });
    const traces = [
      points(shown.filter((t) => !t.feasible && !stopped(t) && !broken(t)), x, y, { symbol: "x-thin", size: 8, line: { width: 1.6, color: colour("infeasible") } }),
      points(shown.filter(broken), x, y, { symbol: "asterisk-open", size: 8, line: { width: 1.4, color: colour("infeasible") } }),
      points(shown.filter(stopped), x, y, { symbol: "triangle-down-open", size: 7, color: colour("quiet"), line: { width: 1.2 } }),
      points(dominated, x, y, { symbol: "circle-open", size: 8, color: colour("dominated"), line: { width: 1.4 } }),
      ...staircase(pair, feasible, x, y),
      points(others, x, y, {
        symbol: "diamond", size: 10, color: colour("front-soft"), line: { width: 1.2, color: colour("front") },
      }),
      { ...diamonds, error_x: bars(pair, x), error_y: bars(pair, y) },
    ];
    const title = (axis) => `${axis.name}${axis.unit ? ` (${axis.unit})` : ""}, ${axis.better}`;
    const figure = layout({ xaxis: axisLayout(title(x), x.unit, $("log-x").checked), yaxis: axisLayout(title(y), y.unit, $("log-y").checked) });
    drawn.trials = new Set(shown);
    Object.assign(figure, mark());
    Plotly.react("scatter", traces, figure, options);
    $("scatter").setAttribute("aria-label", `${y.name} against ${x.name}: ${pair.length} of ${plural(feasible.length, "candidate")} on the front. The table below holds the same values.`);
    caption(shown, pair, others, x, y);
  }

  /* The ring around the selected point: not a trace, for a change of traces draws thousands of points again. */
  const drawn = { trials: new Set() };
  function mark() {
    const t = byNumber.get(state.selected), x = axes[state.x], y = axes[state.y];
    if (!drawn.trials.size) return { shapes: [], annotations: [nothing("No candidate has values for both axes yet")] };
    if (!t || !drawn.trials.has(t)) return { shapes: [], annotations: [] };
    const place = (side, axis) => ($(`log-${side}`).checked ? Math.log10(axis.of(t)) : axis.of(t));  // of an annotation
    const ring = { type: "circle", xsizemode: "pixel", ysizemode: "pixel", x0: -11, x1: 11, y0: -11, y1: 11 };
    const label = { text: `<b>${t.number}</b>`, showarrow: false, yshift: 22, font: { color: colour("selected"), size: 14 } };
    return {
      shapes: [{ ...ring, xanchor: x.of(t), yanchor: y.of(t), line: { color: colour("selected"), width: 3 } }],
      annotations: [{ ...label, x: place("x", x), y: place("y", y) }],
    };
  }

  const nothing = (text) => ({
    text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 15, color: colour("quiet") },
  });

  function caption(shown, pair, others, x, y) {
    const hidden = trials.length - shown.length;
    const parts = [`${plural(pair.length, "candidate")} on the front of ${x.name} and ${y.name}.`];
    if (single) parts[0] = `${plural(pair.length, "candidate")} with the best ${y.name}.`;
    if (others.length) parts.push(`${plural(others.length, "more")} on the front of all objectives.`.replace("mores", "more"));
    if (hidden) parts.push(`${plural(hidden, "trial")} without both values, or still running, not drawn; see the table.`);
    $("front-caption").textContent = parts.join(" ");
  }

  function drawHistory() {
    const improves = data.history.map(([, v], i) => i === 0 ? v > 0 : v > data.history[i - 1][1]);
    const trace = {
      type: "scatter", mode: "lines+markers", line: { shape: "hv", width: 2, color: colour("front") },
      marker: { symbol: "diamond", size: improves.map((b) => (b ? 8 : 0.1)), color: colour("front") },
      x: data.history.map((_, i) => i + 1), y: data.history.map(([, v]) => v),
      customdata: data.history.map(([n]) => n), hoverinfo: "text",
      hovertext: data.history.map(([n, v], i) => `${plural(i + 1, "trial")} finished: ${v.toPrecision(4)}<br>the last one is trial ${n}`),
    };
    const figure = layout({
      xaxis: { ...axisLayout("trials finished", null, false), rangemode: "tozero" },
      yaxis: { ...axisLayout("hypervolume", null, false), rangemode: "tozero" },
    });
    if (!data.history.length) figure.annotations = [nothing("No trial has finished yet")];
    Plotly.react("hypervolume", [trace], figure, options);
    $("hypervolume").setAttribute("aria-label", `Hypervolume after each finished trial, ${data.hypervolume.toPrecision(4)} at the end.`);
    const corner = (key) => data.objectives.map((o) => `${o.name} ${o[key]}`).join(", ");
    $("history-caption").textContent = `Share of the box between the reference point (${corner("reference")}; fixed before the first trial) and the ideal corner (${corner("ideal")}) that the front dominates.`;
  }

  /* Texts around the figures. */

  function drawHead() {
    const finished = trials.filter((t) => t.outcome !== "running").length;
    $("subtitle").textContent = data.run.filter(([name]) => ["search space", "data", "device"].includes(name)).map(([, text]) => text).join(" · ");
    const tile = (value, label) => make("div", { className: "tile" }, make("b", { textContent: value }), make("span", { textContent: label }));
    const tiles = [tile(`${finished}${data.budget ? ` of ${data.budget}` : ""}`, "trials finished"), tile(lk.overall.length, "on the front"), tile(data.hypervolume.toPrecision(3), "hypervolume")];
    for (const o of data.objectives) {
      const best = trials.filter((t) => t.front).reduce((b, t) => (b === null || o.sign * t.values[o.score] < o.sign * b.values[o.score] ? t : b), null);
      if (best) tiles.push(tile(best.shown[o.score], `best ${o.name}, trial ${best.number}`));
    }
    $("tiles").replaceChildren(...tiles);
    if (data.scores.some((s) => s.name === "accuracy")) {
      $("note").hidden = false;
      const trust = data.trust ? `Verified: ${data.trust}.` : "It was not verified by longer ones: lkspace verify does that.";
      $("note").textContent = `Accuracy here is that of a short proxy training: it ranks candidates and promises nothing beyond. ${trust}`;
    }
    const swatch = (symbol) => draw("svg", { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" }, symbol);
    const diamond = "M8 1.5 14.5 8 8 14.5 1.5 8Z";
    const entries = [
      [draw("path", { d: diamond, fill: "var(--front)" }), single ? "best" : "front of the two axes"],
      ...(data.objectives.length > 2 ? [[draw("path", { d: diamond, fill: "var(--front-soft)", stroke: "var(--front)" }), "on the front by another objective"]] : []),
      [draw("circle", { cx: 8, cy: 8, r: 5, fill: "none", stroke: "var(--dominated)", "stroke-width": 1.6 }), "dominated"],
      [draw("path", { d: "M3 3 13 13M13 3 3 13", stroke: "var(--infeasible)", "stroke-width": 1.8 }), "breaks a constraint"],
      [draw("path", { d: "M8 2.5V13.5M3.2 5.2 12.8 10.8M12.8 5.2 3.2 10.8", stroke: "var(--infeasible)", "stroke-width": 1.6 }), "failed or diverged"],
      [draw("path", { d: "M3 4H13L8 13Z", fill: "none", stroke: "var(--quiet)", "stroke-width": 1.4 }), "stopped early, accuracy as far as it came"],
      [draw("circle", { cx: 8, cy: 8, r: 6, fill: "none", stroke: "var(--selected)", "stroke-width": 3 }), "selected"],
    ];
    $("legend").replaceChildren(...entries.map(([symbol, text]) => make("li", {}, swatch(symbol), text)));
  }

  const MEANING = {
    complete: "all scores measured", diverged: "the loss was not finite", failed: "an error; the table says which",
    infeasible: "broke a constraint that shows only when measured", stopped: "training ended early",
    running: "not finished when this page was written",
  };
  function drawOutcomes() {
    const rows = Object.entries(data.counts).map(([what, n]) => {
      const why = what.startsWith("rejected") ? "turned down before it cost a trial" : MEANING[what] ?? "";
      return make("tr", {}, make("td", { textContent: n.toLocaleString("en") }), make("td", { className: "left", textContent: what }), make("td", { className: "why", textContent: why }));
    });
    if (!rows.length) rows.push(make("tr", {}, make("td", { className: "left", textContent: "No candidate yet." })));
    $("outcomes").tBodies[0].replaceChildren(...rows);
  }

  /* The table of candidates. */

  const stages = (list) => list.map((v) => v ?? "-").join(" ");
  const columns = [
    { name: "trial", of: (t) => t.number, text: (t) => t.number },
    { name: "outcome", left: true, of: (t) => standing(t), text: badge },
    ...data.scores.flatMap((score, i) => [
      { name: score.name, of: (t) => t.values[i], text: (t) => t.shown[i] },
      ...(score.again ? [{ name: `${score.name} again`, of: (t) => t.again[i], text: (t) => t.againShown[i] ?? "-" }] : []),
    ]),
    ...[["B", "blocks"], ["C", "channels"], ["K", "kernels"], ["re-param", "reparam"]].map(([name, key]) => (
      { name, left: true, of: (t) => t.architecture[key].reduce((a, b) => a + (b ?? 0), 0), text: (t) => stages(t.architecture[key]) })),
    { name: "shortcut", left: true, of: (t) => t.architecture.shortcut.filter(Boolean).length, text: (t) => t.architecture.shortcut.map((s) => (s ? "y" : "n")).join("") },
    ...[["dw", "dw_ratio"], ["ffn", "ffn_ratio"], ["stem", "stem_stride"]]
      .filter(([, key]) => new Set(trials.map((t) => t.architecture[key])).size > 1)  // the card has those that never vary
      .map(([name, key]) => ({ name, of: (t) => t.architecture[key], text: (t) => t.architecture[key] })),
    { name: "seconds", of: (t) => t.seconds, text: (t) => t.seconds.toFixed(0) },
    ...(trials.some((t) => t.reason) ? [{ name: "reason", left: true, reason: true, of: (t) => t.reason, text: (t) => t.reason }] : []),
    { name: "id", left: true, of: (t) => t.id, text: (t) => make("code", { textContent: t.id }) },
  ];

  function standing(t) {
    if (t.front) return 0;
    return ["complete", "running", "infeasible", "stopped", "diverged", "failed"].indexOf(t.outcome) + (t.feasible ? 1 : 2);
  }
  function badge(t) {
    const word = t.front ? "front" : counted(t) ? "dominated" : t.outcome === "complete" ? "infeasible" : t.outcome;
    return make("span", { className: `badge ${t.front ? "front" : counted(t) ? "" : "bad"}`, textContent: word });
  }

  function rows() {
    const wanted = {
      all: () => true, front: (t) => t.front, infeasible: (t) => !t.feasible,
    }[state.filter] ?? ((t) => t.outcome === state.filter);
    const first = data.objectives[0];
    const usual = (a, b) => standing(a) - standing(b) || compare(a.values[0], b.values[0], first.sign) || a.number - b.number;
    const column = columns.find((c) => c.name === state.sort);
    const by = (a, b) => compare(column.of(a), column.of(b), state.descending ? -1 : 1) || a.number - b.number;
    return trials.filter(wanted).sort(column ? by : usual);
  }
  /* Missing values last, whichever way. */
  function compare(a, b, sign) {
    if (a === null || a === "" || b === null || b === "") return (a === null || a === "") - (b === null || b === "");
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  }

  function drawTable() {
    $("candidates").tHead.replaceChildren(make("tr", {}, ...columns.map((column) => {
      const th = make("th", { className: column.left ? "left" : "", scope: "col" });
      if (state.sort === column.name) th.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      const button = make("button", { type: "button", textContent: column.name });
      button.addEventListener("click", () => sortBy(column.name));
      th.append(button);
      return th;
    })));
    const all = rows();
    const chosen = all.findIndex((t) => t.number === state.selected);
    if (chosen >= state.limit) state.limit = chosen + 50;
    const shown = all.slice(0, state.limit);
    $("candidates").tBodies[0].replaceChildren(...shown.map(row));
    $("rows-caption").textContent = `${shown.length.toLocaleString("en")} of ${plural(trials.length, "trial")}.`;
    $("more").hidden = shown.length === all.length;
    $("more").textContent = `Show all ${all.length.toLocaleString("en")}`;
  }
  function row(t) {
    const tr = make("tr", { tabIndex: 0, className: t.number === state.selected ? "selected" : "" });
    tr.dataset.number = t.number;
    tr.setAttribute("aria-selected", t.number === state.selected);
    for (const column of columns) {
      const td = make("td", { className: column.reason ? "reason" : column.left ? "left" : "" });
      td.append(column.text(t));
      tr.append(td);
    }
    return tr;
  }
  function markRow() {
    const body = $("candidates").tBodies[0];
    const chosen = body.querySelector(`tr[data-number="${state.selected}"]`);
    if (!chosen && state.selected !== null) return drawTable();
    for (const tr of body.querySelectorAll("tr.selected")) {
      tr.classList.remove("selected");
      tr.setAttribute("aria-selected", "false");
    }
    chosen?.classList.add("selected");
    chosen?.setAttribute("aria-selected", "true");
  }
  function sortBy(name) {
    state.descending = state.sort === name && !state.descending;
    state.sort = name;
    drawTable();
    $("candidates").tHead.rows[0].cells[columns.findIndex((c) => c.name === name)].firstChild.focus();  // drawn anew
  }

  /* The chosen candidate. */

  function drawCard() {
    const t = byNumber.get(state.selected);
    if (!t) {
      $("card").replaceChildren(
        make("h2", { id: "card-title", textContent: "Candidate" }),
        make("p", { className: "hint", textContent: "Choose a point or a row to see what a candidate is and what its numbers are made of." }),
      );
      return;
    }
    const place = /^[\w./-]+$/.test(data.place) ? data.place : `'${data.place.replaceAll("'", "'\\''")}'`;
    const parts = [
      make("h2", { id: "card-title" }, `Trial ${t.number} `, make("small", { textContent: t.id })),
      make("p", { className: "caption" }, badge(t), t.origin === "sampler" ? "" : ` ${t.origin} of the search space`),
    ];
    if (t.reason) parts.push(make("p", { textContent: t.reason }));
    parts.push(values(t), make("h3", { textContent: "Stages" }), stageTable(t));
    const a = t.architecture;
    parts.push(make("p", { className: "caption", textContent: `${a.family}, stem stride ${a.stem_stride}, dw ratio ${a.dw_ratio}, ffn ratio ${a.ffn_ratio}. The drawing: kernel (filled), re-param kernel (dark) and map (outline) to scale.` }));
    const curve = t.curve.filter((v) => v !== null);
    if (curve.length > 1) parts.push(make("h3", { textContent: `Accuracy over ${curve.length} epochs` }), sparkline(curve, t.shown[data.scores.findIndex((s) => s.name === "accuracy")] ?? ""));
    const made = data.scores.filter((_, i) => t.madeOf[i]).map((s) => [s.name, t.madeOf[data.scores.indexOf(s)]]);
    if (made.length) {
      const list = make("dl", {}, ...made.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", { textContent: text })]));
      parts.push(make("details", {}, make("summary", { textContent: "What the numbers are made of" }), list));
    }
    if (t.spent) parts.push(make("p", { className: "caption", textContent: `Time: ${t.spent}.` }));
    parts.push(make("h3", { textContent: "More of it, and to take it away" }), make("pre", {}, make("code", { textContent: `lkspace show ${place} ${t.number}\nlkspace export ${place} ${t.number} --to ${a.shortcut.includes(false) || a.stem_stride !== 4 ? "json" : "replknet"}` })));
    $("card").replaceChildren(...parts);
  }
  function values(t) {
    const rows = data.scores.map((score, i) => {
      const value = make("td", {}, t.shown[i]);
      if (t.intervalShown[i]) value.append(make("span", { className: "more", textContent: t.intervalShown[i] }));
      if (t.againShown[i]) value.append(make("span", { className: "more", textContent: `again at the end ${t.againShown[i]}` }));
      return make("tr", {}, make("td", { className: "left", textContent: score.name }), value);
    });
    return make("table", {}, make("tbody", {}, ...rows));
  }
  function stageTable(t) {
    const a = t.architecture;
    const side = Math.max(...a.kernels, ...(t.maps ?? [1]));
    const head = [["stage"], ["B", "blocks"], ["C", "channels"], ["K", "kernel size"], ["re-param", "side of the re-param kernel"], ["shortcut"], [t.maps ? "map" : "", "side of the feature map"], [""]];
    const body = a.kernels.map((kernel, i) => {
      const cells = [i + 1, a.blocks[i], a.channels[i], kernel, a.reparam[i] ?? "-", a.shortcut[i] ? "yes" : "no", t.maps ? t.maps[i] : ""];
      return make("tr", {}, ...cells.map((c) => make("td", { textContent: c })), make("td", {}, glyph(kernel, a.reparam[i], t.maps?.[i], side)));
    });
    return make("table", {}, make("thead", {}, make("tr", {}, ...head.map(([text, title = ""]) => make("th", { textContent: text, title })))), make("tbody", {}, ...body));
  }
  function glyph(kernel, small, map, side) {
    const full = 30;
    const square = (s, attributes) => {
      const length = (s / side) * full;
      const corner = (full + 2 - length) / 2;
      return draw("rect", { x: corner, y: corner, width: length, height: length, ...attributes });
    };
    const parts = [square(kernel, { fill: "var(--front)", "fill-opacity": 0.4 })];
    if (small) parts.push(square(small, { fill: "var(--front)" }));
    if (map) parts.push(square(map, { fill: "none", stroke: "var(--text)", "stroke-width": 1 }));
    return draw("svg", { class: "kernel", width: full + 2, height: full + 2, "aria-hidden": "true" }, ...parts);
  }
  // end: the last accuracy as the rest of the page writes it; rounded here, a tie would go the other way.
  function sparkline(curve, end) {
    const top = Math.max(...curve), low = Math.min(...curve, 0);
    const at = curve.map((v, i) => `${4 + (i / (curve.length - 1)) * 250},${60 - ((v - low) / (top - low || 1)) * 50}`);
    const text = (x, y, anchor, words) => draw("text", { x, y, "text-anchor": anchor, "font-size": 11, fill: "var(--quiet)" }, words);
    return draw("svg", { class: "curve", viewBox: "0 0 310 70", role: "img", "aria-label": `accuracy per epoch, ${end} at the end` },
      draw("line", { x1: 4, x2: 254, y1: 60, y2: 60, stroke: "var(--line)" }),
      draw("polyline", { points: at.join(" "), fill: "none", stroke: "var(--front)", "stroke-width": 2, "stroke-linejoin": "round" }),
      text(260, Number(at[at.length - 1].split(",")[1]) + 4, "start", end));
  }

  /* What the reader does. */

  function select(number, scroll) {
    state.selected = lk.selected = number;
    Plotly.relayout("scatter", mark());
    drawCard();
    markRow();
    const t = byNumber.get(number);
    $("live").textContent = t ? `Trial ${number} selected: ${data.scores.map((s, i) => `${s.name} ${t.shown[i]}`).join(", ")}` : "Nothing selected";
    const chosen = $("candidates").querySelector("tr.selected");
    if (!chosen) return;
    if (scroll) {
      const box = chosen.closest(".scroll");
      box.scrollTop += chosen.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
    } else chosen.focus({ preventScroll: true });
  }

  function fill(id, entries, value) {
    $(id).replaceChildren(...entries.map(([key, text]) => make("option", { value: key, textContent: text })));
    $(id).value = value;
  }

  function logAllowed() {
    for (const side of ["x", "y"]) {
      const axis = axes[state[side]];
      const box = $(`log-${side}`);
      box.disabled = trials.some((t) => axis.of(t) !== null && axis.of(t) <= 0);
      if (box.disabled) box.checked = false;
    }
  }

  function prepare() {
    state.y = single ? 1 : 0;
    state.x = single ? 0 : axes.length - 1;
    const names = axes.map((axis, i) => [i, axis.name]);
    for (const side of ["x", "y"]) {
      fill(side, single ? [names[state[side]]] : names, state[side]);
      $(side).addEventListener("change", () => {
        const other = side === "x" ? "y" : "x";
        if (Number($(side).value) === state[other]) {  // the two swap
          state[other] = state[side];
          $(other).value = state[other];
        }
        state[side] = Number($(side).value);
        logAllowed();
        drawFront();
      });
      $(`log-${side}`).addEventListener("change", drawFront);
    }
    const outcomes = [...new Set(trials.map((t) => t.outcome))].filter((o) => o !== "infeasible");
    fill("filter", [["all", "all"], ["front", "front"], ...outcomes.map((o) => [o, o]), ["infeasible", "infeasible"]], "all");
    $("filter").addEventListener("change", () => { state.filter = $("filter").value; state.limit = 200; drawTable(); });
    $("more").addEventListener("click", () => {
      const shown = $("candidates").tBodies[0].rows.length;
      state.limit = Infinity;
      drawTable();
      $("candidates").tBodies[0].rows[shown]?.focus();  // the button is gone
    });
    const choose = (event) => {
      const tr = event.target.closest("tr");
      if (tr) select(Number(tr.dataset.number), false);
    };
    $("candidates").tBodies[0].addEventListener("click", choose);
    $("candidates").tBodies[0].addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(event); }
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") select(null, true); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawFront(); drawHistory(); });
  }

  prepare();
  logAllowed();
  drawHead();
  drawFront();
  drawHistory();
  drawOutcomes();
  drawCard();
  drawTable();
  $("run").replaceChildren(...data.run.flatMap(([name, text]) => [make("dt", { textContent: name }), make("dd", {}, name === "command" ? make("code", { textContent: text }) : text)]));
  for (const id of ["scatter", "hypervolume"]) $(id).on("plotly_click", (event) => {
    const number = event.points.map((p) => p.customdata).find((n) => n !== undefined);
    if (number !== undefined) select(number, true);
  });
  lk.ready = true;
})();
