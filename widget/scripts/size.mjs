// Fails when what a visitor downloads outgrows its budget (KiB after gzip -9).
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";

const BUDGETS = [
  { name: "loader", files: ["widget.js"], kib: 3 },
  { name: "frame", files: ["frame.js", "frame.css", "frame.html"], kib: 24 },
];

let tooBig = false;
for (const { name, files, kib } of BUDGETS) {
  let total = 0;
  for (const file of files) {
    const bytes = gzipSync(await readFile(`dist/${file}`), { level: 9 }).length;
    total += bytes;
    console.log(`  ${file.padEnd(12)} ${(bytes / 1024).toFixed(2)} KiB`);
  }
  const over = total > kib * 1024;
  tooBig ||= over;
  console.log(`${name}: ${(total / 1024).toFixed(2)} of ${kib} KiB${over ? "  TOO BIG" : ""}`);
}
process.exitCode = tooBig ? 1 : 0;
