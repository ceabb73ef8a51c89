/* The board of the start page: choose by field and verdict, sort by a column.
   Without this script it is a plain table in the order of the book. */

"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.lnlib-compact")) {
    animate(table);
  }
});

/* On paper nothing can be opened: all is open, but for the code behind figures. */
window.addEventListener("beforeprint", () => {
  for (const box of document.querySelectorAll("details:not([open])")) {
    if (box.matches(".tag_hide-input > details")) continue;
    box.open = true;
    box.dataset.opened = "";
  }
  for (const box of document.querySelectorAll(".toggle-hidden")) {
    box.classList.remove("toggle-hidden");
  }
});
window.addEventListener("afterprint", () => {
  for (const box of document.querySelectorAll("details[data-opened]")) {
    box.open = false;
    delete box.dataset.opened;
  }
});

function animate(table) {
  const groups = [...table.tBodies];
  const claims = groups.flatMap((group) =>
    [...group.querySelectorAll("tr[data-claim]")].map((row) => ({
      row,
      group,
      field: group.dataset.field,
      verdict: row.dataset.verdict,
      says: row.cells[1].querySelector("a").innerText,
    })),
  );
  const sorted = document.createElement("tbody");
  const told = document.createElement("output");
  told.setAttribute("aria-live", "polite");
  const field = choice("Field", claims.map((claim) => claim.field));
  const verdict = choice("Verdict", claims.map((claim) => claim.verdict));
  let by = null;
  let down = false;

  const show = () => {
    let seen = 0;
    for (const claim of claims) {
      claim.row.hidden =
        !(field.value === "" || field.value === claim.field) ||
        !(verdict.value === "" || verdict.value === claim.verdict);
      seen += !claim.row.hidden;
    }
    for (const group of groups) {
      group.hidden = !group.querySelector("tr[data-claim]:not([hidden])");
    }
    const all = claims.length;
    told.value = seen === all ? `${all} claims` : `${seen} of ${all} claims`;
  };

  const order = () => {
    sorted.remove();
    if (by === null) {
      claims.forEach((claim) => claim.group.append(claim.row));
      groups.forEach((group) => table.append(group));
    } else {
      const way = down ? -1 : 1;
      const ranked = [...claims].sort((a, b) => way * a[by].localeCompare(b[by]));
      sorted.append(...ranked.map((claim) => claim.row));
      groups.forEach((group) => group.remove());
      table.append(sorted);
    }
    show();
  };

  const heads = { verdict: table.tHead.rows[0].cells[0], says: table.tHead.rows[0].cells[1] };
  for (const [key, head] of Object.entries(heads)) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.title = "Sort; a third time: the order of the book";
    button.addEventListener("click", () => {
      [by, down] = by !== key ? [key, false] : down ? [null, false] : [key, true];
      for (const [other, cell] of Object.entries(heads)) {
        if (other === by) cell.ariaSort = down ? "descending" : "ascending";
        else cell.removeAttribute("aria-sort");
      }
      order();
    });
    head.append(button);
  }

  const tools = document.createElement("div");
  tools.className = "lnlib-tools";
  tools.append(field.parentNode, verdict.parentNode, told);
  table.before(tools);
  table.classList.add("lnlib-lively");
  for (const select of [field, verdict]) select.addEventListener("change", show);
  show();
}

function choice(name, values) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  select.append(new Option("all", ""));
  for (const value of new Set(values)) select.append(new Option(value, value));
  label.append(name + " ", select);
  return select;
}
