// Bundles the *.test.ts files of a folder and runs them with node's own test runner.
import { spawnSync } from "node:child_process";
import { mkdir, readdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const folder = process.argv[2] ?? "tests/unit";
const out = `node_modules/.cache/hubbub/${folder}`;
const tests = (await readdir(folder)).filter((name) =>
  name.endsWith(process.argv[3] ?? ".test.ts"),
);
if (tests.length === 0) throw new Error(`no tests in ${folder}`);

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await build({
  entryPoints: tests.map((name) => `${folder}/${name}`),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  packages: "external",
  sourcemap: "inline",
  logLevel: "warning",
});
const files = tests.map((name) => `${out}/${name.replace(/\.ts$/, ".mjs")}`);
const run = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...files], {
  stdio: "inherit",
});
process.exitCode = run.status ?? 1;
