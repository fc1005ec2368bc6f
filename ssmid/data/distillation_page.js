"use strict";
(() => {
  const out = document.getElementById("readout"), source = document.getElementById("cells");
  if (!out || !source) return;
  const layers = JSON.parse(source.textContent), hint = out.textContent;
  let at = { layer: 0, cell: 0 };
  const percent = v => v === null ? "not known" : v === 0 ? "0" : v >= 0.0995 ? `${(100 * v).toFixed(0)} %` : v >= 9.5e-5 ? `${Number((100 * v).toPrecision(2))} %` : v.toExponential(0);
  const place = (shape, i) => {
    const index = [];
    for (let k = shape.length - 1; k >= 0; k--) { index.unshift(i % shape[k]); i = Math.floor(i / shape[k]); }
    return index.length ? `channel ${index.join(", ")}` : "the only filter";
  };
  const say = () => {
    const l = layers[at.layer], c = at.cell, kind = l.kind[c];
    const ratio = l.ratio[c] === null ? "" : `, ${l.ratio[c]} times the bound`;
    out.textContent = `Layer ${l.layer}, ${place(l.shape, l.place ? l.place[c] : c)}: ` +
      `${kind ? kind + ", " : ""}error ${percent(l.l2[c])}, order ${l.order[c]}${ratio}`;
    document.querySelectorAll(".row img").forEach(img => img.classList.toggle("at", +img.dataset.layer === at.layer));
  };
  const leave = () => { out.textContent = hint; document.querySelectorAll("img.at").forEach(img => img.classList.remove("at")); };
  document.querySelectorAll(".rows").forEach(rows => {
    rows.querySelectorAll("img").forEach(img => img.removeAttribute("title"));
    const follow = event => {
      const img = event.target.closest("img");
      if (!img) return;
      const box = img.getBoundingClientRect(), layer = +img.dataset.layer, count = layers[layer].order.length;
      at = { layer, cell: Math.max(0, Math.min(count - 1, Math.floor((event.clientX - box.left) / box.width * count))) };
      say();
    };
    rows.addEventListener("pointermove", follow);
    rows.addEventListener("pointerdown", follow);
    rows.addEventListener("pointerleave", leave);
    rows.tabIndex = 0;
    rows.setAttribute("role", "group");
    rows.setAttribute("aria-label", "Filters, a row for each layer: arrow keys read them out");
    rows.addEventListener("focus", say);
    rows.addEventListener("blur", leave);
    rows.addEventListener("keydown", event => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const layer = Math.max(0, Math.min(layers.length - 1, at.layer + step[0]));
      at = { layer, cell: Math.max(0, Math.min(layers[layer].order.length - 1, at.cell + step[1])) };
      say();
    });
  });
  const open = () => { const d = document.getElementById(location.hash.slice(1)); if (d && d.tagName === "DETAILS") d.open = true; };
  addEventListener("hashchange", open);
  open();
  let shut = [];
  addEventListener("beforeprint", () => { shut = [...document.querySelectorAll("details:not([open])")]; shut.forEach(d => d.open = true); });
  addEventListener("afterprint", () => shut.forEach(d => d.open = false));
})();
