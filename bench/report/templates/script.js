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
    });
  }

  // Filters: an item is shown when every chosen value is its own. Of a gallery the first so many are shown at once.
  const AT_ONCE = 24;
  for (const form of document.querySelectorAll(".filters")) {
    const selects = [...form.querySelectorAll("select")];
    const items = [...form.parentElement.querySelectorAll("[data-outcome]")];
    const more = form.parentElement.querySelector("#more");
    const nothing = form.parentElement.querySelector("#nothing");
    let most = more ? AT_ONCE : Infinity;
    const apply = () => {
      const chosen = new Set(items.filter((item) => selects.every((s) => !s.value || item.dataset[s.dataset.filter] === s.value)));
      let shown = 0;
      for (const item of items) item.hidden = !(chosen.has(item) && shown++ < most);
      form.querySelector("output").textContent = `${chosen.size} of ${items.length}`;
      if (nothing) nothing.hidden = chosen.size > 0;
      if (more) {
        more.hidden = chosen.size <= most;
        more.textContent = `Show ${chosen.size - most} more`;
      }
    };
    form.addEventListener("input", () => { if (more) most = AT_ONCE; apply(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    more?.addEventListener("click", () => { most = Infinity; apply(); });
    apply();
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
