// A checkpoint or an adapter: configuration, tensors, and what is in one of them.
import { html, useMemo, useState } from "./html.js";
import { base, bytes, count, elements, figure, grouped, link, shape, useGet } from "./api.js";
import { Failure, Head, Pairs, sorted, Waiting } from "./parts.js";

export function Checkpoint({ params }) {
  const { value, error } = useGet("api/checkpoint", { path: params.path || "." });
  if (error) return html`<h1>${base(params.path || "")}</h1><${Failure} error=${error} />`;
  if (!value) return html`<h1>${base(params.path || "")}</h1><${Waiting} what="Reading headers" />`;
  return html`
    <h1>${value.path}</h1>
    <p class="actions">
      <a class="button" href=${link("compare", { a: value.path })}>Compare with another</a>
      ${value.merged && html`<a class="button" href=${link("output", { path: value.path })}>What a merge has written</a>`}
    </p>
    <${Pairs} list=${[
      ["What it is", value.detail],
      ["Tensors", grouped(value.tensors.length)],
      ["Parameters", count(value.elements)],
      ["Size", `${bytes(value.bytes)} in ${value.files.length} file${value.files.length === 1 ? "" : "s"}`],
      ["Dtypes", [...new Set(value.tensors.map((t) => t.dtype))].join(", ")],
    ]} />
    ${value.config && html`<details><summary>Configuration</summary><pre tabindex="0">${JSON.stringify(value.config, null, 2)}</pre></details>`}
    ${value.metadata && Object.keys(value.metadata).length > 0 && html`<details><summary>Metadata of the files</summary>
      <${Pairs} list=${Object.entries(value.metadata).sort()} /></details>`}
    <${Tensors} value=${value} />`;
}

const pageful = 200;
const columns = { name: (t) => t.name, dtype: (t) => t.dtype, shape: (t) => elements(t.shape), bytes: (t) => t.bytes };

function Tensors({ value }) {
  const [filter, setFilter] = useState("");
  const [sort, setSort] = useState({ by: "", down: false });
  const [shown, setShown] = useState(pageful);
  const [open, setOpen] = useState(null);
  const list = useMemo(() => {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = value.tensors.filter((t) => words.every((w) => t.name.toLowerCase().includes(w)));
    return sort.by ? sorted(kept, columns[sort.by], sort.down) : kept;
  }, [value, filter, sort]);
  return html`
    <h2>Tensors</h2>
    <p class="filter"><label>Names that contain <input type="search" value=${filter} onInput=${(e) => { setFilter(e.target.value); setShown(pageful); }} /></label>
      <span role="status">${grouped(list.length)} of ${grouped(value.tensors.length)}</span></p>
    <div class="wide"><table class="tensors">
      <thead><tr>
        <${Head} name="Name" by="name" sort=${sort} set=${setSort} />
        <${Head} name="Dtype" by="dtype" sort=${sort} set=${setSort} />
        <${Head} name="Shape" by="shape" sort=${sort} set=${setSort} number />
        <${Head} name="Size" by="bytes" sort=${sort} set=${setSort} number />
      </tr></thead>
      <tbody>${list.slice(0, shown).map((t) => html`
        <tr key=${t.name}>
          <th scope="row"><button type="button" class="name" aria-expanded=${open === t.name} onClick=${() => setOpen(open === t.name ? null : t.name)}>${t.name}</button></th>
          <td>${t.dtype}</td><td class="n">${shape(t.shape)}</td><td class="n">${bytes(t.bytes)}</td>
        </tr>
        ${open === t.name && html`<tr key=${t.name + "/values"} class="values"><td colspan="4"><${Values} path=${value.path} name=${t.name} /></td></tr>`}`)}
      </tbody>
    </table></div>
    ${list.length > shown && html`<p><button type="button" onClick=${() => setShown(shown + pageful)}>Show ${Math.min(pageful, list.length - shown)} more</button></p>`}`;
}

function Values({ path, name }) {
  const { value: s, error } = useGet("api/statistics", { path, tensor: name });
  if (error) return html`<${Failure} error=${error} />`;
  if (!s) return html`<${Waiting} what="Reading the tensor" />`;
  if (!s.float) return html`<p>A tensor of ${s.dtype} has no statistics.</p>`;
  return html`<div class="statistics">
    <${Pairs} list=${[
      ["Smallest", figure(s.min)], ["Largest", figure(s.max)], ["Mean", figure(s.mean)], ["Standard deviation", figure(s.std)],
      ["Norm", figure(s.norm)], ["Zeros", grouped(s.zeros)], ["NaN", grouped(s.nan)], ["Infinite", grouped(s.inf)],
    ]} />
    ${s.histogram && html`<${Histogram} s=${s} />`}
  </div>`;
}

// Histogram draws counts on a logarithmic scale: tails are what one looks for.
function Histogram({ s }) {
  const width = 512, height = 140, n = s.histogram.length;
  const top = Math.log1p(Math.max(...s.histogram));
  const step = (s.max - s.min) / n;
  return html`<figure>
    <svg viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`Histogram of ${s.name}: ${n} bins from ${figure(s.min)} to ${figure(s.max)}`}>
      ${s.histogram.map((c, i) => {
        const h = top > 0 ? (Math.log1p(c) / top) * height : 0;
        return html`<rect key=${i} x=${(i * width) / n} y=${height - h} width=${width / n - 0.5} height=${h}><title>${`${figure(s.min + i * step)} to ${figure(s.min + (i + 1) * step)}: ${grouped(c)}`}</title></rect>`;
      })}
    </svg>
    <figcaption><span>${figure(s.min)}</span><span>values; heights are logarithms of counts</span><span>${figure(s.max)}</span></figcaption>
  </figure>`;
}
