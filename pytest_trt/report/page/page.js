"use strict";
// The page is read without this: it filters, opens and closes, and keeps the colours that were chosen.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const cases = all("details.case");
  const cells = new Map(all("a.cell").map((cell) => [cell.hash.slice(1), cell]));
  const words = new Map(cases.map((one) => [one, textOf(one)]));
  const text = document.getElementById("text");
  const shown = document.getElementById("shown");

  function textOf(one) {
    const codes = [...one.querySelectorAll(".what")].map((each) => each.textContent);
    return [one.querySelector("summary").textContent, ...codes].join(" ").toLowerCase();
  }

  function filter() {
    const verdicts = new Set(all("input[name=verdict]:checked").map((box) => box.value));
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const one of cases) {
      const found = words.get(one);
      const fits = verdicts.has(one.dataset.verdict) && wanted.every((word) => found.includes(word));
      one.hidden = !fits;
      cells.get(one.id).hidden = !fits;
      count += fits;
    }
    for (const row of all(".matrix tbody tr")) row.hidden = !row.querySelector("a.cell:not([hidden])");
    shown.textContent = count === cases.length ? `${count} cases` : `${count} of ${cases.length} cases`;
  }

  function reveal() {
    const one = document.getElementById(location.hash.slice(1));
    if (!one || !one.matches("details.case")) return;
    one.open = true;
    one.scrollIntoView();
    one.querySelector("summary").focus({ preventScroll: true });
  }

  function colours() {
    const boxes = all("input[name=theme]");
    try {
      const kept = localStorage.getItem("pytest-trt-theme");
      const box = boxes.find((each) => each.value === kept);
      if (box) box.checked = true;
    } catch { /* a file may have no storage: Auto then */ }
    for (const box of boxes) {
      box.addEventListener("change", () => {
        try { localStorage.setItem("pytest-trt-theme", box.value); } catch { /* the same */ }
      });
    }
  }

  // browsers without ::details-content print what is open
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of closed) each.open = false; });

  colours();
  document.getElementById("filter").hidden = cases.length < 2;
  document.getElementById("buttons").hidden = cases.length < 2;
  for (const box of all("input[name=verdict]")) box.addEventListener("change", filter);
  text.addEventListener("input", filter);
  document.getElementById("open").addEventListener("click", () => { for (const one of cases) one.open = !one.hidden; });
  document.getElementById("close").addEventListener("click", () => { for (const one of cases) one.open = false; });
  addEventListener("hashchange", reveal);
  // a second click on the same cell changes no hash
  for (const [name, cell] of cells) cell.addEventListener("click", () => { if (location.hash === `#${name}`) reveal(); });
  filter();
  reveal();
})();
