// A recipe: it is checked as it is written, saved, and run.
import { html, useEffect, useRef, useState } from "./html.js";
import { base, bytes, count, get, grouped, join, link, parent, post, put, useGet } from "./api.js";
import { Editor } from "./editor.js";
import { Failure, Waiting } from "./parts.js";

const drafts = new Map(); // what was written and not saved, by path
const outputs = new Map(); // where each recipe went last
const started = "merge_method: \nmodels:\n  - model: \n";

addEventListener("beforeunload", (e) => {
  if ([...drafts.values()].some((d) => d.text !== d.saved)) e.preventDefault();
});

export function Recipe({ params, run }) {
  if (!params.path && !params.new) {
    return html`<h1>Recipe</h1><p><a href=${link("files")}>Open one of the files</a>, or <a href=${link("recipe", { in: ".", new: "1" })}>write a new one</a>.</p>`;
  }
  return params.path ? html`<${Existing} key=${params.path} path=${params.path} run=${run} />` : html`<${Work} key=${"in " + params.in} path="" dir=${params.in || "."} run=${run} />`;
}

function Existing({ path, run }) {
  const known = drafts.get(path);
  const { value, error } = useGet("api/recipe", known ? null : { path });
  if (error) return html`<h1>${path}</h1><${Failure} error=${error} />`;
  if (!known && !value) return html`<h1>${path}</h1><${Waiting} />`;
  return html`<${Work} path=${path} dir=${parent(path) || "."} loaded=${value} run=${run} />`;
}

function Work({ path, dir, loaded, run }) {
  const key = path || `new in ${dir}`;
  if (!drafts.has(key)) drafts.set(key, loaded ? { text: loaded.text, saved: loaded.text, digest: loaded.digest } : { text: started, saved: started, digest: "" });
  const [draft, setDraft] = useState(drafts.get(key));
  const [name, setName] = useState(path || join(dir, "recipe.yml"));
  const [checked, setChecked] = useState(null);
  const [error, setError] = useState(null);
  const [jump, setJump] = useState(null);
  const [note, setNote] = useState("");
  const dirty = !path || draft.text !== draft.saved;

  const update = (change) => {
    const next = { ...drafts.get(key), ...change };
    drafts.set(key, next);
    setDraft(next);
    return next;
  };
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      post("api/check", { path: name, text: draft.text }, stop.signal).then(
        (c) => setChecked({ ...c, text: draft.text }),
        (e) => e.name === "AbortError" || setChecked({ problems: [{ line: 0, severity: "error", message: e.message }], plans: [], text: draft.text }),
      );
    }, checked ? 200 : 0);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [draft.text, name]);

  // save writes the recipe; it returns its digest, or null.
  const save = async () => {
    try {
      const text = drafts.get(key).text;
      const done = await put("api/recipe", { path: name, text, was: path === name ? drafts.get(key).digest : "" });
      setError(null);
      setNote(`Saved ${done.path}.`);
      if (done.path !== path) {
        drafts.delete(key);
        drafts.set(done.path, { text, saved: text, digest: done.digest });
        if (outputs.has(key)) outputs.set(done.path, outputs.get(key));
        history.replaceState(null, "", link("recipe", { path: done.path }));
        dispatchEvent(new HashChangeEvent("hashchange"));
      } else {
        update({ saved: text, digest: done.digest });
      }
      return done;
    } catch (e) {
      setError(e);
      return null;
    }
  };
  const problems = checked ? checked.problems : [];
  return html`
    <h1>${path ? base(path) : "New recipe"}</h1>
    <form class="pair" onSubmit=${(e) => { e.preventDefault(); save(); }}>
      <label>File <input value=${name} required spellcheck=${false} onInput=${(e) => setName(e.target.value)} /></label>
      <button type="submit" disabled=${!dirty && name === path}>Save</button>
      <span role="status" class="soft">${dirty && path ? "not saved" : note}</span>
    </form>
    ${error && html`<${Failure} error=${error} />`}
    <div class="work">
      <div class="left">
        <${Editor} text=${draft.text} path=${name} problems=${problems} change=${(text) => { update({ text }); setNote(""); }} save=${save} jump=${jump} />
        <${Problems} list=${problems} ready=${checked !== null && checked.text === draft.text} go=${(p) => setJump({ ...p })} />
      </div>
      <div class="right">
        <${Plans} plans=${checked ? checked.plans : []} />
        <${RunForm} key=${key} id=${key} dir=${dir} save=${save} draft=${draft} dirty=${dirty || name !== path} name=${name} problems=${problems} run=${run} fail=${setError} />
        <${Method} text=${draft.text} />
      </div>
    </div>`;
}

function Problems({ list, ready, go }) {
  const words = { error: "Error", warning: "Warning", note: "Note" };
  const order = { error: 0, warning: 1, note: 2 };
  const sorted = [...list].sort((a, b) => order[a.severity] - order[b.severity] || a.line - b.line);
  return html`<section id="problems" aria-label="What is wrong" aria-live="polite">
    ${!list.length ? (ready ? html`<p class="good">The recipe can be run.</p>` : html`<p class="soft">Checking …</p>`) : html`<ul class="problems">${sorted.map((p, i) => html`
      <li key=${i} class=${p.severity}>${p.line > 0
        ? html`<button type="button" onClick=${() => go(p)}>${words[p.severity]} at line ${p.line}, column ${p.col}</button> ${p.message}`
        : html`<b>${words[p.severity]}</b> ${p.message}`}</li>`)}</ul>`}
  </section>`;
}

function Plans({ plans }) {
  if (!plans.length) return null;
  return html`<section aria-label="Plan"><h2>Plan</h2>
    ${plans.map((p, i) => html`<div key=${i} class="plan">
      ${plans.length > 1 && html`<h3>${p.name || "output"} <span class="soft">${p.method}${p.fused ? ", computed where it is read" : ""}</span></h3>`}
      ${p.tensors > 0 && html`<table class="pairs"><tbody>
        <tr><th scope="row">Output</th><td>${bytes(p.written)}: ${grouped(p.tensors)} tensors, ${count(p.elements)} parameters</td></tr>
        <tr><th scope="row">Reads</th><td>about ${bytes(p.read)}</td></tr>
        <tr><th scope="row">Memory</th><td>about ${bytes(p.memory)} beside the mapped files</td></tr>
        <tr><th scope="row">Architecture</th><td>${p.architecture}</td></tr>
        <tr><th scope="row">Models</th><td><ul class="plain">${(p.models || []).map((m) => html`<li key=${m.name}>${m.path ? html`<a href=${link("checkpoint", { path: m.path })}>${m.name}</a>` : m.name}${m.base ? " (base)" : ""}</li>`)}</ul></td></tr>
      </tbody></table>`}
    </div>`)}</section>`;
}

function RunForm({ id, dir, save, draft, dirty, name, problems, run, fail }) {
  const [out, setOut] = useState(outputs.get(id) || join(dir, "merged"));
  const [report, setReport] = useState(true);
  const [replace, setReplace] = useState(false);
  const [there, setThere] = useState({});
  const busy = run.state === "running" || run.state === "stopping";
  const wrong = problems.some((p) => p.severity === "error");
  useEffect(() => {
    outputs.set(id, out);
    const stop = new AbortController();
    const timer = setTimeout(() => get("api/output", { path: out }, stop.signal).then(setThere, () => setThere({})), 200);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [out, run.state]);
  const go = async (e) => {
    e.preventDefault();
    const resume = e.submitter && e.submitter.value === "resume";
    const saved = dirty ? await save() : { path: name, digest: draft.digest };
    if (!saved) return;
    try {
      await post("api/run", { recipe: saved.path, digest: saved.digest, output: out, replace, resume, report });
      location.hash = link("run");
    } catch (error) {
      fail(error);
    }
  };
  return html`<section aria-label="Run"><h2>Run</h2>
    <form onSubmit=${go} class="run-form">
      <label>Output directory <input value=${out} required spellcheck=${false} onInput=${(e) => setOut(e.target.value)} /></label>
      ${there.exists && html`<p class="soft">It exists.</p>`}
      ${there.partial && html`<p class="soft">An interrupted merge waits there to be resumed.</p>`}
      <label><input type="checkbox" checked=${report} onChange=${(e) => setReport(e.target.checked)} /> write a report, which costs another pass or two</label>
      <label><input type="checkbox" checked=${replace} onChange=${(e) => setReplace(e.target.checked)} /> replace what is there</label>
      <p class="actions">
        <button type="submit" class="first" disabled=${busy || wrong}>${dirty ? "Save and run" : "Run"}</button>
        ${there.partial && html`<button type="submit" value="resume" disabled=${busy || wrong}>Resume</button>`}
        ${busy && html`<a href=${link("run")}>A run is under way.</a>`}
      </p>
    </form></section>`;
}

let methods; // asked for once

function Method({ text }) {
  const [list, setList] = useState([]);
  useEffect(() => { (methods ||= get("api/methods")).then(setList, () => { methods = null; }); }, []);
  const found = /^\s*merge_method\s*:\s*["']?(\w+)/m.exec(text);
  const m = found && list.find((m) => m.name === found[1]);
  if (!m) return null;
  return html`<section aria-label="Method" class="method"><h2>${m.title}</h2>
    <p>${m.summary}</p>
    <pre tabindex="0">${m.formula}</pre>
    ${m.parameters && html`<dl>${m.parameters.map((p) => html`<div key=${p.name}><dt>${p.name} <span class="soft">${p.type}, ${p.per_model ? "per model" : "per tensor"}${p.required ? ", required" : p.default !== null ? `, default ${p.default}` : ""}</span></dt><dd>${p.doc}</dd></div>`)}</dl>`}
    ${m.paper && html`<p class="soft small">${m.paper}${m.url ? html`<br />${m.url}` : ""}</p>`}
  </section>`;
}
