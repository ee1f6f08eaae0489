// Small parts that several views show.
import { html } from "./html.js";

export const Waiting = ({ what }) => html`<p class="soft" role="status">${what || "Reading"} …</p>`;

export const Failure = ({ error }) => html`<p class="notice error" role="alert">${error.message || error}</p>`;

export function Pairs({ list }) {
  return html`<table class="pairs"><tbody>${list.filter(([, v]) => v !== undefined && v !== "" && v !== false).map(([k, v]) => html`<tr key=${k}><th scope="row">${k}</th><td>${v}</td></tr>`)}</tbody></table>`;
}

// Bar shows how far something is; without a total it only says that something goes on.
export function Bar({ done, total, label }) {
  return html`<progress aria-label=${label} max=${total || undefined} value=${total ? Math.min(done, total) : undefined}>${total ? Math.round((100 * done) / total) + " %" : ""}</progress>`;
}

// Head is the head of a column that sorts.
export function Head({ name, by, sort, set, number }) {
  const on = sort.by === by;
  const turn = () => set({ by, down: on ? !sort.down : !!number });
  return html`<th scope="col" class=${number ? "n" : ""} aria-sort=${on ? (sort.down ? "descending" : "ascending") : "none"}>
    <button type="button" class="sort" onClick=${turn}>${name}<span aria-hidden="true">${on ? (sort.down ? " ↓" : " ↑") : ""}</span></button></th>`;
}

// sorted orders a list by what a function gives; what has nothing comes last.
export function sorted(list, value, down) {
  const sign = down ? -1 : 1;
  return [...list].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return typeof x === "string" ? sign * x.localeCompare(y, "en", { numeric: true }) : sign * (x - y);
  });
}
