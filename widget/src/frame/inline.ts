// Markdown within a paragraph, as DOM nodes: emphasis, code, links. Text only ever becomes text
// nodes, and a link keeps its address only if it is http, https or mailto. Images become links:
// fetching one would tell its host who is reading.

/** Deeper nesting than this is drawn as it was written; no honest answer needs it. */
export const MOST_DEPTH = 16;

const SCHEME = /^(https?|mailto):$/;

/**
 * What is more than plain text, each with groups of its own; the order is that of `draw`. Whatever
 * encloses something ends within 999 signs, so that no text takes long to read. § is where an answer
 * that is still being written may end instead.
 */
const SIGNS = [
  /(?: {1,9}|\\)?(\n) */,
  /\\([!-/:-@[-`{-~])/,
  /(?<!`)(?<ticks>`+)(?!`)(.{1,999}?)(?:(?<!`)\k<ticks>(?!`)§)/,
  // [text](address "title"), an image too. Brackets and parentheses may stand inside in pairs.
  /!?\[((?:\\.|[^[\]\\]|\[[^[\]]*\])*)\]\( ?(<[^<>\n]*>|(?:[^\s()]|\([^\s()]*\))*)(?: +(?:"[^"]*"|'[^']*'))? ?(?:\)§)/,
  /<((?:https?|mailto):[^\s<>]+)>/,
  /\b(https?:\/\/(?:\([^\s<>()]*\)|[^\s<>()])+)(?<![.,:;!?"'*_~\]])/,
  /\*\*(?!\s|\*{5})(.{1,999}?)(?:(?<!\s)\*\*(?!\*)§)/,
  /(?<!\w)__(?!\s)(.{1,999}?)(?:(?<!\s)__(?!\w)§)/,
  /~~(?!\s)(.{1,999}?)(?:(?<!\s)~~§)/,
  /\*(?![\s*])((?:\*\*|[^*]){1,999}?)(?:(?<!\s)\*(?!\*)§)/,
  /(?<!\w)_(?![\s_])((?:__|[^_]|_(?=\w)){1,999}?)(?:(?<!\s)_(?!\w)§)/,
];
const grammar = (end: string) =>
  new RegExp(SIGNS.map(({ source }) => source.replace("§", end)).join("|"), "gs");
const WHOLE = grammar("");
const GROWING = grammar("|$");

export function add(parent: Element, name: string): HTMLElement {
  return parent.appendChild(document.createElement(name));
}

/** The address if it may be followed, else `null`. */
export function safeUrl(address: string): string | null {
  try {
    // Without a base, what is relative does not parse: an answer cannot point into this origin.
    const url = new URL(address);
    return SCHEME.test(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** Draws `text` into `parent`. `growing`: more of it will come. */
export function inline(parent: Element, text: string, growing: boolean, depth = 0): void {
  let at = 0;
  if (depth < MOST_DEPTH) {
    for (const match of text.matchAll(growing ? GROWING : WHOLE)) {
      parent.append(text.slice(at, match.index));
      at = match.index + match[0].length;
      draw(parent, match, growing, depth + 1);
    }
  }
  parent.append(text.slice(at));
}

function draw(parent: Element, match: RegExpMatchArray, growing: boolean, depth: number): void {
  const [all, line, escaped, , code, label, address, angled, bare, strong, under, gone, em] = match;
  // Half an address leads nowhere.
  const target = address && !all.endsWith(")") ? "" : (address ?? angled ?? bare);
  if (line) add(parent, "br");
  else if (escaped) parent.append(escaped);
  else if (code) add(parent, "code").append(code.replace(/^ (.*\S.*) $/, "$1"));
  else if (target !== undefined) {
    // No link within a link.
    const inside = parent.closest("a") ? parent : link(parent, target.replace(/^<|>$/g, ""));
    if (label) inline(inside, label, growing, depth);
    else inside.append(target || all);
  } else {
    const name = strong || under ? "strong" : gone ? "s" : "em";
    const text = strong ?? under ?? gone ?? em ?? match[13] ?? "";
    inline(add(parent, name), text, growing, depth);
  }
}

function link(parent: Element, address: string): Element {
  const node = add(parent, "a");
  const url = safeUrl(address);
  if (url) {
    node.setAttribute("href", url);
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener nofollow noreferrer");
  }
  return node;
}
