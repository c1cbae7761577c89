// The programs under test: started with folders and ports of their own, ended by their id. Should
// the test process die, the kernel ends them.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, closeSync, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The folder of the programs; run.sh names it. */
const BIN = process.env.HUBBUB_BIN;
if (!BIN) throw new Error("HUBBUB_BIN is not set: run tests/browser/run.sh BIN_DIR");

/** A first start makes a database cluster, on a busy machine. */
const START_MS = 60_000;
/** The server's own limit is 25 s. */
const STOP_MS = 35_000;

/** A port that is free now; a server that is started again needs to keep its own. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const SETPRIV = "/usr/bin/setpriv";

/** A child whose standard output announces that it is ready, in a line that matches `ready`. */
class Program {
  #child;
  #log;
  #exit;

  static async start(name, args, ready, log) {
    const program = new Program();
    program.#log = log;
    await program.#launch(name, args, ready);
    return program;
  }

  get pid() {
    return this.#child.pid;
  }

  async #launch(name, args, ready) {
    const command = [join(BIN, name), ...args];
    // A test run that is killed leaves nothing behind.
    if (existsSync(SETPRIV)) command.unshift(SETPRIV, "--pdeathsig", "TERM", "--");
    const errors = openSync(this.#log, "a");
    this.#child = spawn(command[0], command.slice(1), { stdio: ["ignore", "pipe", errors] });
    closeSync(errors);
    this.#exit = once(this.#child, "exit");
    this.line = await this.#announced(name, ready);
  }

  #announced(name, ready) {
    return new Promise((resolve, reject) => {
      let out = "";
      const fail = (what) => {
        clearTimeout(timer);
        this.#child.kill("SIGKILL");
        reject(new Error(`${name} ${what}\n${readFileSync(this.#log, "utf8").slice(-2000)}`));
      };
      const timer = setTimeout(() => fail(`was not ready after ${START_MS} ms`), START_MS);
      this.#child.once("error", (error) => fail(`could not be started: ${error.message}`));
      this.#child.once("exit", (code) => fail(`ended with ${code} before it was ready`));
      this.#child.stdout.on("data", (piece) => {
        out += piece;
        const match = ready.exec(out);
        if (!match) return;
        clearTimeout(timer);
        this.#child.removeAllListeners("exit");
        this.#child.removeAllListeners("error");
        this.#exit = once(this.#child, "exit");
        resolve(match);
      });
    });
  }

  /** Ends it as an operator would; throws when it does not end by itself. */
  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_MS);
    this.#child.kill("SIGTERM");
    const [, signal] = await this.#exit;
    clearTimeout(timer);
    if (signal === "SIGKILL") throw new Error(`${this.#child.spawnfile} ignored SIGTERM`);
  }

  /** Ends it in the middle of whatever it does. */
  async kill() {
    this.#child.kill("SIGKILL");
    await this.#exit;
  }
}

/** A Hubbub with a data folder and a port that it keeps when it is started again. */
export class Hubbub {
  #folder;
  #program;

  /** `settings` is TOML; without any, everything is as `make run` has it. */
  static async start(settings = "") {
    const hubbub = new Hubbub();
    hubbub.#folder = await mkdtemp(join(tmpdir(), "hubbub-browser-"));
    // PostgreSQL never runs as root, and its own user must get into the folder.
    chmodSync(hubbub.#folder, 0o755);
    writeFileSync(join(hubbub.#folder, "hubbub.toml"), settings);
    hubbub.port = await freePort();
    hubbub.url = `http://127.0.0.1:${hubbub.port}`;
    await hubbub.launch();
    return hubbub;
  }

  async launch() {
    const args = ["serve", "--demo", "--config", join(this.#folder, "hubbub.toml")];
    args.push("--data-dir", join(this.#folder, "data"), "--listen", `127.0.0.1:${this.port}`);
    this.#program = await Program.start("hubbub", args, /Hubbub listens on (\S+)/, this.#log);
    this.demo = JSON.parse(readFileSync(join(this.#folder, "data", "demo.json"), "utf8"));
  }

  get #log() {
    return join(this.#folder, "hubbub.log");
  }

  /** What the server logged. */
  log() {
    return readFileSync(this.#log, "utf8");
  }

  kill() {
    return this.#program.kill();
  }

  async stop() {
    await this.#program.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Calls the HTTP API with the demo's key. */
  async api(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        authorization: `Bearer ${this.demo.api_key}`,
        ...(body && { "content-type": "application/json" }),
      },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(15_000),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }
}

/** The simulated upstream: answers slowly, and wrong when told to. */
export class SimLlm {
  #program;
  #folder;

  static async start(options) {
    const sim = new SimLlm();
    sim.#folder = await mkdtemp(join(tmpdir(), "hubbub-sim-"));
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    const log = join(sim.#folder, "simllm.log");
    sim.#program = await Program.start("simllm", args, /listening on (\S+)/, log);
    sim.url = sim.#program.line[1];
    return sim;
  }

  /** Changes how requests from now on are answered. */
  async control(patch) {
    const response = await fetch(`${this.url}/control`, {
      method: "PUT",
      body: JSON.stringify(patch),
      signal: AbortSignal.timeout(5_000),
    });
    if (!response.ok) throw new Error(`control: ${response.status} ${await response.text()}`);
  }

  async counters() {
    const response = await fetch(`${this.url}/control`, { signal: AbortSignal.timeout(5_000) });
    const answer = await response.json();
    return answer.counters ?? answer;
  }

  async stop() {
    await this.#program.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** What simllm answers to a question: a pure function, so every letter can be checked. */
export function answerTo(question, tokens) {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(question)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  let text = `a${hash.toString(16).padStart(8, "0")}`;
  for (let index = 1; index < tokens; index += 1) {
    text += index % 16 === 0 ? ` t${index}é😀` : ` t${index}`;
  }
  return text;
}

/** A server whose default upstream is `sim`, with `parrot` beside it. */
export function withUpstreams(upstreams) {
  const sections = Object.entries(upstreams).map(
    ([name, url]) => `[[upstreams]]\nname = "${name}"\nbase_url = "${url}/v1"\nmodel = "test"\n`,
  );
  const first = Object.keys(upstreams)[0];
  return `[model]\nenabled = false\n\n[llm]\ndefault_route = ["${first}"]\n\n${sections.join("\n")}`;
}
