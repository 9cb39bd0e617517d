"use strict";
(() => {
  const { labels, left } = JSON.parse(document.getElementById("data").textContent);
  const lowerIsBetter = {{ 'true' if board.header.worst == 'max' else 'false' }};
  const [first, second] = ["first", "second"].map((id) => document.getElementById(id));
  const body = document.querySelector("#pair tbody");
  const cell = (text, number) => {
    const made = document.createElement("td");
    made.textContent = text;
    if (number) made.className = "number";
    return made;
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const show = () => {
    const [a, b] = [left[first.value] ?? {}, left[second.value] ?? {}];
    body.replaceChildren();
    for (const radius of Object.keys(a).filter((key) => key in b).sort((x, y) => x - y)) {
      const shared = Object.keys(a[radius]).filter((sample) => sample in b[radius]);
      if (!shared.length) continue;
      const pairs = shared.map((sample) => [a[radius][sample], b[radius][sample]]);
      const better = (x, y) => (lowerIsBetter ? x < y : x > y);
      const [one, other] = [mean(pairs.map(([x]) => x)), mean(pairs.map(([, y]) => y))];
      const row = body.insertRow();
      row.append(cell(labels[radius]), cell(one.toFixed(1), true), cell(other.toFixed(1), true),
        cell((other - one >= 0 ? "+" : "") + (other - one).toFixed(1), true),
        cell(pairs.filter(([x, y]) => better(x, y)).length, true),
        cell(pairs.filter(([x, y]) => better(y, x)).length, true), cell(shared.length, true));
    }
  };
  // The choice is in the address, so that a link leads to it: #compare=FIRST,SECOND
  const read = () => {
    const found = location.hash.match(/^#compare=(.+)$/);
    if (!found) return;
    const [a, b] = found[1].split(",").map(decodeURIComponent);
    const known = [...first.options].map((option) => option.value);
    if (known.includes(a)) first.value = a;
    if (known.includes(b)) second.value = b;
    document.getElementById("compare").scrollIntoView();
  };
  const choose = () => {
    history.replaceState(null, "", `#compare=${encodeURIComponent(first.value)},${encodeURIComponent(second.value)}`);
    show();
  };
  for (const select of [first, second]) select.addEventListener("change", choose);
  addEventListener("hashchange", () => { read(); show(); });
  read();
  show();
})();
