// The page: what the address says is shown below a bar with the parts of the program and the run that is under way.
import { html, render, useEffect, useRef, useState } from "./html.js";
import { link, useGet, watch } from "./api.js";
import { Files } from "./files.js";
import { Checkpoint } from "./checkpoint.js";
import { Compare } from "./compare.js";
import { Recipe } from "./recipe.js";
import { Run, RunBar } from "./run.js";
import { Output } from "./output.js";

const views = { files: Files, checkpoint: Checkpoint, compare: Compare, recipe: Recipe, run: Run, output: Output };
const bar = [["files", "Files"], ["recipe", "Recipe"], ["run", "Run"], ["compare", "Compare"]];

function address() {
  const [path, rest] = location.hash.slice(2).split("?");
  return { view: views[path] ? path : "files", params: Object.fromEntries(new URLSearchParams(rest || "")) };
}

function App() {
  const [at, setAt] = useState(address());
  const [run, setRun] = useState({ state: "none", warnings: [] });
  const [lost, setLost] = useState(false);
  const session = useGet("api/session");
  const main = useRef();
  const last = useRef({}); // where each part was left

  useEffect(() => {
    const turn = () => {
      setAt(address());
      window.scrollTo(0, 0);
      if (main.current) main.current.focus({ preventScroll: true });
    };
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  useEffect(() => watch((r) => { setRun(r); setLost(false); }, () => setLost(true)), []);

  last.current[at.view] = location.hash;
  const View = views[at.view];
  const part = { checkpoint: "files", output: "files" }[at.view] || at.view;
  useEffect(() => { document.title = `${bar.find(([v]) => v === part)[1]} – mergekit`; }, [part]);
  return html`
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <header>
      <strong>mergekit</strong>
      <nav aria-label="Parts">
        ${bar.map(([view, name]) => html`<a key=${view} href=${last.current[view] || link(view)} aria-current=${part === view ? "page" : undefined}>${name}</a>`)}
      </nav>
      ${session.value && html`<span class="dir" title="the folder of this page">${session.value.dir}</span>`}
    </header>
    <${RunBar} run=${run} />
    ${lost && html`<p class="notice error" role="alert">The program does not answer. It was ended, or it was started anew under another address.</p>`}
    <main id="main" tabindex="-1" ref=${main}><${View} key=${location.hash} params=${at.params} run=${run} /></main>`;
}

render(html`<${App} />`, document.getElementById("app"));
