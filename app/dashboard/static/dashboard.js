// Shows the newest jobs. Every text goes through textContent: names are other people's input.

import { chart, follow } from "./curves.js";

const REFRESH_MS = 2000;
const QUALITY = ["accuracy", "f1", "auc", "r2", "spearman", "pearson", "rmse", "mae"];
const byId = (id) => document.getElementById(id);

async function get(path) {
  const key = sessionStorage.getItem("pressroom-key");
  const response = await fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (response.status === 401) {
    byId("sign-in").hidden = false;
    throw new Error("an API key is needed");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `HTTP ${response.status}`);
  }
  byId("sign-in").hidden = true;
  return response.json();
}

function bytes(count) {
  if (count === undefined || count === null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? count : count.toFixed(2)} ${units[unit]}`;
}

function quality(metrics) {
  const { original = {}, compressed = {} } = metrics ?? {};
  const name = QUALITY.find((metric) => typeof compressed[metric] === "number");
  // An original that cannot answer the labels of its artifact's new last layer has no quality.
  const before = typeof original[name] === "number" ? original[name].toFixed(4) : "–";
  if (name) return `${name} ${before} → ${compressed[name].toFixed(4)}`;
  const cosine = compressed.fidelity?.cosine;
  return typeof cosine === "number" ? `cosine ${cosine.toFixed(4)}` : "–";
}

function recipe(spec) {
  return (spec.recipe ?? []).map((step) => `${step.technique}.${step.method}`).join(" → ");
}

function cell(content, className = "") {
  const td = document.createElement("td");
  td.className = className;
  td.append(content);
  return td;
}

function progress(job) {
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = job.status === "succeeded" ? 1 : (job.progress?.fraction ?? 0);
  bar.title = job.progress?.message ?? "";
  const curve = chart(job);
  const both = document.createDocumentFragment();
  both.append(bar, ...(curve ? [curve] : []));
  return both;
}

function identifier(job) {
  const link = document.createElement("a");
  link.textContent = job.id;
  link.className = "id";
  // A link carries no key: where keys are needed, the report is fetched with the command line.
  link.href = job.status === "succeeded" ? `/v1/jobs/${job.id}/report` : `/v1/jobs/${job.id}`;
  return link;
}

function row(job) {
  const tr = document.createElement("tr");
  const status = cell(job.status, job.status);
  status.title = job.error?.detail ?? job.outcome ?? "";
  tr.append(
    cell(identifier(job)),
    cell(recipe(job.spec)),
    status,
    cell(progress(job)),
    cell(bytes(job.metrics?.original?.size_bytes), "number"),
    cell(bytes(job.metrics?.compressed?.size_bytes), "number"),
    cell(quality(job.metrics)),
    cell(new Date(job.created_at).toLocaleString()),
  );
  return tr;
}

async function refresh() {
  if (document.hidden) return;
  try {
    const [jobs, workers] = await Promise.all([get("/v1/jobs?limit=50"), get("/v1/workers")]);
    await Promise.all(jobs.data.map((job) => follow(job, get)));
    byId("jobs").replaceChildren(...jobs.data.map(row));
    byId("empty").hidden = jobs.data.length > 0;
    byId("workers").textContent = `${workers.data.length} workers known`;
    byId("notice").textContent = "";
  } catch (error) {
    byId("notice").textContent = error.message;
  }
}

byId("use-key").addEventListener("click", () => {
  sessionStorage.setItem("pressroom-key", byId("key").value.trim());
  refresh();
});
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, REFRESH_MS);
refresh();
