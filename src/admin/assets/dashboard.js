// What the pages can't do by themselves: live numbers, hovering, searching while typing, copying.
// Without it everything else works. Texts go in by textContent only.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("script");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // --- Live numbers -----------------------------------------------------------------------------
  const connection = document.getElementById("connection");
  const POLL_MS = 5000;
  const RETRY_MS = 60000;
  const OFFLINE_MS = 8000;
  const subject = document.querySelector("[data-event]")?.dataset.event;
  const asked = subject === undefined ? "" : `?event=${encodeURIComponent(subject)}`;
  let stream = null;
  let poll = null;
  let retry = null;
  let silence = null;
  let refreshedAt = Date.now();
  let refreshAt = Infinity;
  let refreshing = null;

  const say = (state) => {
    clearTimeout(silence);
    silence = null;
    if (!connection) return;
    connection.hidden = false;
    connection.dataset.state = state;
    if (connection.textContent !== state) connection.textContent = state;
  };
  // Streams end now and then and begin again: that is no news.
  const miss = () => { silence ??= setTimeout(say, OFFLINE_MS, "offline"); };
  const put = (within, key, text) => {
    for (const element of all(`[data-live-value="${key}"]`, within)) {
      if (text !== "" && element.textContent !== text) element.textContent = text;
    }
  };
  const short = (number) => {
    const units = ["", "k", "M", "G", "T", "P", "E"];
    let power = 0;
    while (number >= 999.5 && power < 6) { number /= 1000; power += 1; }
    return power === 0 ? String(number) : String(Number(number.toPrecision(3))) + units[power];
  };

  const show = (snapshot) => {
    say("live");
    for (const region of all("[data-live]")) {
      put(region, "pending", snapshot.status.pending.toLocaleString("en"));
      put(region, "rate", snapshot.rate_text);
      for (const note of all('[data-live-note="rate"]', region)) {
        if (snapshot.rate !== null) note.textContent = "over the last 10 seconds";
      }
      for (const [key, light] of Object.entries(snapshot.status)) {
        const place = region.querySelector(`[data-light="${key}"]`);
        if (!place || !light.state) continue;
        const text = place.querySelector(".text");
        // A node has come or gone: the table of nodes is the server's.
        if (key === "nodes" && text.textContent !== light.text) refreshIn(0, 5);
        place.querySelector(".dot").className = `dot ${light.state}`;
        text.textContent = light.text;
      }
      const { dataset } = region;
      // The page of an event is told of that, the overview of all; nothing while the store is away.
      const counted = dataset.event === undefined ? snapshot : snapshot.events[0];
      if (!counted || counted.total === null) continue;
      const total = region.querySelector('[data-live-value="total"]');
      if (total) { total.textContent = short(counted.total); total.title = counted.total_text; }
      put(region, "event-rate", counted.rate_text);
      put(region, "event-total", counted.total_text);
      // Sums grow by what was counted since the page was made, while they are of the same hour and
      // no administrator has changed anything.
      const isCurrent = dataset.hour === snapshot.hour && dataset.catalog === String(snapshot.catalog);
      const grown = counted.total - Number(dataset.total);
      const today = region.querySelector('[data-live-value="today"]');
      if (today && isCurrent && grown > 0) {
        const sum = Number(today.dataset.exact) + grown;
        today.textContent = total ? short(sum) : sum.toLocaleString("en");
        if (total) today.title = sum.toLocaleString("en");
      }
      if (!isCurrent) refreshIn(Math.random() * 3000, 5);
      else if (grown !== 0) refreshIn(0, Number(dataset.refresh));
    }
  };

  // Charts are drawn by the server: now and then when something was counted, at once when an hour is
  // over. `seconds` is the least time between two of them.
  const refreshIn = (ms, seconds) => {
    const at = Math.max(Date.now() + ms, refreshedAt + seconds * 1000);
    if (at >= refreshAt) return;
    clearTimeout(refreshing);
    refreshAt = at;
    refreshing = setTimeout(refresh, at - Date.now());
  };
  const refresh = async () => {
    const region = document.querySelector("[data-refresh]");
    const field = document.activeElement;
    // Neither under the hands of who types a date, nor of who drags over a chart.
    const isUsed = field?.matches("input") && region.contains(field) && field.value !== field.defaultValue;
    const fresh = isUsed || region.querySelector(".selected") ? null : await part(location.href, region.id);
    refreshedAt = Date.now();
    refreshAt = Infinity;
    if (fresh) swap(region, fresh); else refreshIn(0, Number(region.dataset.refresh));
  };
  // What is open stays open, and the keyboard where it is.
  const swap = (region, fresh) => {
    const key = (element) =>
      [element.localName, element.closest("[id]").id, element.getAttribute("href") ?? element.name ?? ""].join(" ");
    const focused = region.contains(document.activeElement) ? key(document.activeElement) : null;
    const open = all("details[open]", region).map(key);
    region.replaceWith(fresh);
    for (const details of all("details", fresh)) details.open = open.includes(key(details));
    ready(fresh);
    all("a, button, input, select, summary, .plot", fresh).find((one) => key(one) === focused)?.focus({ preventScroll: true });
  };
  const part = async (url, id, signal) => {
    try {
      const answer = await fetch(url, { signal, headers: { accept: "text/html" } });
      if (answer.redirected && new URL(answer.url).pathname === "/admin/login") { location.reload(); return null; }
      if (!answer.ok) return null;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      return page.getElementById(id);
    } catch { return null; }
  };

  const ask = async () => {
    try {
      const answer = await fetch(`/admin/live.json${asked}`);
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      const { response } = await answer.json();
      if (poll !== null) show(response);
    } catch { miss(); }
  };
  const listen = () => {
    if (stream || document.hidden) return;
    stream = new EventSource(`/admin/live${asked}`);
    stream.onopen = () => {
      clearInterval(poll);
      poll = null;
      say("live");
    };
    stream.onmessage = (message) => show(JSON.parse(message.data));
    stream.onerror = () => {
      miss();
      if (stream.readyState !== EventSource.CLOSED) return;
      // The browser comes back by itself after an interruption, but not after a refusal.
      stream = null;
      retry = setTimeout(listen, RETRY_MS);
      if (poll === null) { poll = setInterval(ask, POLL_MS); ask(); }
    };
  };
  const rest = () => {
    if (stream) stream.close();
    clearInterval(poll);
    for (const timer of [retry, silence, refreshing]) clearTimeout(timer);
    stream = poll = silence = null;
    refreshAt = Infinity;
  };
  if (document.querySelector("[data-live]")) {
    listen();
    document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
    addEventListener("pagehide", rest);
  }
  // A page that the browser kept may belong to a session that is over.
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // --- Charts: the table below has the numbers --------------------------------------------------
  const SVG = "http://www.w3.org/2000/svg";
  const chart = (figure) => {
    const plot = figure.querySelector(".plot");
    const box = figure.querySelector(".plot-box");
    const rows = all(".numbers tbody tr", figure);
    if (!rows.length) return;
    let tip = null;
    let cursor = null;
    let start = null;
    let current = -1;

    const column = (event) => {
      const { left, width } = plot.getBoundingClientRect();
      return Math.min(rows.length - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * rows.length)));
    };
    const mark = (from, to) => {
      if (!cursor) {
        cursor = document.createElementNS(SVG, "rect");
        cursor.setAttribute("y", "0");
        cursor.setAttribute("height", "100%");
        plot.append(cursor);
      }
      cursor.setAttribute("class", start === null ? "cursor" : "selected");
      cursor.setAttribute("x", `${(from * 100) / rows.length}%`);
      cursor.setAttribute("width", `${((to - from + 1) * 100) / rows.length}%`);
    };
    const point = (index) => {
      current = index;
      mark(start === null ? index : Math.min(start, index), start === null ? index : Math.max(start, index));
      if (!tip) { tip = document.createElement("div"); tip.className = "tip"; box.append(tip); }
      const cells = all("th, td", rows[index]).map((cell) => cell.textContent);
      tip.replaceChildren();
      const value = document.createElement("strong");
      value.textContent = cells[1];
      tip.append(cells[0], value);
      if (cells[2] !== undefined) tip.append(`before: ${cells[2]}`);
      const middle = ((index + 0.5) / rows.length) * plot.clientWidth;
      const left = middle + tip.offsetWidth + 16 > plot.clientWidth ? middle - tip.offsetWidth - 12 : middle + 12;
      tip.style.transform = `translate(${Math.max(0, left)}px, 4px)`;
    };
    const leave = () => {
      tip?.remove();
      cursor?.remove();
      tip = cursor = start = null;
    };
    plot.addEventListener("pointermove", (event) => point(column(event)));
    // A finger is gone after each tap; what it pointed at stays until another tap.
    plot.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") leave(); });
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined) { if (event.key === "Escape") leave(); return; }
      event.preventDefault();
      event.stopPropagation();
      point(Math.min(rows.length - 1, Math.max(0, (current < 0 ? rows.length - (step > 0 ? 1 : 0) : current) + step)));
    });
    const zoom = (first, last) => {
      const end = ({ dataset }) => dataset.to ?? dataset.from;
      const [from, to] = [rows[first].dataset.from, end(rows[last])];
      if (from === rows[0].dataset.from && to === end(rows.at(-1))) { point(last); return; }
      const url = new URL(location.href);
      url.searchParams.delete("days");
      url.searchParams.set("from", from);
      url.searchParams.set("to", to);
      url.hash = "range";
      location.assign(url);
    };
    const zooms = figure.dataset.zoom !== undefined;
    plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") { point(column(event)); return; }
      if (!zooms || event.button !== 0) return;
      plot.setPointerCapture(event.pointerId);
      start = column(event);
    });
    plot.addEventListener("pointerup", (event) => {
      if (start === null) return;
      const [first, last] = [start, column(event)].sort((a, b) => a - b);
      start = null;
      zoom(first, last);
    });
    plot.addEventListener("keydown", (event) => {
      if (zooms && tip && event.key === "Enter") zoom(current, current);
    });
  };
  const charts = (within) => all(".chart", within).forEach(chart);

  // --- Search while typing ----------------------------------------------------------------------
  for (const form of all("form[data-results]")) {
    const id = form.dataset.results;
    let waiting = null;
    let fetching = null;
    const search = async () => {
      clearTimeout(waiting);
      fetching?.abort();
      fetching = new AbortController();
      const query = new URLSearchParams(new FormData(form));
      const url = `${form.getAttribute("action")}?${query}`;
      document.getElementById(id).setAttribute("aria-busy", "true");
      const mine = fetching;
      const fresh = await part(url, id, mine.signal);
      if (mine.signal.aborted) return;
      const results = document.getElementById(id);
      results.removeAttribute("aria-busy");
      if (fresh) { results.replaceWith(fresh); history.replaceState(null, "", url); }
      const found = document.getElementById("found");
      if (!fresh) found.textContent = "The search failed: these are the events of before.";
      // Screen readers follow a place that stays.
      document.getElementById("said").textContent = found.textContent;
    };
    form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 150); });
    form.addEventListener("submit", (event) => { event.preventDefault(); search(); });
  }

  // --- Small things -----------------------------------------------------------------------------
  const submits = (within) => all("form[data-submit]", within).forEach((form) => {
    form.addEventListener("change", () => { if (form.reportValidity()) form.requestSubmit(); });
  });
  const copies = (within) => all("[data-copy]", within).forEach((button) => {
    if (!navigator.clipboard) return;
    button.hidden = false;
    const text = button.textContent;
    button.addEventListener("click", async () => {
      const content = button.dataset.copy;
      try {
        await navigator.clipboard.writeText(content.startsWith("/") ? location.origin + content : content);
        button.textContent = "copied";
      } catch { button.textContent = "not allowed to copy"; }
      setTimeout(() => { button.textContent = text; }, 1500);
    });
  });
  // What was done is said once: neither after a reload nor by a bookmark.
  if (document.getElementById("notice")) {
    const url = new URL(location.href);
    for (const name of ["notice", "change"]) url.searchParams.delete(name);
    history.replaceState(null, "", url);
  }
  // Everything that a part of a page needs, also when it has come later.
  const ready = (within) => {
    charts(within);
    submits(within);
    copies(within);
    for (const element of all(".script-only", within)) element.hidden = false;
    // The server has not added up everything yet.
    if (document.querySelector("[data-adding-up]")) refreshIn(1000, 1);
  };
  ready(document);
  const meant = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, .plot")) return null;
    return document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  };
  document.addEventListener("keydown", (event) => { if (meant(event)) event.preventDefault(); });
  // When a key is let go: one that is held down shall not race through the days.
  document.addEventListener("keyup", (event) => {
    const target = meant(event);
    if (target?.href) target.click(); else target?.focus();
  });
  const suggested = document.getElementById("zone-suggested");
  if (suggested) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const select = document.getElementById("zone-select");
    if (all("option", select).some((option) => option.value === zone) && select.value !== zone) {
      suggested.textContent = zone;
      document.getElementById("zone-hint").hidden = false;
      suggested.addEventListener("click", () => { select.value = zone; });
    }
  }
})();
