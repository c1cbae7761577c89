// Markdown as DOM nodes, block by block as it arrives. Blocks that are over are never touched again;
// only the one that is being written is drawn anew with each piece.

import { add, inline, MOST_DEPTH } from "./inline.ts";
import * as WORDS from "./words.ts";

const FENCE = /^ {0,3}(`{3,}|~{3,})[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s(.*))?$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*(?:[-*+]|(\d{1,9})[.)]))(?:(\s+)(.*))?$/;
const INDENTED = /^(?: {4}|\t)/;
const COLUMNS = /^\|?(?:\s*:?-+:?\s*\|)*(?:\s*:?-+:?)?$/;
/** What ends a paragraph without an empty line: a number only if it is a 1, for "in\n1990. Then". */
const START = /^ {0,3}(?:#{1,6}\s|>|`{3}|~{3}|(?:[-*+]|1[.)])\s+\S)/;
/** The beginning of a line that may become many things: it waits for what follows. */
const UNCLEAR = /^\s*(?:[-*+_#>`~|]+|\d+[.)]?)(?:\s+\[[ xX]?\]?)?\s*$/;
const BOX = /^\[([ xX])\]\s+(?=\S)/;
const CELL_END = /(?<!\\)\|/;

const isBlank = (line: string | undefined): boolean => !line?.trim();
const indentOf = (line: string): number =>
  (/^[ \t]*/.exec(line)?.[0] ?? "").replaceAll("\t", "    ").length;

/**
 * A block that finds its own direction from its first letters. The first in a quote, an item or a
 * table gives its direction to the whole, which finds none of its own in what has one already.
 */
function block(parent: Element, name: string): HTMLElement {
  const node = add(parent, name);
  const leads = /^(LI|BLOCKQUOTE|TABLE|LABEL)$/.test(parent.nodeName) && parent.firstChild === node;
  if (!leads) node.dir = "auto";
  return node;
}

interface Block {
  /** The first line after it. */
  next: number;
  draw(parent: Element, growing: boolean): void;
}

/** The lines from `at` for as long as `belongs` says so. */
function take(lines: readonly string[], at: number, belongs: (line: string) => boolean): string[] {
  const end = lines.findIndex((line, index) => index >= at && !belongs(line));
  return lines.slice(at, end < 0 ? lines.length : end);
}

function readBlock(lines: readonly string[], at: number, depth: number, bare: boolean): Block {
  const line = lines[at] ?? "";
  const fence = FENCE.exec(line)?.[1];
  if (fence) {
    const end = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
    const code = take(lines, at + 1, (one) => !end.test(one));
    return { next: at + code.length + 2, draw: (parent) => drawCode(parent, code) };
  }
  if (INDENTED.test(line)) {
    const code = take(lines, at, (one) => INDENTED.test(one));
    const draw = (parent: Element) =>
      drawCode(
        parent,
        code.map((one) => one.replace(INDENTED, "")),
      );
    return { next: at + code.length, draw };
  }
  const heading = HEADING.exec(line);
  if (heading) {
    // The frame's own heading is an h1, so those of an answer begin below it.
    const name = `h${Math.min((heading[1] ?? "").length + 1, 6)}`;
    const text = (heading[2] ?? "").trim().replace(/ #+$/, "");
    const draw = (parent: Element, growing: boolean) => inline(block(parent, name), text, growing);
    return { next: at + 1, draw };
  }
  if (RULE.test(line)) return { next: at + 1, draw: (parent) => void add(parent, "hr") };
  if (depth < MOST_DEPTH && QUOTE.test(line)) {
    const quoted = take(lines, at, (one) => QUOTE.test(one));
    const inner = quoted.map((one) => one.replace(QUOTE, ""));
    const draw = (parent: Element, growing: boolean) =>
      drawBlocks(block(parent, "blockquote"), inner, growing, depth + 1);
    return { next: at + quoted.length, draw };
  }
  if (depth < MOST_DEPTH && ITEM.test(line)) return readList(lines, at, depth);
  const below = lines[at + 1]?.trim();
  if (line.includes("|") && below?.includes("|") && COLUMNS.test(below)) {
    const rows = take(lines, at, (one) => one.includes("|"));
    const draw = (parent: Element, growing: boolean) => drawTable(parent, rows, growing);
    return { next: at + rows.length, draw };
  }
  const starts = (one: string) => START.test(one) || RULE.test(one);
  const rest = take(lines, at + 1, (one) => !isBlank(one) && !starts(one));
  const text = [line, ...rest].join("\n").trim();
  const draw = (parent: Element, growing: boolean) =>
    inline(bare ? parent : block(parent, "p"), text, growing);
  return { next: at + 1 + rest.length, draw };
}

function drawCode(parent: Element, lines: readonly string[]): void {
  if (lines.length === 0) return;
  const text = lines.join("\n");
  add(scrolling(add(parent, "pre")), "code").append(text);
  const { clipboard } = navigator;
  // Only pages from a safe origin may write there.
  if (!clipboard) return;
  const button = add(parent, "button");
  button.setAttribute("type", "button");
  button.append(WORDS.copy);
  const copied = () => button.replaceChildren(WORDS.copied);
  // Where the browser refuses, the word simply stays: the code can still be selected.
  button.addEventListener("click", () => void clipboard.writeText(text).then(copied, () => {}));
}

/** What scrolls sideways must be reachable by keyboard. */
function scrolling(node: HTMLElement): HTMLElement {
  node.tabIndex = 0;
  return node;
}

const cellsOf = (row: string): string[] =>
  row
    .trim()
    .replace(/^\||(?<!\\)\|$/g, "")
    .split(CELL_END)
    .map((cell) => cell.trim());

/** What the row below the head says of a column: `:--`, `--:` or `:-:`. */
const alignment = (column = ""): string =>
  ["", "left", "right", "center"][+column.startsWith(":") + 2 * +column.endsWith(":")] ?? "";

function drawTable(parent: Element, rows: readonly string[], growing: boolean): void {
  const table = scrolling(block(parent, "table"));
  const [head = [], columns = [], ...body] = rows.map(cellsOf);
  for (const cells of [head, ...body]) {
    const line = add(table, "tr");
    // A row has as many cells as the table has columns, whatever was written.
    for (let at = 0; at < Math.max(head.length, columns.length); at += 1) {
      const cell =
        cells === head && at === 0 ? add(line, "th") : block(line, cells === head ? "th" : "td");
      if (cells === head) cell.setAttribute("scope", "col");
      cell.style.textAlign = alignment(columns[at]);
      inline(cell, (cells[at] ?? "").replaceAll("\\|", "|"), growing);
    }
  }
}

function readList(lines: readonly string[], at: number, depth: number): Block {
  const first = lines[at] ?? "";
  const base = indentOf(first) + 2;
  const start = ITEM.exec(first)?.[2];
  const items: string[][] = [];
  let width = 0;
  let next = at;
  for (; next < lines.length; next += 1) {
    const line = lines[next] ?? "";
    const item = ITEM.exec(line);
    const held = items.at(-1);
    if (held && isBlank(line)) held.push("");
    else if (held && indentOf(line) >= base) {
      held.push(line.replace(new RegExp(`^(?:\\t| {0,${width}})`), ""));
    } else if (item && !item[2] === !start && !RULE.test(line)) {
      items.push([item[4] ?? ""]);
      width = (item[1] ?? "").length + (item[3] ?? "").length;
    } else if (held && !isBlank(lines[next - 1]) && !START.test(line) && !item) held.push(line);
    else break;
  }
  const draw = (parent: Element, growing: boolean) => {
    const list = add(parent, start ? "ol" : "ul");
    if (start && start !== "1") list.setAttribute("start", start);
    for (const item of items) {
      while (item.length > 1 && isBlank(item.at(-1))) item.pop();
      drawItem(list, item, growing, depth + 1);
    }
  };
  return { next, draw };
}

function drawItem(list: Element, lines: string[], growing: boolean, depth: number): void {
  const node = add(list, "li");
  node.dir = "auto";
  const tight = !lines.some(isBlank);
  const box = BOX.exec(lines[0] ?? "");
  if (box) {
    // A task: for reading only, and its words are the name of its box.
    node.className = "task";
    const label = add(node, "label");
    const input = label.appendChild(document.createElement("input"));
    input.type = "checkbox";
    input.disabled = true;
    input.defaultChecked = box[1] !== " ";
    lines[0] = (lines[0] ?? "").slice(box[0].length);
    const first = readBlock(lines, 0, depth, true);
    first.draw(label, growing && first.next >= lines.length);
    lines.splice(0, first.next);
  }
  drawBlocks(node, lines, growing, depth, tight);
}

function drawBlocks(
  parent: Element,
  lines: readonly string[],
  growing: boolean,
  depth: number,
  bare = false,
): void {
  for (let at = 0; at < lines.length; ) {
    if (isBlank(lines[at])) at += 1;
    else {
      const block = readBlock(lines, at, depth, bare);
      at = block.next;
      block.draw(parent, growing && at >= lines.length);
    }
  }
}

/** Draws one growing text into `root`. */
export class MarkdownWriter {
  #root: Element;
  #written = "";
  #ended = false;
  /** Where in the text the first block begins that may still change, and how many nodes are before it. */
  #from = 0;
  #kept = 0;

  constructor(root: Element) {
    this.#root = root;
  }

  /** Draws what `text` has beyond what is drawn; begins anew if it is another text. */
  write(text: string, final: boolean): void {
    const grows = !this.#ended && text.startsWith(this.#written);
    if (!grows) {
      if (text === this.#written && final) return;
      this.#from = this.#kept = 0;
    }
    this.#written = text;
    this.#ended = final;
    const root = this.#root;
    while (root.childNodes.length > this.#kept) root.lastChild?.remove();
    const lines = text.slice(this.#from).split("\n");
    if (!final && UNCLEAR.test(lines.at(-1) ?? "")) lines[lines.length - 1] = "";
    let offset = this.#from;
    for (let at = 0; at < lines.length; ) {
      let next = at + 1;
      if (!isBlank(lines[at])) {
        const block = readBlock(lines, at, 0, false);
        next = Math.min(block.next, lines.length);
        // A block whose first line is whole ends everything before it.
        if (next > at && at < lines.length - 1) {
          this.#from = offset;
          this.#kept = root.childNodes.length;
        }
        block.draw(root, !final && next >= lines.length);
      }
      for (; at < next; at += 1) offset += (lines[at] ?? "").length + 1;
    }
  }
}
