(() => {
  "use strict";
  const d = document, $ = (s, e = d) => e.querySelector(s), url = d.body.dataset.live, skew = Date.now() - d.body.dataset.now;
  d.documentElement.classList.add("js");
  let source, seen = Date.now(), delay = 1000, timer, hidden;
  const state = (text, kind) => { const s = $("#state"); if (s) { s.textContent = text; s.className = "state " + kind; } };
  const put = (html) => {
    const t = d.createElement("template");
    t.innerHTML = html;
    for (const fresh of [...t.content.querySelectorAll("[id]")].filter((n) => !n.parentElement?.closest("[id]"))) {
      const old = d.getElementById(fresh.id);
      if (!old || old.outerHTML === fresh.outerHTML) continue;
      for (const x of fresh.querySelectorAll("details[id]")) x.open = !!d.getElementById(x.id)?.open;
      const at = old.contains(d.activeElement) && (d.activeElement.dataset.k || d.activeElement.dataset.copy);
      old.replaceWith(fresh);
      if (at) $(`[data-k="${CSS.escape(at)}"],[data-copy="${CSS.escape(at)}"]`, fresh)?.focus({ preventScroll: true });
    }
    d.title = $("#attention")?.dataset.title || d.title;
  };
  const alive = () => { seen = Date.now(); delay = 1000; state("live", "on"); }, close = () => { clearTimeout(timer); source?.close(); source = null; };
  const again = () => { close(); state("reconnecting…", "wait"); timer = setTimeout(open, delay * (0.5 + Math.random())); delay = Math.min(delay * 2, 30000); };
  const reload = () => fetch(location.href, { headers: { accept: "text/html" } }).then((r) => r.ok ? r.text() : Promise.reject()).then((html) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    if ($("script[src]").src !== new URL($("script[src]", page).getAttribute("src"), location.href).href) return location.reload();
    put($("main", page).innerHTML);
  }).catch(() => {});
  const check = /* whether a refused stream means a logout */ () => fetch(url).then((r) => { r.body?.cancel(); if (r.status === 401) location.reload(); }).catch(() => {});
  const open = () => {
    close();
    source = new EventSource(url);
    source.onopen = alive;
    source.addEventListener("put", (e) => { alive(); put(e.data); });
    source.addEventListener("say", (e) => { $("#announce").textContent = e.data; });
    source.addEventListener("beat", alive);
    source.addEventListener("reload", reload);
    source.onerror = () => source?.readyState === 2 ? (again(), check()) : state("reconnecting…", "wait");
  };
  const short = (s) => s < 60 ? s + "s" : s < 3600 ? Math.floor(s / 60) + "m" : s < 86400 ? Math.floor(s / 3600) + "h" : Math.floor(s / 86400) + "d";
  setInterval(() => {
    for (const t of d.querySelectorAll("time.age,time.ago")) { const s = short(Math.max(0, Math.round((Date.now() - skew - Date.parse(t.dateTime)) / 1000))); t.textContent = t.className === "ago" ? s + " ago" : s; }
    if (source && Date.now() - seen > 45000) { again(); state("no data since " + new Date(seen).toTimeString().slice(0, 5), "wait"); }
  }, 5000);
  if (url) open();
  addEventListener("pagehide", close), addEventListener("pageshow", (e) => e.persisted && url && open());
  d.addEventListener("visibilitychange", () => { clearTimeout(hidden); if (d.hidden) hidden = setTimeout(close, 300000); else if (url && !source) open(); });
  d.addEventListener("click", (e) => {
    const b = e.target.closest("[data-copy]");
    if (b) navigator.clipboard?.writeText(b.dataset.copy).then(() => { b.textContent = "Copied"; setTimeout(() => { b.textContent = "Copy"; }, 1500); });
    if (e.target.closest("[data-help]")) $("#help").showModal();
  });
  const keys = $("#keys");
  if (keys) { keys.checked = localStorage.keys !== "off"; keys.onchange = () => { localStorage.keys = keys.checked ? "on" : "off"; }; }
  d.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && e.target.id === "q") e.target.blur();
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input,select,textarea,dialog") || keys?.checked === false) return;
    const rows = [...d.querySelectorAll(".sources [data-k]")], at = rows.indexOf(d.activeElement), q = $("#q");
    if (e.key === "/" && q) { e.preventDefault(); q.focus(); q.select(); } else if (e.key === "?") $("#help")?.showModal();
    else if (e.key === "j" || e.key === "k") rows[e.key === "j" ? Math.min(at + 1, rows.length - 1) : Math.max(at - 1, 0)]?.focus();
  });
})();
