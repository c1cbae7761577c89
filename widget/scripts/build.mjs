// Bundles the widget into dist/: widget.js (the loader), frame.js, frame.css, frame.html, setup.js, demo
// files, and beside each what is sent to browsers that unpack it: .br and .gz.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { brotliCompress, gzip } from "node:zlib";
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
  build({ ...shared, entryPoints: ["src/setup.ts"], outfile: "dist/setup.js", format: "iife" }),
  build({ ...shared, entryPoints: ["src/frame/frame.css"], outfile: "dist/frame.css" }),
  copyFile("demo/index.html", "dist/demo/index.html"),
  copyFile("demo/demo.css", "dist/demo/demo.css"),
]);

// Names of fields that never leave the bundle: on no wire, in no storage, of no element.
const OWN =
  "askAgain attempt botName byeMs cancelAll claim embedded environment final following follows fresh " +
  "goOn hasUnsent isOnline joinRef joins looks networkChanged notice onBottom onFrame onNew onRefused onSent " +
  "onState onTicket openSocket openings othersTyping outbox paging pagingFailed probe replies resends " +
  "retryAfterMs retryNow rewind settle shared silentMs snapshot stopTyping turnTo";

// esbuild bundles, terser squeezes: 4 % less of a budget that has to hold every feature to come.
for (const file of ["dist/widget.js", "dist/frame.js"]) {
  const squeezed = await minify(await readFile(file, "utf8"), {
    ecma: 2022,
    compress: {
      passes: 4,
      unsafe: true,
      unsafe_arrows: true,
      unsafe_methods: true,
      pure_getters: true,
      keep_fargs: false,
    },
    mangle: { properties: { regex: new RegExp(`^(${OWN.replaceAll(" ", "|")})$`) } },
    format: { comments: false },
  });
  await writeFile(file, squeezed.code ?? "");
}

// The frame's files carry their content in their name, so that a browser need never ask for them again.
let page = await readFile("src/frame/frame.html", "utf8");
for (const name of ["frame.js", "frame.css"]) {
  const hash = createHash("sha256")
    .update(await readFile(`dist/${name}`))
    .digest("hex");
  page = page.replace(name, name.replace(".", `-${hash.slice(0, 8)}.`));
}
await writeFile("dist/frame.html", page);

for (const name of ["widget.js", "frame.js", "frame.css", "frame.html", "demo/demo.css"]) {
  const file = await readFile(`dist/${name}`);
  await writeFile(`dist/${name}.br`, await promisify(brotliCompress)(file));
  await writeFile(`dist/${name}.gz`, await promisify(gzip)(file, { level: 9 }));
}
