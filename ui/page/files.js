// A browser of directories that shows what the program works with.
import { html } from "./html.js";
import { bytes, link, parent, useGet } from "./api.js";
import { Failure, Waiting } from "./parts.js";

const target = {
  folder: (e) => link("files", { path: e.path }),
  checkpoint: (e) => (e.merged ? link("output", { path: e.path }) : link("checkpoint", { path: e.path })),
  adapter: (e) => link("checkpoint", { path: e.path }),
  recipe: (e) => link("recipe", { path: e.path }),
  report: (e) => link("output", { path: parent(e.path) || ".", report: e.path }),
};

export function Files({ params }) {
  const path = params.path || ".";
  const { value, error } = useGet("api/browse", { path });
  const steps = path === "." ? [] : path.split("/");
  return html`
    <h1>Files</h1>
    <nav aria-label="Folder" class="crumbs">
      <a href=${link("files", { path: "." })}>folder</a>
      ${steps.map((s, i) => html`<span key=${i}> / <a href=${link("files", { path: steps.slice(0, i + 1).join("/") })}>${s}</a></span>`)}
    </nav>
    <p><a class="button" href=${link("recipe", { in: path, new: "1" })}>New recipe here</a></p>
    ${error ? html`<${Failure} error=${error} />` : !value ? html`<${Waiting} />` : html`<${Listing} value=${value} />`}`;
}

function Listing({ value }) {
  if (!value.entries.length) return html`<p>Here is no checkpoint, no adapter and no recipe.</p>`;
  return html`
    <div class="wide"><table class="listing">
      <thead><tr><th scope="col">Name</th><th scope="col">What it is</th><th scope="col" class="n">Size</th></tr></thead>
      <tbody>${value.entries.map((e) => html`
        <tr key=${e.path}>
          <th scope="row"><a href=${target[e.kind](e)}>${e.name}${e.kind === "folder" ? "/" : ""}</a></th>
          <td>${e.merged ? "merged " : ""}${e.kind}${e.detail ? html`, <span class="soft">${e.detail}</span>` : ""}</td>
          <td class="n">${e.bytes ? bytes(e.bytes) : ""}</td>
        </tr>`)}</tbody>
    </table></div>
    ${value.more && html`<p>There is more than is shown.</p>`}`;
}
