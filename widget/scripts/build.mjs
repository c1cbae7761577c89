// Bundles the widget into dist/: widget.js (the loader), frame.js, frame.css, frame.html, demo files.
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { build } from "esbuild";
import { minify } from "terser";

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
  }),
  build({ ...shared, entryPoints: ["src/frame/frame.css"], outfile: "dist/frame.css" }),
  copyFile("src/frame/frame.html", "dist/frame.html"),
  copyFile("demo/index.html", "dist/demo/index.html"),
  copyFile("demo/demo.css", "dist/demo/demo.css"),
]);

// esbuild bundles, terser squeezes: 2 % less of a budget that has to hold every feature to come.
for (const file of ["dist/widget.js", "dist/frame.js"]) {
  const squeezed = await minify(await readFile(file, "utf8"), {
    ecma: 2020,
    compress: { passes: 3, unsafe_arrows: true, pure_getters: true, keep_fargs: false },
    format: { comments: false },
  });
  await writeFile(file, squeezed.code ?? "");
}
