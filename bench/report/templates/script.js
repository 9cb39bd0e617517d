"use strict";
(() => {
  const root = document.documentElement;
  const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (remembered) root.dataset.theme = remembered;
  document.getElementById("theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* opened from a place without storage */ }
  });

  // Tables are sorted by data-value where a cell has one, else by its text; what is absent stays last.
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  for (const head of document.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const table = head.closest("table");
      const column = Number(head.dataset.sort);
      const sign = head.getAttribute("aria-sort") === "descending" ? 1 : head.getAttribute("aria-sort") === "ascending" ? -1
        : head.classList.contains("number") ? -1 : 1;
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((one, two) => {
        const [a, b] = [value(one, column), value(two, column)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * compare(a, b);
      });
      for (const row of rows) row.classList.remove("begins"); // groups hold in the first order only
      body.append(...rows);
      table.dispatchEvent(new Event("sorted", { bubbles: true }));
    });
  }

  // Filters: an item is shown when every chosen value is its own and the searched words are in it. Of a gallery the
  // first so many are shown at once, of a table one page.
  const AT_ONCE = 24;
  for (const form of document.querySelectorAll(".filters")) {
    const section = form.parentElement;
    const selects = [...form.querySelectorAll("select")];
    const search = form.querySelector("#search");
    const items = () => [...section.querySelectorAll("[data-outcome]")]; // in today's order: a table may be sorted
    const find = (id) => section.querySelector(id);
    const [more, nothing, pager] = [find("#more"), find("#nothing"), find(".pager")];
    const size = Number(section.querySelector("[data-page]")?.dataset.page ?? Infinity);
    const turned = new URLSearchParams(pager ? location.search : ""); // what the page says from which one came
    let [most, page] = [more ? AT_ONCE : Infinity, turned.get("at") === "end" ? Infinity : 0];
    // A run of many samples has several pages, of which a script of the run tells what is on each; else none is known.
    const pages = pager && window.runPages ? window.runPages : [];
    const here = pages[Number(section.querySelector("[data-number]")?.dataset.number)];
    const [before, after] = [pages.slice(0, pages.indexOf(here)), pages.slice(pages.indexOf(here) + 1)];
    const outcome = form.querySelector('[data-filter="outcome"]');
    if (pager && [...outcome.options].some((o) => o.text === turned.get("outcome"))) outcome.value = turned.get("outcome");
    const fitting = (one) => (outcome.value ? one.outcomes[outcome.value] ?? 0 : one.samples);
    const sum = (several, count) => several.reduce((total, one) => total + count(one), 0);
    const go = (one, at) => {
      if (one) location.assign(`${one.file}?${new URLSearchParams({ outcome: outcome.value, at })}#records`);
    };
    const words = () => (pages.length ? [] : (search?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean));
    const fits = (item, wanted) => selects.every((s) => !s.value || item.dataset[s.dataset.filter] === s.value)
      && wanted.every((word) => item.textContent.toLowerCase().includes(word));
    const apply = () => {
      const wanted = words();
      const all = items();
      const chosen = all.filter((item) => fits(item, wanted));
      const turns = Math.max(1, Math.ceil(chosen.length / size));
      page = Math.max(0, Math.min(page, turns - 1));
      const first = size === Infinity ? 0 : page * size;
      const visible = new Set(chosen.slice(first, first + Math.min(size, most)));
      for (const item of all) item.hidden = !visible.has(item);
      const [earlier, later] = [sum(before, fitting), sum(after, fitting)];
      const total = earlier + chosen.length + later;
      form.querySelector("output").textContent = `${total} of ${all.length + sum([...before, ...after], (one) => one.samples)}`;
      if (nothing) nothing.hidden = chosen.length > 0;
      if (more) {
        more.hidden = chosen.length <= most;
        more.textContent = `Show ${chosen.length - most} more`;
      }
      if (pager) {
        pager.hidden = turns < 2 && !pages.length;
        const last = earlier + Math.min(first + size, chosen.length);
        find("#page").textContent = `${earlier + first + 1}–${last} of ${total}`;
        find("#previous").disabled = page === 0 && !earlier;
        find("#next").disabled = page === turns - 1 && !later;
        list();
      }
    };
    const turn = (by) => {
      const was = page;
      page += by;
      apply();
      if (page !== was) section.scrollIntoView();
      else if (by < 0) go([...before].reverse().find(fitting), "end");
      else go(after.find(fitting), "");
    };
    const jump = pages.length ? document.createElement("select") : null;
    if (jump) {
      jump.id = "jump";
      jump.ariaLabel = "Go to samples";
      jump.addEventListener("change", () => go(pages[jump.value], ""));
      pager.append(jump);
      find("#static").hidden = true;
    }
    const list = () => jump?.replaceChildren(...pages.map((one, number) =>
      new Option(one.ends.join(" – "), number, one === here, one === here)).filter((o) => fitting(pages[o.value])));
    form.addEventListener("input", (event) => {
      if (more) most = AT_ONCE;
      page = 0;
      apply();
      const first = pages.find(fitting);
      const leaves = first !== here && (event.target === outcome || !fitting(here));
      if (leaves && !search.value.trim()) go(first, ""); // else the other script searches all pages
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    more?.addEventListener("click", () => { most = Infinity; apply(); });
    find("#previous")?.addEventListener("click", () => turn(-1));
    find("#next")?.addEventListener("click", () => turn(1));
    section.addEventListener("sorted", () => { page = 0; apply(); });
    // A link to a sample on another page turns to it.
    const seek = () => {
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!pager || !target || !section.contains(target) || !target.matches("[data-outcome]")) return;
      for (const select of selects) select.value = "";
      if (search) search.value = "";
      page = Math.floor(items().indexOf(target) / size);
      apply();
      target.scrollIntoView();
    };
    addEventListener("hashchange", seek);
    apply();
    seek();
  }

  // A link into a closed <details> opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = target && target.closest("details");
    if (details && !details.open) { details.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();
})();
