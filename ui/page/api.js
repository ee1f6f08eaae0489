// What the page asks of its server, and how figures are written.
import { useEffect, useState } from "./html.js";

const query = (params) => new URLSearchParams(params).toString();

async function ask(method, path, params, body, signal) {
  const options = { method, signal };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(params ? `${path}?${query(params)}` : path, options);
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Error("the program does not answer; is 'mergekit ui' still running?");
  }
  const text = await answer.text();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error(text.trim() || `status ${answer.status}`);
  }
  if (!answer.ok) {
    const error = new Error(value.error);
    error.status = answer.status;
    throw error;
  }
  return value;
}

export const get = (path, params, signal) => ask("GET", path, params, undefined, signal);
export const post = (path, body, signal) => ask("POST", path, null, body, signal);
export const put = (path, body) => ask("PUT", path, null, body);
export const remove = (path) => ask("DELETE", path);

// work listens to a long work that ends with the page; it returns a function that stops it.
export function work(path, params, { progress, done, failed }) {
  const source = new EventSource(`${path}?${query(params)}`);
  const end = (f) => (e) => {
    source.close();
    f(JSON.parse(e.data));
  };
  source.addEventListener("progress", (e) => progress(JSON.parse(e.data)));
  source.addEventListener("done", end(done));
  source.addEventListener("failed", end((v) => failed(new Error(v.error))));
  source.onerror = () => {
    source.close(); // it would be begun anew
    failed(new Error("the connection was lost"));
  };
  return () => source.close();
}

const hiddenFor = 30_000; // milliseconds after which a page that nobody sees listens no more

// watch listens to the run while the page can be seen. A browser has few connections to one server, and all tabs share them.
export function watch(seen, lost) {
  let source = null, timer = 0;
  const open = () => {
    clearTimeout(timer);
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource("api/run");
    source.addEventListener("run", (e) => seen(JSON.parse(e.data)));
    source.onerror = lost; // it tries again by itself, unless it was refused
  };
  const turned = () => {
    if (!document.hidden) open();
    else timer = setTimeout(() => source.close(), hiddenFor);
  };
  open();
  document.addEventListener("visibilitychange", turned);
  return () => {
    document.removeEventListener("visibilitychange", turned);
    clearTimeout(timer);
    source.close();
  };
}

// useGet is what a path answers: { value, error }, or {} while it is awaited.
export function useGet(path, params, again) {
  const [state, setState] = useState({});
  const key = params === null ? null : `${path}?${query(params)}`;
  useEffect(() => {
    if (key === null) return;
    const stop = new AbortController();
    setState({});
    get(path, params, stop.signal).then(
      (value) => setState({ value }),
      (error) => error.name === "AbortError" || setState({ error }),
    );
    return () => stop.abort();
  }, [key, again]);
  return state;
}

// bytes writes a size in decimal units, as the program does.
export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let u = 0;
  while (n >= 999.5 && u < units.length - 1) {
    n /= 1000;
    u++;
  }
  return `${u ? Number(n.toPrecision(3)) : Math.round(n)} ${units[u]}`;
}

// count writes a number of parameters.
export function count(n) {
  if (n >= 1e9) return `${(n / 1e9).toFixed(2)}B`;
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)}M`;
  return grouped(n);
}

// grouped writes a whole number with thin spaces.
export const grouped = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, "\u202f");

// figure writes a number with four digits that count.
export function figure(v) {
  if (v === null || v === undefined) return "not finite";
  if (v === 0) return "0";
  const a = Math.abs(v);
  return a >= 1e-3 && a < 1e5 ? String(Number(v.toPrecision(4))) : v.toExponential(3);
}

// duration writes seconds.
export function duration(s) {
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const m = Math.round(s / 60);
  return m < 90 ? `${Math.floor(s / 60)} min ${Math.round(s % 60)} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
}

export const shape = (dims) => (dims && dims.length ? dims.join("×") : "scalar");
export const elements = (dims) => (dims || []).reduce((a, b) => a * b, 1);
export const parent = (path) => path.split("/").slice(0, -1).join("/");
export const base = (path) => path.split("/").pop();
export const join = (dir, name) => (dir && dir !== "." ? `${dir}/${name}` : name);
export const link = (view, params) => `#/${view}${params ? "?" + query(params) : ""}`;
