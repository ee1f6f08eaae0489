// The difference of two checkpoints, tensor by tensor.
import { html, useEffect, useMemo, useState } from "./html.js";
import { bytes, figure, grouped, link, useGet, work } from "./api.js";
import { Bar, Failure, Head, sorted } from "./parts.js";

export function Compare({ params }) {
  const { value: models, error } = useGet("api/models");
  const [a, setA] = useState(params.a || "");
  const [b, setB] = useState(params.b || "");
  const go = (e) => {
    e.preventDefault();
    location.hash = link("compare", { a: a.trim(), b: b.trim(), go: "1" });
  };
  return html`
    <h1>Compare two checkpoints</h1>
    ${error && html`<${Failure} error=${error} />`}
    <form onSubmit=${go} class="pair">
      <label>A <input list="models" value=${a} required onInput=${(e) => setA(e.target.value)} /></label>
      <label>B <input list="models" value=${b} required onInput=${(e) => setB(e.target.value)} /></label>
      <datalist id="models">${(models || []).filter((m) => m.kind === "checkpoint").map((m) => html`<option key=${m.path} value=${m.path} />`)}</datalist>
      <button type="submit" class="first">Compare</button>
    </form>
    ${params.go && html`<${Comparison} a=${params.a} b=${params.b} />`}`;
}

function Comparison({ a, b }) {
  const [state, setState] = useState({ done: 0, total: 0 });
  useEffect(() => work("api/compare", { a, b }, {
    progress: (p) => setState(p), done: (value) => setState({ value }), failed: (error) => setState({ error }),
  }), [a, b]);
  if (state.error) return html`<${Failure} error=${state.error} />`;
  if (state.value) return html`<${Differences} value=${state.value} />`;
  return html`<p><${Bar} done=${state.done} total=${state.total} label="Comparing" /></p>
    <p class="soft" role="status">${state.total ? `${bytes(state.done)} of ${bytes(state.total)}` : "Reading headers …"} It ends when this page is left.</p>`;
}

const columns = { name: (d) => d.name, max: (d) => d.max_abs, mean: (d) => d.mean_abs, cosine: (d) => d.cosine, ulps: (d) => d.ulps };

function Differences({ value }) {
  const [all, setAll] = useState(false);
  const [sort, setSort] = useState({ by: "", down: false });
  const list = useMemo(() => {
    const kept = all ? value.tensors : value.tensors.filter((d) => !d.equal);
    return sort.by ? sorted(kept, columns[sort.by], sort.down) : kept;
  }, [value, all, sort]);
  const n = value.tensors.length;
  return html`
    <h2>${value.equal === n ? `All ${grouped(n)} tensors are equal` : `${grouped(n - value.equal)} of ${grouped(n)} tensors differ`}</h2>
    <p><label><input type="checkbox" checked=${all} onChange=${(e) => setAll(e.target.checked)} /> show equal tensors, too</label></p>
    ${list.length > 0 && html`<div class="wide"><table>
      <thead><tr>
        <${Head} name="Tensor" by="name" sort=${sort} set=${setSort} />
        <${Head} name="Largest difference" by="max" sort=${sort} set=${setSort} number />
        <${Head} name="Mean" by="mean" sort=${sort} set=${setSort} number />
        <${Head} name="Cosine" by="cosine" sort=${sort} set=${setSort} number />
        <${Head} name="Units in the last place" by="ulps" sort=${sort} set=${setSort} number />
      </tr></thead>
      <tbody>${list.map((d) => html`<tr key=${d.name}>
        <th scope="row">${d.name}</th>
        ${d.only || d.problem
          ? html`<td colspan="4">${d.only ? `only in ${d.only.toUpperCase()}` : d.problem}</td>`
          : html`<td class="n">${figure(d.max_abs)}</td><td class="n">${figure(d.mean_abs)}</td><td class="n">${d.cosine === null ? "" : d.cosine.toFixed(6)}</td><td class="n">${figure(d.ulps)}</td>`}
      </tr>`)}</tbody>
    </table></div>`}`;
}
