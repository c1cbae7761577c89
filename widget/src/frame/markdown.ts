// Markdown as DOM nodes, piece by piece as it arrives. Text only ever becomes text nodes; elements
// come from the closed list below; a link keeps its address only if it is http, https or mailto.
// Images become links: fetching one would tell its host who is reading.

import * as smd from "streaming-markdown";

const SCHEMES = new Set(["http:", "https:", "mailto:"]);
/** Deeper nesting than this is drawn flat; no honest answer needs it. */
const MOST_DEPTH = 16;

const ELEMENTS: Partial<Record<smd.Token, string>> = {
  [smd.BLOCKQUOTE]: "blockquote",
  [smd.PARAGRAPH]: "p",
  [smd.LINE_BREAK]: "br",
  [smd.RULE]: "hr",
  // The frame's own heading is an h1, so those of an answer begin below it.
  [smd.HEADING_1]: "h2",
  [smd.HEADING_2]: "h3",
  [smd.HEADING_3]: "h4",
  [smd.HEADING_4]: "h5",
  [smd.HEADING_5]: "h6",
  [smd.HEADING_6]: "h6",
  [smd.ITALIC_AST]: "em",
  [smd.ITALIC_UND]: "em",
  [smd.STRONG_AST]: "strong",
  [smd.STRONG_UND]: "strong",
  [smd.STRIKE]: "s",
  [smd.CODE_INLINE]: "code",
  [smd.RAW_URL]: "a",
  [smd.LINK]: "a",
  [smd.IMAGE]: "a",
  [smd.LIST_UNORDERED]: "ul",
  [smd.LIST_ORDERED]: "ol",
  [smd.LIST_ITEM]: "li",
  [smd.TABLE]: "table",
  [smd.TABLE_ROW]: "tr",
};

/** The address if it may be followed, else `null`. */
export function safeUrl(address: string): string | null {
  try {
    // Without a base, what is relative does not parse: an answer cannot point into this origin.
    const url = new URL(address);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

interface Cursor {
  path: Element[];
  parser: smd.Parser | null;
}

function open(cursor: Cursor, token: smd.Token): void {
  const top = cursor.path.at(-1);
  if (!top || token === smd.DOCUMENT) return;
  if (token === smd.EQUATION_BLOCK || token === smd.EQUATION_INLINE) {
    refuseEquation(cursor, top, token);
    return;
  }
  let node = top;
  if (cursor.path.length <= MOST_DEPTH) {
    if (token === smd.CODE_BLOCK || token === smd.CODE_FENCE) {
      node = top.appendChild(document.createElement("pre"));
      // A block of code scrolls sideways, and so must be reachable by keyboard.
      node.setAttribute("tabindex", "0");
      node = node.appendChild(document.createElement("code"));
    } else {
      const heads = top.parentElement?.childElementCount === 1;
      const name =
        token === smd.TABLE_CELL
          ? heads
            ? "th"
            : "td"
          : token === smd.CHECKBOX
            ? "span"
            : ELEMENTS[token];
      if (name) node = top.appendChild(document.createElement(name));
      if (token === smd.CHECKBOX) node.textContent = "☐ ";
    }
  }
  cursor.path.push(node);
}

/**
 * Formulas are not set here, and `$HOME` is none: the parser would take all that follows for one.
 * So its token is taken back, and the signs stay as they were written.
 */
function refuseEquation({ parser }: Cursor, top: Element, token: smd.Token): void {
  if (!parser) return;
  parser.len -= 1;
  parser.token = (parser.tokens[parser.len] ?? smd.DOCUMENT) as smd.Token;
  const block = token === smd.EQUATION_BLOCK;
  top.append(parser.pending[0] === "$" ? parser.pending : block ? "[" : "(", block ? "\n" : "");
}

function shut(cursor: Cursor): void {
  if (cursor.path.length > 1) cursor.path.pop();
}

function attribute(cursor: Cursor, kind: smd.Attr, value: string): void {
  const node = cursor.path.at(-1);
  if (!node) return;
  if ((kind === smd.HREF || kind === smd.SRC) && node.localName === "a") {
    const url = safeUrl(value);
    if (!url) return;
    node.setAttribute("href", url);
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener nofollow noreferrer");
    if (kind === smd.SRC && !node.textContent) node.setAttribute("aria-label", url);
  } else if (kind === smd.START && node.localName === "ol" && /^\d{1,6}$/.test(value)) {
    node.setAttribute("start", value);
  } else if (kind === smd.CHECKED && node.localName === "span") {
    node.textContent = "☑ ";
  }
}

/** Draws one growing text into `root`. */
export class MarkdownWriter {
  #root: Element;
  #parser: smd.Parser;
  #written = "";
  #ended = false;

  constructor(root: Element) {
    this.#root = root;
    this.#parser = this.#begin();
  }

  /** Draws what `text` has beyond what is drawn; begins anew if it is another text. */
  write(text: string, final: boolean): void {
    const grows = !this.#ended && text.startsWith(this.#written);
    if (!grows) {
      if (text === this.#written && final) return;
      this.#root.replaceChildren();
      this.#parser = this.#begin();
      this.#written = "";
    }
    try {
      smd.parser_write(this.#parser, text.slice(this.#written.length));
      if (final) smd.parser_end(this.#parser);
    } catch {
      // Markdown that the parser cannot take is shown as it was written.
      this.#root.textContent = text;
      this.#ended = true;
    }
    this.#written = text;
    this.#ended ||= final;
  }

  #begin(): smd.Parser {
    this.#ended = false;
    const cursor: Cursor = { path: [this.#root], parser: null };
    cursor.parser = smd.parser({
      data: cursor,
      add_token: open,
      end_token: shut,
      add_text: (data: Cursor, text: string) => data.path.at(-1)?.append(text),
      set_attr: attribute,
    } as smd.Any_Renderer);
    return cursor.parser;
  }
}
