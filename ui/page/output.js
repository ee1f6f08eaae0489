// What a merge has written: its report, the model card, recipe and provenance.
import { html, useState } from "./html.js";
import { base, link, useGet } from "./api.js";
import { Failure, Waiting } from "./parts.js";

export function Output({ params }) {
  const { value, error } = useGet("api/output", { path: params.path || "." });
  const [chosen, choose] = useState(params.report ? "report" : "");
  if (error) return html`<h1>${params.path}</h1><${Failure} error=${error} />`;
  if (!value) return html`<h1>${params.path}</h1><${Waiting} />`;
  const reports = value.reports.map((r) => r.path);
  const report = params.report && reports.includes(params.report) ? params.report : reports.find((r) => r.startsWith(`${value.path}/`)) || params.report;
  const parts = [
    report && ["report", "Report"],
    value.card && ["card", "Model card"],
    value.recipe && ["recipe", "Recipe"],
    value.provenance && ["provenance", "Provenance"],
  ].filter(Boolean);
  const part = parts.find(([p]) => p === chosen) ? chosen : parts.length ? parts[0][0] : "";
  return html`
    <h1>${value.path}</h1>
    <p class="actions">
      ${value.exists && html`<a class="button" href=${link("checkpoint", { path: value.path })}>Open the checkpoint</a>`}
      ${part === "report" && html`<a class="button" href=${"report/" + encodePath(report)} target="_blank" rel="noopener">Report in a tab of its own</a>`}
    </p>
    ${!value.exists && html`<p>${value.partial ? "An interrupted merge waits here to be resumed." : "There is nothing of this name."}</p>`}
    ${parts.length > 0 && html`<div class="choice" role="group" aria-label="What to show">
      ${parts.map(([p, name]) => html`<button key=${p} type="button" aria-pressed=${p === part} onClick=${() => choose(p)}>${name}</button>`)}
    </div>`}
    ${part === "report" && html`<iframe class="report" sandbox="" title=${`Report ${base(report)}`} src=${"report/" + encodePath(report)}></iframe>`}
    ${part === "card" && html`<pre tabindex="0" class="text">${value.card}</pre>`}
    ${part === "recipe" && html`<pre tabindex="0">${value.recipe}</pre>`}
    ${part === "provenance" && html`<pre tabindex="0">${JSON.stringify(value.provenance, null, 2)}</pre>`}`;
}

const encodePath = (p) => p.split("/").map(encodeURIComponent).join("/");
