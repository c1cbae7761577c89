// Which property names may be shortened: those that the frame's own classes and interfaces declare,
// or its markdown parser's, and that nobody outside knows. Whatever src/*.ts declares leaves the
// program (in frames, between windows, into storage); the names of the platform and of Preact are
// theirs. So a new name is safe by where it is declared, and there is no list to keep.
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const OURS = ["src/client", "src/frame"];
const PARSER = ["node_modules/streaming-markdown"];
const KNOWN = ["src", "node_modules/preact/src", typescriptLib()];

/** Where tsc keeps its declarations of JavaScript and the DOM: in a package for each platform. */
function typescriptLib() {
  const compiler = `@typescript/typescript-${process.platform}-${process.arch}/package.json`;
  return join(dirname(fileURLToPath(import.meta.resolve(compiler))), "lib");
}

async function* sources(folders) {
  for (const folder of folders) {
    const files = (await readdir(folder)).filter((name) => /\.tsx?$/.test(name));
    if (files.length === 0) throw new Error(`no declarations in ${folder}`);
    for (const file of files) yield await readFile(join(folder, file), "utf8");
  }
}

/** Members of top-level classes, interfaces and object types, indented by so many spaces. */
async function members(folders, indent) {
  const block = /^(?:export )?(?:class|interface|type) .*\{\n((?:.*\n)*?)\}/gm;
  const member = `^ {${indent}}(?:readonly |override |async |get )*(\\w+)\\??[:(]`;
  const names = new Set();
  for await (const text of sources(folders)) {
    for (const [, body] of text.matchAll(block)) {
      for (const [, name] of body.matchAll(new RegExp(member, "gm"))) names.add(name);
    }
  }
  return names;
}

/** A pattern of the names that may be shortened. */
export async function shortened() {
  const known = new Set();
  for await (const text of sources(KNOWN)) {
    for (const [, name] of text.matchAll(/(\w+)\??[:(<]/g)) known.add(name);
  }
  const own = [...(await members(OURS, 2)), ...(await members(PARSER, 4))];
  return new RegExp(`^(?:${own.filter((name) => !known.has(name)).join("|")})$`);
}
