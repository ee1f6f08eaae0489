// A text area with line numbers, marks where something is wrong, and completion. The text area is the browser's own, so that everything
// that works in one works here: undo, spelling of screen readers, search.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { post } from "./api.js";

const soon = 80; // milliseconds after a key
const wordLike = /[\w./@+-]$/;

export function Editor({ text, path, problems, change, save, jump }) {
  const area = useRef(), back = useRef(), gutter = useRef(), ruler = useRef(), ask = useRef({});
  const [menu, setMenu] = useState(null); // { items, word, at, line, column }
  const [chosen, choose] = useState(-1);
  const [box, setBox] = useState({ ch: 8, line: 20 });
  const lines = text.split("\n");
  const bad = new Map(); // worst problem of each line
  for (const p of problems) if (p.line && (!bad.has(p.line) || p.severity === "error")) bad.set(p.line, p);

  useLayoutEffect(() => {
    const r = ruler.current.getBoundingClientRect();
    setBox({ ch: r.width / 100, line: r.height });
  }, []);
  useEffect(() => { // put the cursor where a problem is
    if (!jump || !jump.line) return;
    const at = lines.slice(0, jump.line - 1).reduce((n, l) => n + l.length + 1, 0) + [...lines[jump.line - 1] || ""].slice(0, Math.max(0, jump.col - 1)).join("").length;
    area.current.focus();
    area.current.setSelectionRange(at, at);
    area.current.scrollTop = Math.max(0, (jump.line - 4) * box.line);
    scrolled();
  }, [jump]);
  useEffect(() => () => { clearTimeout(ask.current.timer); ask.current.stop?.abort(); }, []);

  const scrolled = () => {
    const a = area.current;
    back.current.style.transform = `translate(${-a.scrollLeft}px, ${-a.scrollTop}px)`;
    gutter.current.style.transform = `translateY(${-a.scrollTop}px)`;
    setMenu(null);
  };
  const shut = () => {
    clearTimeout(ask.current.timer);
    ask.current.stop?.abort();
    setMenu(null);
  };
  // complete asks for what could stand at the cursor. Unasked, it does not take the keys away from who goes on writing.
  const complete = (asked, wait) => {
    shut();
    ask.current.timer = setTimeout(async () => {
      const a = area.current;
      if (!a || a.selectionStart !== a.selectionEnd) return;
      const before = a.value.slice(0, a.selectionStart), after = a.value.slice(a.selectionStart);
      const stop = (ask.current.stop = new AbortController());
      let found;
      try {
        found = await post("api/complete", { path, before, after }, stop.signal);
      } catch {
        return; // the check says what is wrong
      }
      if (a.selectionStart !== before.length || a.value !== before + after) return;
      const only = found.items.length === 1 && found.items[0].insert.trimEnd() === found.word;
      if (!found.items.length || only) return;
      const row = before.split("\n");
      setMenu({ ...found, at: before.length, line: row.length, column: row[row.length - 1].length - found.word.length });
      choose(asked || found.word ? 0 : -1);
    }, wait);
  };
  const insert = (from, to, what) => {
    const a = area.current;
    a.focus();
    a.setSelectionRange(from, to);
    // The old command is the one that leaves undo in order.
    if (!document.execCommand("insertText", false, what)) {
      a.setRangeText(what, from, to, "end");
      change(a.value);
    }
  };
  const take = (i) => {
    const c = menu.items[i];
    shut();
    ask.current.taken = true;
    insert(menu.at - menu.word.length, menu.at, c.insert);
    if (c.more) complete(false, 0);
  };
  const written = (e) => {
    change(e.target.value);
    if (ask.current.taken) {
      ask.current.taken = false;
      return;
    }
    const before = e.target.value.slice(0, e.target.selectionStart);
    if (e.inputType === "insertText" && (wordLike.test(before) || /[:-] $/.test(before)) || e.inputType === "deleteContentBackward" && menu) complete(false, soon);
    else shut();
  };
  const pressed = (e) => {
    const a = area.current;
    if ((e.ctrlKey || e.metaKey) && e.key === "s") {
      e.preventDefault();
      save();
    } else if (e.ctrlKey && (e.key === " " || e.code === "Space")) {
      e.preventDefault();
      complete(true, 0);
    } else if (menu && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
      e.preventDefault();
      const n = menu.items.length, step = e.key === "ArrowDown" ? 1 : -1;
      choose(chosen < 0 ? (step > 0 ? 0 : n - 1) : (chosen + step + n) % n);
    } else if (menu && chosen >= 0 && (e.key === "Enter" || e.key === "Tab")) {
      e.preventDefault();
      take(chosen);
    } else if (menu && e.key === "Escape") {
      e.preventDefault();
      shut();
    } else if (e.key === "Enter" && !e.shiftKey && !e.ctrlKey && a.selectionStart === a.selectionEnd) {
      e.preventDefault();
      const line = a.value.slice(0, a.selectionStart).split("\n").pop();
      const indent = /^ */.exec(line)[0].length + (/:\s*$/.test(line) ? 2 : 0) + (/^ *- +\S/.test(line) ? 2 : 0);
      shut();
      ask.current.taken = true;
      insert(a.selectionStart, a.selectionStart, "\n" + " ".repeat(indent));
    } else if (["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"].includes(e.key)) {
      shut();
    }
  };
  const id = (i) => `completion-${i}`;
  const doc = menu && menu.items[Math.max(chosen, 0)];
  return html`
    <div class="editor">
      <div class="gutter" aria-hidden="true"><div ref=${gutter}>${lines.map((_, i) => html`<div key=${i} class=${bad.get(i + 1)?.severity || ""}>${i + 1}</div>`)}</div></div>
      <div class="paper">
        <div class="behind" aria-hidden="true"><span class="ruler" ref=${ruler}>${"x".repeat(100)}</span><pre class="back" ref=${back}>${lines.map((l, i) => html`<${Line} key=${i} text=${l} problem=${bad.get(i + 1)} />`)}</pre></div>
        <textarea ref=${area} value=${text} wrap="off" spellcheck=${false} autocapitalize="off" autocomplete="off" autocorrect="off" rows="18"
          aria-label="Recipe" aria-describedby="problems editor-keys" aria-invalid=${problems.some((p) => p.severity === "error")}
          aria-autocomplete="list" aria-haspopup="listbox" aria-controls=${menu ? "completions" : undefined} aria-activedescendant=${menu && chosen >= 0 ? id(chosen) : undefined}
          onInput=${written} onKeyDown=${pressed} onScroll=${scrolled} onBlur=${shut} onClick=${shut}></textarea>
        ${menu && html`<${Menu} menu=${menu} chosen=${chosen} id=${id} take=${take} doc=${doc} box=${box} scroll=${{ x: area.current.scrollLeft, y: area.current.scrollTop }} />`}
      </div>
    </div>
    <p id="editor-keys" class="soft small">Ctrl+Space completes, Enter takes, Esc leaves. Ctrl+S saves.</p>
    <p class="unseen" role="status">${menu ? `${menu.items.length} completions${chosen >= 0 ? `: ${menu.items[chosen].label}` : ""}` : ""}</p>`;
}

// Line is what stands behind a line of the text: invisible but for the mark.
function Line({ text, problem }) {
  if (!problem) return html`<div>${text || "\u200b"}</div>`;
  const letters = [...text];
  const from = Math.min(Math.max(problem.col - 1, 0), Math.max(letters.length - 1, 0));
  return html`<div>${letters.slice(0, from).join("")}<span class=${"mark " + problem.severity}>${letters.slice(from).join("") || " "}</span></div>`;
}

function Menu({ menu, chosen, id, take, doc, box, scroll }) {
  const list = useRef();
  useEffect(() => { list.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" }); }, [chosen]);
  return html`
    <div class="menu" style=${{ left: `min(${Math.max(0, menu.column * box.ch - scroll.x)}px, max(0px, 100% - 30rem))`, top: `${menu.line * box.line - scroll.y + 10}px` }}>
      <ul id="completions" role="listbox" aria-label="Completions" ref=${list}>
        ${menu.items.map((c, i) => html`<li key=${c.label} id=${id(i)} role="option" aria-selected=${i === chosen} onMouseDown=${(e) => { e.preventDefault(); take(i); }}>
          <span>${c.label}</span>${c.detail && html` <span class="soft">${c.detail}</span>`}</li>`)}
      </ul>
      ${doc && doc.doc && html`<p>${doc.doc}</p>`}
    </div>`;
}
