"use strict";
// A search through all pages of a run. The words of each lie in a script of its own, read when they are asked for.
(() => {
  const [AT_MOST, PAUSE, LONGEST] = [200, 250, 240]; // hits shown, milliseconds after a key, characters of a hit
  const pages = window.runPages;
  if (!pages) return;
  const waiting = new Map();
  window.runWords = (number, entries) => waiting.get(number)?.(entries);
  const read = (number) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(number, resolve);
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => reject(new Error(`${pages[number].words} is not there`)));
    script.src = pages[number].words;
    document.head.append(script);
  });

  const section = document.getElementById("records");
  const form = section.querySelector(".filters");
  const [search, shown, hits] = ["search", "shown", "hits"].map((id) => document.getElementById(id));
  const outcome = form.querySelector('[data-filter="outcome"]');
  let latest = 0;
  const words = () => search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const add = (page, [id, found, said, anchor]) => {
    const [item, link, kind] = ["li", "a", "span"].map((name) => document.createElement(name));
    link.href = `${page.file}#${encodeURIComponent(anchor)}`;
    link.textContent = id;
    kind.className = "muted";
    kind.textContent = found;
    item.append(link, " ", kind, " ", said.length > LONGEST ? `${said.slice(0, LONGEST)}…` : said);
    hits.append(item);
  };
  const look = async () => {
    const [turn, wanted] = [++latest, words()];
    let found = 0;
    hits.replaceChildren();
    for (const [number, page] of pages.entries()) {
      if (outcome.value && !page.outcomes[outcome.value]) continue;
      const entries = await read(number);
      if (turn !== latest) return;
      for (const entry of entries) {
        const text = `${entry[0]} ${entry[2]}`.toLowerCase();
        if ((outcome.value && entry[1] !== outcome.value) || !wanted.every((word) => text.includes(word))) continue;
        if (++found <= AT_MOST) add(page, entry);
      }
      shown.textContent = `${found} found on ${number + 1} of ${pages.length} pages`;
    }
    shown.textContent = `${found} found${found > AT_MOST ? `, the first ${AT_MOST} shown` : ""}`;
  };
  let timer;
  form.addEventListener("input", (event) => {
    const searching = words().length > 0;
    section.classList.toggle("searching", searching);
    hits.hidden = !searching;
    clearTimeout(timer);
    latest += 1; // an earlier search ends
    if (searching) timer = setTimeout(look, PAUSE);
  });

  // A link to a sample that is on another page leads there.
  const seek = async () => {
    const anchor = decodeURIComponent(location.hash.slice(1));
    if (!anchor.startsWith("sample-") || document.getElementById(anchor)) return;
    for (const [number, page] of pages.entries()) {
      if ((await read(number)).some((entry) => entry[3] === anchor)) {
        location.replace(`${page.file}#${encodeURIComponent(anchor)}`);
        return;
      }
    }
  };
  addEventListener("hashchange", seek);
  seek();
})();
