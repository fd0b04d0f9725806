// Talking to the server: one request for a picture at a time, and always for the newest map.

const token = location.hash.slice(1);            // stays in the browser: # is never sent

export class Refused extends Error {
  constructor(status, { what, fix }) {
    super(fix ? `${what}: ${fix}` : what);
    this.status = status;
  }
}

export async function ask(path, options = {}) {
  const headers = { "X-Minigan-Token": token, ...options.headers };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(60000) });
  } catch (error) {
    throw new Refused(0, { what: "the server does not answer", fix: `start it again with --port ${location.port} and open its address in this tab; the map is kept` });
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({ what: `status ${answer.status}` }));
    throw new Refused(answer.status, said);
  }
  return answer;
}

export const post = (path, body, kind = "application/octet-stream") =>
  ask(path, { method: "POST", body, headers: { "Content-Type": kind } });

const PATIENCE = 250;                            // milliseconds; slower painters wait for the stroke's end

export class Pictures {
  // request() -> {path, body} of what is wanted now; show(blob); busy(flag); failed(error)
  constructor({ request, show, busy, failed }) {
    Object.assign(this, { request, show, busy, failed });
    this.times = [];
    this.running = false;
    this.since = null;                           // when the change was made that is not yet shown
  }

  get median() {
    const sorted = [...this.times].sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  get live() { return this.median === null || this.median <= PATIENCE; }

  want(inTheMiddle = false) {
    if (inTheMiddle && !this.live) return;
    this.since = performance.now();
    if (!this.running) this.run();
  }

  async run() {
    this.running = true;
    this.busy(true);
    await new Promise(requestAnimationFrame);    // let events of the same frame join
    while (this.since !== null) {
      const since = this.since;
      this.since = null;
      try {
        const { path, body } = this.request();
        await this.show(await (await post(path, body)).blob());
        this.times.push(performance.now() - since);
        if (this.times.length > 50) this.times.shift();
        this.failed(null);
      } catch (error) {
        if (error.status === 429 && this.since === null) {
          await new Promise((later) => setTimeout(later, 100));
          this.since ??= since;
        } else if (error.status !== 429) this.failed(error);
      }
    }
    this.running = false;
    this.busy(false);
  }
}
