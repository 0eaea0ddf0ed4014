"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const figures = read("figures");
  const themes = read("themes");
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const runs = all("#runs input");
  const views = new Map();
  let drawing = 0;

  const shownRuns = () => runs.filter((box) => box.checked).map((box) => box.value);
  const isDark = () => (theme.value ? theme.value === "dark" : prefersDark.matches);

  // Figures: drawn anew for another theme; a choice of runs only sets their parameter.
  async function draw() {
    const turn = ++drawing;
    const config = isDark() ? themes.dark : themes.light;
    for (const place of all(".plot")) {
      const name = place.dataset.figure;
      views.get(name)?.finalize();
      const options = { config, actions: false, renderer: "svg", tooltip: { theme: isDark() ? "dark" : "light" } };
      const result = await vegaEmbed(place, structuredClone(figures[name]), options);
      if (turn !== drawing) return;
      all("svg", place).forEach((svg) => svg.setAttribute("aria-hidden", "true")); // its place has the label
      views.set(name, result.view);
      await result.view.signal("runs", shownRuns()).runAsync();
    }
    document.documentElement.dataset.drawn = isDark() ? "dark" : "light";
  }

  function chooseRuns() {
    const shown = new Set(shownRuns());
    const known = new Set(runs.map((box) => box.value));
    for (const element of all("[data-run]")) {
      element.hidden = known.has(element.dataset.run) && !shown.has(element.dataset.run);
    }
    for (const view of views.values()) view.signal("runs", [...shown]).runAsync();
  }

  function chooseTheme() {
    if (theme.value) document.documentElement.dataset.theme = theme.value;
    else delete document.documentElement.dataset.theme;
    draw();
  }

  // Tables: a click on a heading sorts by its column; the second one the other way round.
  const cellValue = (row, column) => {
    const cell = row.cells[column];
    const text = (cell.querySelector(".value") ?? cell).textContent.trim();
    const number = Number(text.replaceAll(",", "").replaceAll("−", "-").replace(/[?*†]/g, ""));
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  function makeSortable(table) {
    const headings = all("thead th", table);
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row) => [cellValue(row, column), row]);
        const empty = (key) => key === null; // stay last in both directions
        keyed.sort(([a], [b]) => (empty(a) || empty(b) ? compare(a, b) : sign * compare(a, b)));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }

  function showSettings() {
    const box = document.getElementById("all-settings");
    const rows = all("#settings tr.same");
    const nothingDiffers = rows.length === all("#settings tbody tr").length;
    if (nothingDiffers) { box.checked = true; box.closest("p").hidden = true; }
    const apply = () => rows.forEach((row) => { row.hidden = !box.checked; });
    box.addEventListener("change", apply);
    apply();
  }

  function followSections() {
    const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-20% 0px -75% 0px" });
    all("main section").forEach((section) => observer.observe(section));
  }

  runs.forEach((box) => box.addEventListener("change", chooseRuns));
  theme.addEventListener("change", chooseTheme);
  prefersDark.addEventListener("change", () => { if (!theme.value) draw(); });
  all("table.sortable").forEach(makeSortable);
  for (const box of all(".coloring")) {
    box.addEventListener("change", () => box.closest("[data-run]").classList.toggle("uncoloured", !box.checked));
  }
  showSettings();
  followSections();
  draw();
})();
