// The run that is under way, or the last one.
import { html, useState } from "./html.js";
import { bytes, count, duration, grouped, link, post, get, remove } from "./api.js";
import { Bar, Failure, Pairs } from "./parts.js";

const going = (run) => run.state === "running" || run.state === "stopping";
const words = { running: "Merging", stopping: "Stopping", done: "Done", failed: "Failed", interrupted: "Interrupted" };

// RunBar is on every page while something runs.
export function RunBar({ run }) {
  if (!going(run)) return null;
  const share = run.total ? `${Math.floor((100 * run.done) / run.total)} %` : run.step;
  return html`<div class="runbar"><a href=${link("run")}>${words[run.state]} ${run.output}: ${share}${run.left ? `, ${duration(run.left)} left` : ""}</a></div>`;
}

export function Run({ run }) {
  if (run.state === "none") {
    return html`<h1>Run</h1><p>Nothing was run yet. <a href=${link("files")}>Open a recipe</a>, or <a href=${link("recipe", { in: ".", new: "1" })}>write one</a>.</p>`;
  }
  return html`<h1>${words[run.state]}: ${run.output}</h1><${Progress} run=${run} />`;
}

// Progress shows a run. It belongs to the program: closing the page does not end it.
export function Progress({ run }) {
  const [error, setError] = useState(null);
  const stop = () => remove("api/run").then(() => setError(null), setError);
  const resume = async () => {
    try {
      const recipe = await get("api/recipe", { path: run.recipe });
      await post("api/run", { recipe: run.recipe, digest: recipe.digest, output: run.output, replace: false, resume: true, report: false });
      setError(null);
    } catch (e) {
      setError(e);
    }
  };
  return html`<section class="run" aria-label="Run">
    ${going(run) && html`<p><${Bar} done=${run.done} total=${run.total} label="Progress of the merge" /></p>`}
    <p role="status" class="step">${said(run)}</p>
    ${run.error && html`<${Failure} error=${run.error} />`}
    ${error && html`<${Failure} error=${error} />`}
    <p class="actions">
      ${run.state === "running" && html`<button type="button" onClick=${stop}>Stop</button>`}
      ${run.state === "interrupted" && html`<button type="button" class="first" onClick=${resume}>Resume</button>`}
      ${run.state === "done" && html`<a class="button first" href=${link("output", run.report ? { path: run.output, report: run.report } : { path: run.output })}>${run.report ? "See the report" : "See the output"}</a>
        <a class="button" href=${link("checkpoint", { path: run.output })}>Open the checkpoint</a>`}
      <a class="button" href=${link("recipe", { path: run.recipe })}>Open the recipe</a>
    </p>
    <${Pairs} list=${[
      ["Recipe", run.recipe],
      ["Output", run.output],
      ["Time", duration(run.seconds)],
      ["Written", run.total > 0 && `${bytes(run.done)} of ${bytes(run.total)}`],
      ["Rate", run.rate > 0 && `${bytes(run.rate)}/s`],
      ["Peak memory", run.peak > 0 && `${bytes(run.peak)} anonymous`],
      ["Tensors", run.summary && `${grouped(run.summary.tensors)}, ${count(run.summary.elements)} parameters by ${run.summary.merge_method}`],
    ]} />
    ${run.stages && html`<h2>Stages</h2><div class="wide"><table><thead><tr><th scope="col">Stage</th><th scope="col">Method</th><th scope="col">State</th></tr></thead>
      <tbody>${run.stages.map((s) => html`<tr key=${s.name}><th scope="row">${s.name}</th><td>${s.merge_method}</td><td>${s.state}${s.why ? html` <span class="soft">(${s.why})</span>` : ""}</td></tr>`)}</tbody></table></div>`}
    ${run.trials && html`<h2>Trials</h2><ol class="plain">${run.trials.map((t) => html`<li key=${t.number}>trial ${t.number} of ${t.of}: ${t.failed || t.score}${t.best ? " (best so far)" : ""}</li>`)}</ol>`}
    ${run.warnings.length > 0 && html`<h2>Warnings</h2><ul>${run.warnings.map((w, i) => html`<li key=${i}>${w}</li>`)}</ul>`}
    ${run.notes && run.notes.length > 0 && html`<h2>Notes</h2><ul>${run.notes.map((w, i) => html`<li key=${i}>${w}</li>`)}</ul>`}
  </section>`;
}

function said(run) {
  switch (run.state) {
    case "running":
      return `${run.step}${run.left ? `, ${duration(run.left)} left` : ""}`;
    case "stopping":
      return "stopping; what is finished is kept";
    case "interrupted":
      return "It was stopped. Resume finishes it, with the same bytes as an undisturbed run.";
    case "done":
      return `Complete after ${duration(run.seconds)}.`;
  }
  return "";
}
