// Programs of the workspace, started and ended.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { promisify } from "node:util";
import { eventually } from "./eventually.js";

export const ROOT = path.resolve(import.meta.dirname, "../../..");
const BINARIES = process.env.BROWSER_BINARIES ?? path.join(ROOT, "target/debug");
const LINES_KEPT = 200;

const run = promisify(execFile);
const running = new Set();
// Whatever ends the tests ends what they started.
process.on("exit", () => running.forEach((it) => it.child.kill("SIGKILL")));

export const binary = (name) => path.join(BINARIES, name);

/** Runs a program to its end. A failure's message has what it said. */
export async function command(file, args, env = {}) {
  const { stdout } = await run(file, args, { cwd: ROOT, env: { ...process.env, ...env }, maxBuffer: 64 << 20 });
  return stdout;
}

export class Process {
  lines = [];

  constructor(name, args, env = {}) {
    this.name = `${name} ${args.join(" ")}`;
    this.child = spawn(binary(name), args, { cwd: ROOT, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    running.add(this);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        this.lines.push(...text.split("\n"));
        this.lines.splice(0, this.lines.length - LINES_KEPT);
      });
    }
    this.child.on("exit", () => running.delete(this));
  }

  get ended() {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Until it has said so. */
  said(text) {
    return eventually(`${this.name} says ${text}`, () => {
      if (this.ended) throw new Error(`it ended with ${this.child.exitCode}:\n${this.lines.join("\n")}`);
      return this.lines.find((line) => line.includes(text));
    });
  }

  async stop(signal = "SIGTERM") {
    if (this.ended) return;
    const exit = once(this.child, "exit");
    this.child.kill(signal);
    await exit;
  }
}
