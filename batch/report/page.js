"use strict";
// The page's only script. It reads the data beside it and builds text nodes: no value ever becomes
// markup, a style or code, and only paths below the folder become links. It fetches nothing and
// stores nothing; what is chosen stands in the address after the #.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const on = (node, event, act) => node.addEventListener(event, act);
  const AT_ONCE = 1000; // cards; above, they come by and by
  const STEP = 200;
  const FIRST = 40; // before the page is loaded
  const HOVER_MS = 160;
  const DRIFT_S = 0.08; // more than that apart, the two videos of a pair are set right
  const FRAME_S = 1 / 24;
  const CANVASES = 90; // first frames kept, where there are no posters
  const SVG = "http://www.w3.org/2000/svg";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // -- small tools

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name === "on") for (const [event, act] of Object.entries(value)) on(node, event, act);
      else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(4).filter((child) => child || child === 0));
    return node;
  }
  const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const isolated = (text) => el("bdi", null, text);
  // No locale is asked for what every card shows: loading one takes longer than all cards.
  const usd = (amount) => "$" + (amount ?? 0).toFixed(2).replace(/\B(?=(\d{3})+\.)/g, ",");
  const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const iso = (at) => new Date(at * 1000).toISOString();
  const clock = (at, exact) => iso(at).slice(11, exact ? 19 : 16);
  const stamp = (at) => `${iso(at).slice(0, 10)} ${clock(at)}`;
  const time = (at, text) => el("time", { datetime: iso(at) }, text ?? `${stamp(at)} UTC`);
  function lasting(s) {
    if (s < 60) return `${+Math.max(s, 0).toFixed(s < 10 ? 1 : 0)} s`;
    const minutes = Math.floor(s / 60);
    return minutes < 60 ? `${minutes} min ${Math.floor(s % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }
  const sized = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

  // An id may hold any character; only these folders are ever linked to.
  const safe = /^(videos|versions|\.kling-batch\/former|\.kling-batch\/posters)\//;
  function path(file) {
    return safe.test(file) && !file.split("/").includes("..") ? data.base + file.split("/").map(encodeURIComponent).join("/") : null;
  }
  const kept = new Set(data.posters);
  function picture(attempt) {
    if (data.inline[attempt.sha]) return "data:image/webp;base64," + data.inline[attempt.sha];
    return kept.has(attempt.sha) ? path(`.kling-batch/posters/${attempt.sha}.webp`) : null;
  }

  // -- the jobs

  const jobs = data.jobs;
  const numberOf = new Map(jobs.map((job, number) => [job.id, number]));
  const needed = new Set(data.needs.flatMap((need) => need.jobs));
  for (const job of jobs) {
    const [latest] = job.tries;
    for (const attempt of job.tries) {
      attempt.prompt ??= latest.prompt; // written once where it is the latest one's
      attempt.options = data.options[attempt.options ?? latest.options];
      attempt.status ??= "succeeded";
      if (attempt.file === true) attempt.file = `videos/${job.id}.mp4`;
    }
    job.shown = job.tries[job.now ?? 0]; // the one on the card
    job.usd = job.tries.reduce((sum, attempt) => sum + (attempt.usd ?? 0), 0);
    job.paid = job.tries.filter((attempt) => attempt.task).length;
    job.former = job.tries.filter((attempt, number) => attempt.file && number !== job.now);
    job.others = job.former.filter((a) => a !== job.shown); // an orphan shows a former one
    job.model = job.shown?.options.model_name ?? "";
  }
  function haystack(job) {
    job.hay ??= [job.id, data.words[job.status], job.flag, job.model, ...(job.tags ?? []), ...job.tries.flatMap((a) => [a.prompt, a.task, a.ext, a.error?.kind, a.error?.message])]
      .filter(Boolean).join("\n").toLowerCase();
    return job.hay;
  }

  // -- what is chosen, and its place in the address

  const KEYS = ["q", "show", "tag", "model", "sort", "night", "open", "theme"];
  const state = {};
  function readAddress() {
    const found = new URLSearchParams(location.hash.slice(1));
    for (const key of KEYS) state[key] = found.get(key) ?? "";
  }
  function writeAddress() {
    const chosen = new URLSearchParams(KEYS.filter((key) => state[key]).map((key) => [key, state[key]]));
    const hash = chosen.size ? `#${chosen}` : "";
    if (location.hash !== hash) history.replaceState(null, "", hash || location.pathname + location.search);
  }
  function choose(changes) {
    Object.assign(state, changes);
    writeAddress();
    show();
  }

  // -- the gallery

  const SHOWS = {
    "": () => true,
    night: (job) => job.night,
    needs: (job, number) => needed.has(number),
    changed: (job) => job.flag === "changed",
    new: (job) => job.flag === "new",
    former: (job) => job.former.length,
  };
  const newest = (job) => job.shown?.landed ?? job.shown?.failed ?? job.shown?.sent ?? 0;
  const ORDERS = {
    newest: (a, b) => newest(b) - newest(a),
    dearest: (a, b) => b.usd - a.usd,
    name: (a, b) => a.id.localeCompare(b.id, "en", { numeric: true }),
  };
  const list = byId("cards");
  const cards = new Map();
  let shown = []; // numbers of jobs, in the order of the page
  let placed = 0;

  function cardOf(number) {
    if (!cards.has(number)) cards.set(number, makeCard(jobs[number], number));
    return cards.get(number);
  }
  function makeCard(job, number) {
    const attempt = job.shown;
    const words = data.words[job.status];
    const poster = el("button", { class: "poster", "aria-label": `Open ${job.id}, ${words}` });
    const source = attempt && picture(attempt);
    if (source) {
      poster.append(el("img", { src: source, alt: "", loading: "lazy", decoding: "async", on: { error: (event) => draw(poster, attempt, event.target) } }));
    } else if (attempt?.file) unseen.observe(poster);
    else poster.append(el("span", { class: "no" }, el("span", { dir: "auto" }, attempt?.landed ? data.words[attempt.status] : (attempt?.error?.message ?? (job.status === "generating" ? "being generated" : "no video")))));
    if (attempt?.video) poster.append(el("span", { class: "len" }, `${+attempt.video[2].toFixed(0)} s`));
    return el("li", { class: attempt?.file || source ? "card" : "card void", "data-number": number },
      poster,
      el("h3", { title: job.id }, isolated(job.id)),
      el("p", { class: "prompt", dir: "auto" }, attempt?.prompt ?? ""),
      el("p", { class: "meta" },
        job.status !== "succeeded" && el("span", { class: `status ${job.status}` }, words),
        job.flag && el("span", { class: "flag" }, job.flag),
        job.orphan && el("span", null, "not in the manifest"),
        job.model && el("span", null, [job.model.replace(/^kling-/, ""), attempt.options.mode].filter(Boolean).join(" ")),
        job.paid > 0 && el("span", null, usd(job.usd))));
  }

  function matching() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const takes = SHOWS[state.show] ?? SHOWS[""];
    const found = [];
    jobs.forEach((job, number) => {
      if (!takes(job, number) || (state.tag && !job.tags?.includes(state.tag)) || (state.model && job.model !== state.model)) return;
      if (words.every((word) => haystack(job).includes(word))) found.push(number);
    });
    const compare = ORDERS[state.sort];
    return compare ? found.sort((a, b) => compare(jobs[a], jobs[b]) || a - b) : found;
  }

  function show() {
    shown = matching();
    placed = document.readyState !== "complete" ? FIRST : shown.length > AT_ONCE ? STEP : shown.length;
    list.replaceChildren(...shown.slice(0, placed).map(cardOf));
    byId("count").textContent = `${shown.length} of ${jobs.length}`;
    const none = byId("none");
    none.hidden = shown.length > 0;
    none.textContent = jobs.length ? "No job matches what is chosen." : "No job was ever submitted here.";
    for (const chip of all(".chips button")) {
      chip.setAttribute("aria-pressed", chip.value === state.show);
    }
    for (const id of ["tag", "model", "sort"]) if (byId(id).value !== state[id]) byId(id).value = state[id];
    if (document.activeElement !== byId("q")) byId("q").value = state.q;
  }
  const bottom = new IntersectionObserver(([end]) => {
    if (!end.isIntersecting || placed >= shown.length) return;
    list.append(...shown.slice(placed, (placed += STEP)).map(cardOf));
    bottom.unobserve(end.target); // asked again, it answers again: the end may still be in view
    bottom.observe(end.target);
  }, { rootMargin: "800px" });

  function tools() {
    for (const id of ["tag", "model", "sort"]) on(byId(id), "change", (event) => choose({ [id]: event.target.value }));
    for (const chip of all(".chips button")) on(chip, "click", () => choose({ show: chip.value }));
    one(".tools").hidden = !jobs.length;
    on(one(".tools"), "submit", (event) => event.preventDefault());
    on(byId("q"), "input", (event) => choose({ q: event.target.value.trim() }));
    on(list, "click", (event) => {
      const card = event.target.closest(".card");
      if (card && !getSelection().toString()) openJob(+card.dataset.number);
    });
  }

  // -- playing under the pointer: one video for the whole gallery

  const preview = el("video", { loop: true, playsinline: true, tabindex: "-1", "aria-hidden": "true" });
  preview.muted = true;
  on(preview, "playing", () => preview.classList.add("on"));
  let waiting = 0;
  function leave() {
    clearTimeout(waiting);
    if (!preview.parentElement) return;
    preview.classList.remove("on");
    preview.pause();
    preview.removeAttribute("src");
    preview.load(); // lets go of the file
    preview.remove();
  }
  function hover() {
    on(list, "pointerover", (event) => {
      const poster = event.target.closest(".poster");
      if (poster && poster === preview.parentElement) return;
      leave();
      if (!poster || event.pointerType !== "mouse" || calm.matches) return;
      const attempt = jobs[Number(poster.parentElement.dataset.number)].shown;
      if (!attempt?.file) return;
      waiting = setTimeout(() => {
        preview.src = path(attempt.file);
        poster.append(preview);
        preview.play().catch(() => {}); // a video that cannot be played keeps its picture
      }, HOVER_MS);
    });
    on(list, "pointerleave", leave);
  }

  // -- first frames without posters: two hidden players draw those in view

  const wanted = new Map(); // poster → attempt
  const drawn = []; // posters with a canvas, oldest first
  const drawing = new Map(); // player → what ends it
  const unseen = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const job = jobs[Number(target.parentElement?.dataset.number)];
      if (!isIntersecting || !job) wanted.delete(target);
      else if (!target.querySelector("canvas, .no")) draw(target, job.shown);
    }
  }, { rootMargin: "150px" });
  function draw(poster, attempt, broken) {
    if (broken) {
      broken.remove();
      unseen.observe(poster);
    }
    wanted.set(poster, attempt);
    drawNext();
  }
  function drawNext() {
    if (byId("box").open || drawing.size >= 2) return;
    const [poster, attempt] = wanted.entries().next().value ?? [];
    if (!poster) return;
    wanted.delete(poster);
    const player = el("video", { preload: "auto", playsinline: true });
    player.muted = true;
    const end = (child) => {
      if (!drawing.delete(player)) return;
      player.removeAttribute("src");
      player.load();
      if (child && !poster.querySelector("canvas, .no")) poster.prepend(child);
      if (child?.tagName === "CANVAS") drawn.push(poster);
      if (drawn.length > CANVASES) drawn.shift().querySelector("canvas")?.remove();
      drawNext();
    };
    drawing.set(player, end);
    on(player, "loadeddata", () => {
      const canvas = el("canvas", { width: 320, height: Math.round((320 * player.videoHeight) / player.videoWidth) || 180 });
      canvas.getContext("2d").drawImage(player, 0, 0, canvas.width, canvas.height);
      end(canvas);
    });
    on(player, "error", () => end(el("span", { class: "no" }, "no picture")));
    setTimeout(() => end(null), 8000);
    player.src = path(attempt.file);
    drawNext();
  }

  // -- what changed in a text: runs of words, not single ones

  const WORD = /[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]|[^\s\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]+\s*|\s+/gu;
  function difference(before, after) {
    const [a, b] = [before, after].map((text) => text.match(WORD) ?? []);
    const same = (i, j) => a[i].trim() === b[j].trim();
    const long = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) long[i][j] = same(i, j) ? long[i + 1][j + 1] + 1 : Math.max(long[i + 1][j], long[i][j + 1]);
    }
    const runs = []; // what went, what came, and the words that stayed behind them
    let run;
    const begin = () => runs.push((run = { out: "", into: "", kept: [] }));
    const change = (key, word) => {
      if (run.kept.length > 1 || (run.kept.length && !run.out && !run.into)) begin();
      else for (const stayed of run.kept.splice(0)) (run.out += stayed), (run.into += stayed); // one word between two changes is part of them
      run[key] += word;
    };
    begin();
    for (let i = 0, j = 0; i < a.length || j < b.length; ) {
      if (i < a.length && j < b.length && same(i, j)) run.kept.push((i++, b[j++]));
      else if (j >= b.length || (i < a.length && long[i + 1][j] >= long[i][j + 1])) change("out", a[i++]);
      else change("into", b[j++]);
    }
    return runs;
  }
  const marked = (before, after) => difference(before, after).map(({ out, into, kept }) =>
    [out && el("del", null, out.trimEnd()), out && into && " ", into && el("ins", null, into.trimEnd()), (into || out).match(/\s*$/), kept]);
  const fromTo = (before, after) => (before === after ? [isolated(after)] : [before && el("del", null, isolated(before)), " ", after && el("ins", null, isolated(after))]);

  // -- a job's dialog

  const box = byId("box");
  const frames = byId("frames");
  const wipe = el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Where before ends and now begins" });
  let players = []; // one, or before and now
  let shorter = 0; // seconds of the shorter one
  let ticking = 0;
  let other = null; // the former version to compare with
  let opener = null;

  function openJob(number) {
    other = jobs[number].others[0];
    state.open = jobs[number].id;
    writeAddress();
    open();
  }
  function open() {
    const number = numberOf.get(state.open);
    if (number === undefined) return box.open && box.close();
    leave();
    if (!box.open) {
      opener = document.activeElement;
      box.showModal();
      for (const end of [...drawing.values()]) end(null);
    }
    fillBox(jobs[number]);
    byId("box-title").focus();
  }
  function fillBox(job) {
    byId("box-title").firstElementChild.textContent = job.id;
    const at = shown.indexOf(numberOf.get(job.id));
    byId("back").disabled = at <= 0;
    byId("next").disabled = at < 0 || at >= shown.length - 1;
    if (other && !job.others.includes(other)) other = job.others[0];
    stage(job);
    byId("info").replaceChildren(...details(job));
    byId("info").scrollTop = 0;
  }
  function move(by) {
    const at = shown.indexOf(numberOf.get(state.open)) + by;
    if (at >= 0 && at < shown.length) openJob(shown[at]);
  }
  function closed() {
    stopPlayers();
    const number = numberOf.get(state.open);
    state.open = "";
    writeAddress();
    drawNext();
    const home = opener?.isConnected && opener !== document.body ? opener : cards.get(number)?.querySelector("button");
    // The arrows may have led to another card than the one that was opened.
    const card = list.contains(home) || !home ? cards.get(number) : null;
    (card?.isConnected ? card.querySelector("button") : home)?.focus();
  }

  function stopPlayers() {
    clearInterval(ticking);
    for (const player of players) {
      player.pause();
      player.removeAttribute("src");
      player.load();
    }
    players = [];
  }
  function figureOf(attempt, name, caption) {
    const player = el("video", { playsinline: true, preload: "auto", "aria-label": caption });
    player.muted = true;
    on(player, "error", () => player.hasAttribute("src") && player.replaceWith(el("div", { class: "gone" }, "This video cannot be played.")));
    player.src = path(attempt.file);
    players.push(player);
    return el("figure", { class: name }, player, el("figcaption", null, caption));
  }
  function stage(job) {
    stopPlayers();
    const now = job.shown;
    byId("controls").hidden = !now?.file || !other;
    frames.className = "frames";
    if (!now?.file) {
      const source = now && picture(now);
      return frames.replaceChildren(el("figure", null, source && el("img", { src: source, alt: "" }), el("figcaption", null, data.absent[now?.status ?? job.status])));
    }
    if (other) compare(other, now);
    else {
      frames.replaceChildren(figureOf(now, "now", `${now.video[0]} × ${now.video[1]}, ${now.video[2]} s`));
      players[0].controls = players[0].loop = true;
    }
    if (!calm.matches) play();
  }
  const ratio = (attempt) => attempt.video[0] / attempt.video[1];
  function compare(before, now) {
    frames.replaceChildren(figureOf(before, "before", `Before · ${stamp(before.landed)}`), figureOf(now, "now", `Now · ${stamp(now.landed)}`), wipe, el("div", { class: "handle" }));
    const [first, second] = players;
    for (const player of players) on(player, "ended", () => (seekTo(0), play()));
    for (const event of ["play", "pause"]) on(second, event, () => (byId("play").textContent = event === "play" ? "Pause" : "Play"));
    byId("play").textContent = "Play";
    byId("sound").value = "";
    byId("unlike").hidden = Math.abs(ratio(before) - ratio(now)) < 0.02;
    one("[data-mode=wipe]").disabled = !byId("unlike").hidden;
    setMode("");
    // "Now" is the clock, and both begin again where the shorter one ends.
    shorter = Math.min(before.video[2], now.video[2]);
    ticking = setInterval(() => {
      if (second.currentTime >= shorter - 0.02) seekTo(0);
      else if (Math.abs(first.currentTime - second.currentTime) > DRIFT_S) first.currentTime = second.currentTime;
      byId("seek").value = second.currentTime / shorter;
    }, 250);
  }
  function setMode(mode) {
    frames.className = `frames ${mode}`;
    for (const button of all("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  }
  const seekTo = (at) => players.forEach((player) => (player.currentTime = at));
  const play = () => players.forEach((player) => player.play().catch(() => {}));
  const pause = () => players.forEach((player) => player.pause());
  const toggle = () => (players.at(-1)?.paused ? play() : pause());
  function step(by) {
    pause();
    seekTo(Math.max(0, (players.at(-1)?.currentTime ?? 0) + by * FRAME_S));
  }
  function flip() {
    if (players.length !== 2) return;
    if (!frames.classList.contains("one")) setMode("one");
    frames.classList.toggle("former");
  }
  function controls() {
    const cut = () => frames.style.setProperty("--cut", `calc(18px + (100% - 36px) * ${wipe.value / 100})`);
    on(wipe, "input", cut);
    cut();
    for (const button of all("[data-mode]")) on(button, "click", () => setMode(button.dataset.mode));
    for (const button of all("[data-step]")) on(button, "click", () => step(+button.dataset.step));
    on(byId("play"), "click", toggle);
    on(byId("seek"), "input", (event) => seekTo(event.target.value * shorter));
    on(byId("sound"), "change", (event) => players.forEach((player, at) => (player.muted = event.target.value !== String(at))));
  }

  // -- what is known of a job, in words

  function details(job) {
    const now = job.shown;
    const [latest] = job.tries;
    const parts = [el("p", { class: "meta" },
      el("span", { class: `status ${job.status}` }, data.words[job.status]),
      job.flag && el("span", { class: "flag" }, job.flag),
      job.orphan && el("span", null, "not in the manifest"),
      (job.tags ?? []).map((tag) => el("span", null, isolated(tag))))];
    if (!now) return parts;
    if (latest.error) parts.push(el("p", { class: "error", dir: "auto" }, latest.error.message));
    parts.push(el("p", { class: "text", dir: "auto" }, other ? marked(other.prompt, now.prompt) : now.prompt));
    parts.push(el("dl", { class: "facts" }, facts(job, now).map(([name, value]) => [el("dt", null, name), el("dd", null, value)])));
    if (now.warnings) parts.push(el("h3", null, "Warnings"), el("ul", null, now.warnings.map((text) => el("li", { dir: "auto" }, text))));
    if (job.tries.length > 1) parts.push(el("h3", null, "Attempts and versions"), el("ul", { class: "versions" }, job.tries.map((attempt, number) => versionOf(job, attempt, number))));
    return parts;
  }
  function facts(job, now) {
    const text = (value) => (value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value));
    const names = new Set([...Object.keys(now.options), ...Object.keys(other?.options ?? {})]);
    const found = [...names].map((name) => [name, other ? fromTo(text(other.options[name]), text(now.options[name])) : isolated(text(now.options[name]))]);
    if (now.usd !== undefined) found.push(["Cost", other && other.usd !== now.usd ? fromTo(usd(other.usd), usd(now.usd)) : `about ${usd(now.usd)}`]);
    found.push(["Tasks paid", job.paid ? `${job.paid}, about ${usd(job.usd)}` : "none"]);
    if (now.sent) found.push(["Submitted", time(now.sent)]);
    if (now.generated) found.push(["Generated", [time(now.generated, `${clock(now.generated)} UTC`), `, after ${lasting(now.generated - now.sent)}`]]);
    if (now.landed) found.push(["Here since", time(now.landed)]);
    if (now.failed) found.push(["Failed", time(now.failed)]);
    if (now.video) found.push(["Video", `${now.video[0]} × ${now.video[1]}, ${now.video[2]} s, ${sized(now.bytes)}`]);
    if (now.marks) found.push(["Marks of AI", now.marks]);
    if (now.file) found.push(["File", el("a", { href: path(now.file), rel: "noopener", target: "_blank" }, isolated(now.file))]);
    for (const [name, value] of [["Task", now.task], ["External id", now.ext], ["Request", now.request], ["SHA-256", now.sha && `${now.sha}…`]]) {
      if (value) found.push([name, el("button", { class: "copy", title: "Copy", on: { click: copy } }, value)]);
    }
    return found;
  }
  function versionOf(job, attempt, number) {
    const at = attempt.landed ?? attempt.failed ?? attempt.sent;
    const what = !attempt.file ? data.words[attempt.status] : number === job.now ? "stands in videos/" : "former version";
    const compare = el("button", { "aria-pressed": String(attempt === other), on: { click: () => ((other = attempt === other ? null : attempt), fillBox(job)) } }, "Compare");
    return el("li", null,
      el("span", null, at ? time(at) : "not submitted", el("small", null, `${what}${attempt.usd === undefined ? "" : `, ${usd(attempt.usd)}`}`)),
      job.others.includes(attempt) && job.shown.file && compare);
  }
  function copy(event) {
    const button = event.currentTarget;
    const done = () => {
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    };
    getSelection().selectAllChildren(button); // where the clipboard is refused, it can be copied by hand
    navigator.clipboard?.writeText(button.textContent.replace(/…$/, "")).then(done, () => {});
  }

  // -- the night

  const OUTCOMES = ["generating", "failed", "timed out", "still open"];
  const CLASSES = ["task", "task f", "task t", "task o"];
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const TOP = 20, AREA = 56, RATE = 40, LANE = 24, LEFT = 4, RIGHT = 16;

  function drawNight(night) {
    const { tasks } = night;
    const holder = byId("lanes");
    const span = Math.max(1, night.end - night.begin, ...tasks.map((task) => Math.max(task[3], task[5] ?? 0)));
    const lanes = 1 + Math.max(0, ...tasks.map((task) => task[1]));
    const width = Math.max(holder.clientWidth || 600, Math.min(20000, span / 12));
    const laneTop = TOP + AREA + RATE + 26;
    const height = laneTop + lanes * LANE + 22;
    const x = (at) => LEFT + (at / span) * (width - LEFT - RIGHT);
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${counted(tasks.length, "task")} in ${counted(lanes, "lane")}` });
    root.append(svg("defs", null, svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { width: 6, height: 6, class: "hatch" }), svg("path", { d: "M0 0V6", class: "hatch-line" }))));
    axis(root, night, span, x, height, width);
    curve(root, night, x, span);
    rates(root, night, x, span);
    for (let lane = 0; lane < lanes; lane++) root.append(svg("rect", { class: "lane", x: LEFT, y: laneTop + lane * LANE, width: width - LEFT - RIGHT, height: 15, rx: 4 }));
    const bars = tasks.map(([job, lane, begin, end, outcome], number) => svg("rect", {
      class: CLASSES[outcome], x: x(begin), y: laneTop + lane * LANE, width: Math.max(1.5, x(end) - x(begin) - 1), height: 15, rx: 3,
      tabindex: number ? -1 : 0, role: "button", "data-task": number, "aria-label": `${jobs[job].id}: ${told(tasks[number])}` }));
    const loads = tasks.filter((task) => task[5] > task[3]).map((task) => `M${x(task[3]).toFixed(1)} ${laneTop + task[1] * LANE + 18.5}H${Math.max(x(task[5]), x(task[3]) + 1.5).toFixed(1)}`);
    root.append(svg("g", null, bars), svg("path", { class: "load", d: loads.join("") }));
    root.append(...(night.refused ?? []).map((mark) => svg("path", { class: "refused", d: `M${x(mark[0]).toFixed(1)} ${laneTop - 13}l4 8h-8z` }, svg("title", null, `${clock(night.begin + mark[0], true)}: ${refusal(mark)}`))));
    if (night.stopped) root.append(svg("path", { class: "limit", d: `M${x(night.end - night.begin)} ${TOP}V${height - 18}` }));
    on(root, "pointerover", (event) => {
      const bar = event.target.closest(".task"); // a title for each beforehand would double the nodes
      if (bar && !bar.firstChild) bar.append(svg("title", null, bar.getAttribute("aria-label")));
    });
    on(root, "click", (event) => event.target.closest(".task") && openJob(tasks[event.target.closest(".task").dataset.task][0]));
    on(root, "keydown", (event) => {
      const at = bars.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1 }[event.key];
      if (at < 0) return;
      if (event.key === "Enter" || event.key === " ") openJob(tasks[at][0]);
      else if (bars[to]) {
        bars[at].setAttribute("tabindex", -1);
        bars[to].setAttribute("tabindex", 0);
        bars[to].focus();
      } else return;
      event.preventDefault();
    });
    holder.replaceChildren(root);
  }
  const told = ([, , begin, end, outcome, landed]) =>
    `${OUTCOMES[outcome]} ${lasting(end - begin)}${landed > end ? `, downloading ${lasting(landed - end)}` : ""}`;

  const refusal = ([, code, count]) => `${counted(count, "request")} refused for now (${code})`;

  function axis(root, night, span, x, height, width) {
    const every = STEPS.find((step) => x(step) - x(0) >= 76) ?? 86400;
    for (let at = Math.ceil(night.begin / every) * every - night.begin; at <= span; at += every) {
      root.append(svg("path", { class: "grid", d: `M${x(at)} ${TOP}V${height - 18}` }));
      if (x(at) < width - 40) root.append(svg("text", { x: x(at) + 3, y: height - 6 }, clock(night.begin + at, every < 60)));
    }
  }
  function curve(root, night, x) {
    const turns = night.tasks.flatMap((task) => [[task[2], 1], [task[3], -1]]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const limit = night.limits?.max_in_flight;
    let open = 0, most = 1;
    for (const [, by] of turns) most = Math.max(most, (open += by));
    const scale = Math.max(most, limit || 0);
    const y = (count) => TOP + AREA - (count / scale) * (AREA - 6);
    let path = `M${x(0)} ${y(0)}`;
    open = 0;
    for (const [at, by] of turns) path += `H${x(at).toFixed(1)}V${y((open += by)).toFixed(1)}`;
    root.append(svg("path", { class: "area", d: path + "Z" }));
    if (limit > 0) root.append(svg("path", { class: "limit", d: `M${x(0)} ${y(limit)}H${root.getAttribute("width") - RIGHT}` }));
    root.append(svg("text", { x: LEFT + 4, y: 11 }, `open tasks, at most ${most}${limit > 0 ? ` of ${limit}` : ""}`));
  }
  function rates(root, night, x, span) {
    const every = span < 120 ? 1 : span < 1200 ? 10 : 60 * Math.ceil(span / 36000); // at most 600 bars
    const counts = new Map();
    for (const [, , begin] of night.tasks) {
      const slot = Math.floor(begin / every);
      if (begin > 0) counts.set(slot, (counts.get(slot) ?? 0) + 1); // at 0: of an earlier run
    }
    const [count, period] = night.limits?.submit_rate ?? [];
    const limit = (count / period) * every;
    const most = Math.max(0, ...counts.values());
    const bottom = TOP + AREA + RATE + 10;
    const parts = [...counts].map(([slot, found]) => {
      const left = x(slot * every), right = Math.max(left + 1, x(Math.min(span, (slot + 1) * every)) - 1);
      return `M${left.toFixed(1)} ${bottom}V${(bottom - (found / most) * (RATE - 18)).toFixed(1)}H${right.toFixed(1)}V${bottom}Z`;
    });
    const per = every > 60 ? `${every / 60} min` : every < 60 ? `${every} s` : "minute";
    root.append(svg("path", { class: "rate", d: parts.join("") }), svg("text", { x: LEFT + 4, y: TOP + AREA + 17 }, `submitted per ${per}, at most ${most}${limit ? ` of ${+limit.toFixed(1)}` : ""}`));
  }
  const nightRows = (night) => night.tasks.map((task) =>
    row(night, isolated(jobs[task[0]].id), task[2], told(task))).concat((night.refused ?? []).map((mark) => row(night, "", mark[0], refusal(mark))));
  const row = (night, name, at, what) => el("tr", null, el("th", { scope: "row" }, name), el("td", null, at ? clock(night.begin + at, true) : "earlier"), el("td", null, what));
  function nights() {
    const found = data.nights;
    const section = one(".night");
    const select = byId("which-night");
    const table = byId("night-table");
    if (!found.length) return;
    section.hidden = false;
    let width = 0; // that it was drawn for; 0 until it comes into view
    const redraw = () => {
      const night = found.find(({ id }) => id === state.night) ?? found[0];
      select.value = night.id;
      one(".legend .x").hidden = !night.refused;
      byId("night-sum").replaceChildren(
        time(night.begin, `${stamp(night.begin)} to ${clock(night.end)} UTC (${lasting(night.end - night.begin)})`), ` · ${counted(night.paid, "task")} submitted, about ${usd(night.usd)}${night.perhaps_usd ? `, perhaps ${usd(night.perhaps_usd)} more` : ""}; ${counted(night.made, "video")} came · ${night.sentence}${night.stopped ? `: ${night.stopped}` : ""}`);
      byId("night-rows").replaceChildren(...(table.open ? nightRows(night) : [])); // only on request: many nodes
      if (width) drawNight(night);
    };
    on(select, "change", () => ((state.night = select.value), writeAddress(), redraw()));
    on(table, "toggle", redraw);
    new IntersectionObserver((entries, observer) => {
      if (!entries[0].isIntersecting) return;
      observer.disconnect();
      new ResizeObserver(() => {
        if (Math.abs(byId("lanes").clientWidth - width) < 2) return;
        width = byId("lanes").clientWidth;
        redraw();
      }).observe(byId("lanes"));
    }, { rootMargin: "300px" }).observe(section);
    redraw();
  }

  // -- keys, scheme, start

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    const typing = target.matches("input, select, textarea") || target.closest("video");
    if (typing || byId("keys").open) return;
    const pressed = target.matches("button, a, summary, [role=button]") && (event.key === " " || event.key === "Enter");
    if (pressed) return; // belongs to what has the focus
    const act = box.open
      ? { ArrowLeft: () => move(-1), ArrowRight: () => move(1), " ": toggle, ",": () => step(-1), ".": () => step(1), b: flip, "?": keys }[event.key]
      : { "/": () => byId("q").focus(), "?": keys }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  const keys = () => byId("keys").showModal();
  function theme() {
    const button = byId("theme");
    const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    if (state.theme) document.documentElement.dataset.theme = dark ? "dark" : "light";
    else delete document.documentElement.dataset.theme;
    button.textContent = dark ? "Light" : "Dark";
    button.hidden = byId("help").hidden = false;
    button.onclick = () => {
      state.theme = dark ? "light" : "dark";
      writeAddress();
      theme();
    };
  }
  function needs() {
    for (const item of all("li[data-job]")) {
      const name = item.querySelector("bdi");
      const button = el("button", { on: { click: () => openJob(+item.dataset.job) } });
      name.replaceWith(button);
      button.append(name);
    }
  }

  readAddress();
  theme();
  for (const node of all("time[data-at]")) node.dateTime = iso(node.dataset.at);
  tools();
  controls();
  hover();
  needs();
  show();
  bottom.observe(byId("more"));
  nights();
  on(byId("back"), "click", () => move(-1));
  on(byId("next"), "click", () => move(1));
  on(byId("close"), "click", () => box.close());
  on(byId("help"), "click", keys);
  on(byId("keys-close"), "click", () => byId("keys").close());
  on(box, "close", closed);
  for (const dialog of [box, byId("keys")]) on(dialog, "click", (event) => event.target === dialog && dialog.close());
  on(document, "keydown", onKey);
  on(document, "pointerover", ({ target }) => {
    const node = target.closest("time");
    if (node) node.title = new Date(node.dateTime).toLocaleString(undefined, { dateStyle: "long", timeStyle: "long" });
  });
  on(one(".skip"), "click", (event) => {
    event.preventDefault(); // the address after the # is taken
    byId("gallery-title").focus();
    byId("gallery-title").scrollIntoView();
  });
  addEventListener("hashchange", () => {
    readAddress();
    theme();
    show();
    open();
  });
  addEventListener("load", () => setTimeout(show));
  addEventListener("beforeprint", () => {
    for (const image of all("img[loading]")) image.loading = "eager";
  });
  if (numberOf.has(state.open)) openJob(numberOf.get(state.open));
})();
