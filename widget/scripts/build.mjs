// Bundles the widget into dist/: widget.js (the loader), frame.js, frame.css, frame.html, demo files.
import { copyFile, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const shared = {
  bundle: true,
  minify: true,
  target: ["chrome105", "firefox115", "safari16.4"],
  legalComments: "none",
  charset: "utf8",
  logLevel: "warning",
};

await rm("dist", { recursive: true, force: true });
await mkdir("dist/demo", { recursive: true });
await Promise.all([
  build({ ...shared, entryPoints: ["src/loader.ts"], outfile: "dist/widget.js", format: "iife" }),
  build({
    ...shared,
    entryPoints: ["src/frame/main.tsx"],
    outfile: "dist/frame.js",
    format: "iife",
    jsx: "automatic",
    jsxImportSource: "preact",
  }),
  build({ ...shared, entryPoints: ["src/frame/frame.css"], outfile: "dist/frame.css" }),
  copyFile("src/frame/frame.html", "dist/frame.html"),
  copyFile("demo/index.html", "dist/demo/index.html"),
  copyFile("demo/demo.css", "dist/demo/demo.css"),
]);
