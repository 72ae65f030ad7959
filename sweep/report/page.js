"use strict";
(() => {
  const BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
    let count = 0;
    for (let left = byte; left; left >>= 1) count += left & 1;
    return count;
  });
  const at = (id) => document.getElementById(id);
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
  const chosen = { model: null, attacks: null };
  let data;

  const unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  /** How many images of a run survive all these attacks; null where it did not meet one of them. */
  const survivors = (run, names) => {
    if (!names.every((name) => Object.hasOwn(run.bits, name))) return null;
    const [first, ...rest] = names.map((name) => unpack(run.bits[name]));
    for (const other of rest) for (let i = 0; i < first.length; i++) first[i] &= other[i];
    return first.reduce((sum, byte) => sum + BITS[byte], 0);
  };

  /** The mean over a model's runs, and each run's count. */
  const union = (model, names) => {
    const counts = model.runs.map((run) => survivors(run, names));
    if (counts.includes(null)) return null;
    return { counts, mean: counts.reduce((a, b) => a + b, 0) / counts.length / model.n };
  };

  const answer = () => {
    const { models } = data.explorer;
    const names = boxes().filter((box) => box.checked).map((box) => box.value);
    const model = models[at("model").value];
    chosen.model = model.label;
    chosen.attacks = names;
    const found = names.length ? union(model, names) : null;
    at("survive").textContent = found ? percent(found.mean) : "–";
    at("meter").style.width = found ? `${100 * found.mean}%` : "0";
    at("told").textContent = told(model, names, found);
  };

  const told = (model, names, found) => {
    if (!names.length) return "Choose at least one attack.";
    if (!found) return `${model.label} did not meet all of these attacks.`;
    const seeds = model.runs.map((run, i) => `seed ${run.seed}: ${found.counts[i]} of ${model.n}`).join("; ");
    const start = data.explorer.models.find((one) => one.start);
    const before = start && start !== model ? union(start, names) : null;
    return (
      `of the images survive ${names.length === 1 ? names[0] : `all ${plural(names.length, "attack")} together`} ` +
      `(${seeds}).` + (before ? ` Starting model: ${percent(before.mean)}.` : "")
    );
  };

  const boxes = () => [...document.querySelectorAll("#explorer input[type=checkbox]")];

  const choose = (names) => {
    for (const box of boxes()) box.checked = names.includes(box.value);
    answer();
  };

  const begin = () => {
    data = JSON.parse(at("data").textContent);
    if (!data.explorer) return;
    const { models, presets } = data.explorer;
    const kept = models.findIndex((model) => model.label === chosen.model);
    at("model").value = String(Math.max(kept, 0));
    at("explorer").addEventListener("change", answer);
    at("explorer").addEventListener("submit", (event) => event.preventDefault());
    for (const button of document.querySelectorAll("[data-preset]"))
      button.addEventListener("click", () => choose(button.dataset.preset ? presets[button.dataset.preset] : []));
    at("explorer").hidden = false;
    choose(chosen.attacks ?? presets.all);
  };

  /** Puts the page that the server has now in place of this one; what the reader chose, opened and reached stays. */
  const replace = (text) => {
    const next = new DOMParser().parseFromString(text, "text/html");
    const open = [...document.querySelectorAll("details[open]")].map((one) => one.id);
    const { activeElement } = document;
    const top = scrollY;
    for (const id of open) next.getElementById(id)?.setAttribute("open", "");
    for (const part of ["header", "nav", "main"])
      document.querySelector(part).replaceWith(document.adoptNode(next.querySelector(part)));
    at("data").textContent = next.getElementById("data").textContent;
    begin();
    at(activeElement.id || "none")?.focus({ preventScroll: true });
    scrollTo({ top, behavior: "instant" });
  };

  let misses = 0;
  const refresh = async () => {
    try {
      const headers = { "If-None-Match": `"${data.version}"` };
      const answered = await fetch(location.pathname, { cache: "no-store", headers });
      misses = 0;
      if (answered.status === 200) replace(await answered.text());
    } catch {
      misses += 1;
    }
    if (misses >= 3) at("live").textContent = "The server has ended; this page stays as it is.";
    else if (data.refresh) setTimeout(refresh, 1000 * data.refresh);
  };

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")].filter((one) => one.id !== "specification-data");
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));

  begin();
  if (data.refresh) setTimeout(refresh, 1000 * data.refresh);
})();
