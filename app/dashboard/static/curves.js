// The loss of a training as it falls, from a job's metric events.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 128;
const HEIGHT = 28;
const TRAINING = new Set(["finetune", "distill"]);
const stories = new Map();

function add(curves, { name, value, step }) {
  const points = curves.get(name) ?? [];
  const last = points.at(-1);
  // Updates count from the start again in the next training of a recipe.
  curves.set(name, last && step <= last[0] ? [[step, value]] : [...points, [step, value]]);
}

// Takes in the events that are new since the last time; of a finished job only once.
export async function follow(job, get) {
  if (!(job.spec.recipe ?? []).some((step) => TRAINING.has(step.technique))) return;
  if (!stories.has(job.id)) stories.set(job.id, { after: null, busy: false, complete: false, curves: new Map() });
  const story = stories.get(job.id);
  if (story.busy || story.complete) return;
  story.busy = true;
  try {
    let page;
    do {
      page = await get(`/v1/jobs/${job.id}/events?limit=100${story.after ? `&after=${story.after}` : ""}`);
      for (const event of page.data) {
        story.after = event.id;
        if (event.type === "job.metric") add(story.curves, event.data);
      }
    } while (page.has_more);
    story.complete = job.done;
  } finally {
    story.busy = false;
  }
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function place(value, low, high, length) {
  return high > low ? ((value - low) / (high - low)) * length : length / 2;
}

// A small line of the job's training loss (or of whatever it reports first); null while there is nothing to draw.
export function chart(job) {
  const curves = stories.get(job.id)?.curves;
  const name = curves?.has("train/loss") ? "train/loss" : curves?.keys().next().value;
  if (name === undefined) return null;
  const points = curves.get(name);
  const steps = points.map(([step]) => step);
  const values = points.map(([, value]) => value);
  const [first, last] = [steps[0], steps.at(-1)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const line = points.map(([step, value]) => {
    const x = place(step, first, last, WIDTH);
    return `${x.toFixed(1)},${(HEIGHT - place(value, low, high, HEIGHT)).toFixed(1)}`;
  });
  const [x, y] = line.at(-1).split(",");
  const words = `${name} ${values[0].toPrecision(3)} → ${values.at(-1).toPrecision(3)} at update ${last}`;
  const drawing = element("svg", {
    viewBox: `-3 -3 ${WIDTH + 6} ${HEIGHT + 6}`, role: "img", "aria-label": words, class: "curve",
  });
  const title = element("title", {});
  title.textContent = words;
  drawing.append(title, element("polyline", { points: line.join(" ") }), element("circle", { cx: x, cy: y, r: 2.5 }));
  return drawing;
}
