// Markdown as the frame draws it, told as HTML.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { launch } from "./browser.ts";

let browser: Browser;
let page: Page;

before(async () => {
  browser = await launch();
  page = await browser.newPage();
  const { outputFiles } = await build({
    entryPoints: ["src/frame/markdown.ts"],
    bundle: true,
    write: false,
    format: "iife",
    globalName: "markdown",
  });
  await page.evaluate((code) => {
    Object.assign(globalThis, new Function(`${code}; return markdown`)());
  }, outputFiles[0]?.text ?? "");
});
after(() => browser.close());

/** What is drawn after these pieces; `final`: nothing more will come. Directions are told elsewhere. */
async function drawn(pieces: string[], final = true): Promise<string> {
  return (await whole(pieces, final)).replaceAll(' dir="auto"', "");
}

function whole(pieces: string[], final = true): Promise<string> {
  return page.evaluate(
    ([pieces, final]) => {
      const { MarkdownWriter } = globalThis as never as {
        MarkdownWriter: new (root: Element) => { write(text: string, final: boolean): void };
      };
      const root = document.createElement("div");
      const writer = new MarkdownWriter(root);
      let text = "";
      for (const piece of pieces) {
        text += piece;
        writer.write(text, false);
      }
      if (final) writer.write(text, true);
      return root.innerHTML
        .replaceAll(' target="_blank" rel="noopener nofollow noreferrer"', "")
        .replaceAll(' tabindex="0"', "");
    },
    [pieces, final] as const,
  );
}

const LINK = '<a href="https://ok.example/">x</a>';
const TASK = (done: boolean, words: string, more = "") =>
  `<li class="task"><label><input type="checkbox" disabled=""${done ? ' checked=""' : ""}>${words}</label>${more}</li>`;
const STYLE = (align: string) => (align ? ` style="text-align: ${align};"` : "");
const TH = (text: string, align = "") => `<th scope="col"${STYLE(align)}>${text}</th>`;
const TD = (text: string, align = "") => `<td${STYLE(align)}>${text}</td>`;
const CASES: [string, string][] = [
  // Paragraphs and breaks
  ["a\nb\n\nc", "<p>a<br>b</p><p>c</p>"],
  ["a  \nb\\\nc", "<p>a<br>b<br>c</p>"],
  // Emphasis, and what only looks like it
  [
    "**a** *b* __c__ _d_ ~~e~~",
    "<p><strong>a</strong> <em>b</em> <strong>c</strong> <em>d</em> <s>e</s></p>",
  ],
  ["***a***", "<p><strong><em>a</em></strong></p>"],
  ["*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>"],
  ["**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"],
  ["a_b_c 2 * 3 * 4 ** x **", "<p>a_b_c 2 * 3 * 4 ** x **</p>"],
  ["_snake_case_", "<p><em>snake_case</em></p>"],
  ["**open", "<p>**open</p>"],
  ["\\*a\\* \\[x\\](y)", "<p>*a* [x](y)</p>"],
  // Code
  ["`a` ``b`c`` ` d `", "<p><code>a</code> <code>b`c</code> <code>d</code></p>"],
  ["`**a** [x](y)`", "<p><code>**a** [x](y)</code></p>"],
  ["```js\na\n\n  b\n```\nc", "<pre><code>a\n\n  b</code></pre><p>c</p>"],
  ["~~~\n```\n~~~", "<pre><code>```</code></pre>"],
  ["````\n```\n````", "<pre><code>```</code></pre>"],
  ["```\nopen", "<pre><code>open</code></pre>"],
  ["    a\n    b\n\nc", "<pre><code>a\nb</code></pre><p>c</p>"],
  ["a\n\n```sh", "<p>a</p>"],
  // Links: no brackets are lost that are none
  ["[x](https://ok.example)", `<p>${LINK}</p>`],
  ['[x](https://ok.example "title") [x](<https://ok.example>)', `<p>${LINK} ${LINK}</p>`],
  ["arr[0] and [1] and [a](", "<p>arr[0] and [1] and [a](</p>"],
  ["[a](b\n\nmore", "<p>[a](b</p><p>more</p>"],
  ["[x](javascript:alert(1))", "<p><a>x</a></p>"],
  ["[x](/path)", "<p><a>x</a></p>"],
  ["![x](https://ok.example)", `<p>${LINK}</p>`],
  ["![](https://ok.example)", '<p><a href="https://ok.example/">https://ok.example</a></p>'],
  [
    "[https://a.example](https://ok.example)",
    '<p><a href="https://ok.example/">https://a.example</a></p>',
  ],
  [
    "see https://a.example/b_(c), or",
    '<p>see <a href="https://a.example/b_(c)">https://a.example/b_(c)</a>, or</p>',
  ],
  ["(https://a.example/b).", '<p>(<a href="https://a.example/b">https://a.example/b</a>).</p>'],
  ["<mailto:a@b.example>", '<p><a href="mailto:a@b.example">mailto:a@b.example</a></p>'],
  [
    "[a **b**](https://ok.example)",
    '<p><a href="https://ok.example/">a <strong>b</strong></a></p>',
  ],
  // Headings, rules, quotes
  ["# a\n## b ##\n###### c\n#d", "<h2>a</h2><h3>b</h3><h6>c</h6><p>#d</p>"],
  ["a\n---\n* * *", "<p>a</p><hr><hr>"],
  ["> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"],
  // Lists
  [
    "- a\n- b\n  - c\n    - d\n- e",
    "<ul><li>a</li><li>b<ul><li>c<ul><li>d</li></ul></li></ul></li><li>e</li></ul>",
  ],
  ["1. a\n2. b", "<ol><li>a</li><li>b</li></ol>"],
  ["3. a\n\n4. b\n\nc", '<ol start="3"><li>a</li><li>b</li></ol><p>c</p>'],
  [
    "1. a\n\n   b\n\n   ```\n   c\n   ```\n2. d",
    "<ol><li><p>a</p><p>b</p><pre><code>c</code></pre></li><li>d</li></ol>",
  ],
  ["1. a\n  - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"],
  ["- a\nb", "<ul><li>a<br>b</li></ul>"],
  ["- a\n1. b", "<ul><li>a</li></ul><ol><li>b</li></ol>"],
  ["a:\n- b", "<p>a:</p><ul><li>b</li></ul>"],
  ["in\n1990. Then", "<p>in<br>1990. Then</p>"],
  // W7
  [
    "- [x] a\n- [ ] **b**\n  - [X] c",
    `<ul>${TASK(true, "a")}${TASK(false, "<strong>b</strong>", `<ul>${TASK(true, "c")}</ul>`)}</ul>`,
  ],
  ["1. [ ] a\n2. b", `<ol>${TASK(false, "a")}<li>b</li></ol>`],
  ["- [ ] a\n\n  b\n- [x] c", `<ul>${TASK(false, "a", "<p>b</p>")}${TASK(true, "c")}</ul>`],
  ["- [ ]\n- [y] b\n- [x]c", "<ul><li>[ ]</li><li>[y] b</li><li>[x]c</li></ul>"],
  // Tables
  [
    "| a | b |\n|---|:-:|\n| 1 | `x` \\| y |\nc",
    `<table><tr>${TH("a")}${TH("b", "center")}</tr><tr><td>1</td>${TD("<code>x</code> | y", "center")}</tr></table><p>c</p>`,
  ],
  // W7
  [
    "a | b | c | d\n:-- | --: | :-: | ---\n1 | 2 | `3 \\| 3` | 4",
    `<table><tr>${TH("a", "left")}${TH("b", "right")}${TH("c", "center")}${TH("d")}</tr>` +
      `<tr>${TD("1", "left")}${TD("2", "right")}${TD("<code>3 | 3</code>", "center")}${TD("4")}</tr></table>`,
  ],
  // A row has as many cells as the table.
  [
    "|a|b|\n|:-|-:|\n|1|\n|1|2|3|",
    `<table><tr>${TH("a", "left")}${TH("b", "right")}</tr><tr>${TD("1", "left")}${TD("", "right")}</tr>` +
      `<tr>${TD("1", "left")}${TD("2", "right")}</tr></table>`,
  ],
  ["a | b", "<p>a | b</p>"],
  // What is not markdown
  ["$5 and $10, $HOME, \\$x", "<p>$5 and $10, $HOME, $x</p>"],
  ["<b>a</b> &amp; &lt;", "<p>&lt;b&gt;a&lt;/b&gt; &amp;amp; &amp;lt;</p>"],
];

test("each construct is drawn, whole and letter by letter", async () => {
  for (const [text, html] of CASES) {
    assert.equal(await drawn([text]), html, text);
    assert.equal(await drawn(text.split("")), html, `letter by letter: ${text}`);
  }
});

test("an answer that is being written shows what its next words will make true", async () => {
  const cases: [string, string][] = [
    ["**bo", "<p><strong>bo</strong></p>"],
    ["a `co", "<p>a <code>co</code></p>"],
    ["a\n\n-", "<p>a</p>"],
    ["a\n\n**", "<p>a</p>"],
    ["- a\n- [x](https://ok.ex", "<ul><li>a</li><li><a>x</a></li></ul>"],
    ["**a\n\nb", "<p>**a</p><p>b</p>"],
  ];
  for (const [text, html] of cases) assert.equal(await drawn([text], false), html, text);
});

// W6
test("every block finds its own direction; code is read from the left", async () => {
  const text = [
    "مرحبا (hello)!",
    "Hello (مرحبا)!",
    "# عنوان",
    "- واحد\n- two\n- [x] ثلاثة",
    "1. أول\n\n   بعد ذلك\n2. second",
    "> اقتباس\n>\n> quoted",
    "| اسم | price |\n|---|---|\n| تفاح | 3 |",
    "```\nرمز = code\n```",
  ].join("\n\n");
  const sides = await page.evaluate((text) => {
    const { MarkdownWriter } = globalThis as never as {
      MarkdownWriter: new (root: Element) => { write(text: string, final: boolean): void };
    };
    const root = document.createElement("div");
    root.className = "text";
    document.body.append(root);
    new MarkdownWriter(root).write(text, true);
    const of = (names: string) =>
      [...root.querySelectorAll(names)].map((one) => getComputedStyle(one).direction);
    const all = [
      "p",
      "h2",
      "ul > li",
      "ol > li",
      "ol p",
      "blockquote",
      "blockquote p",
      "table",
      "th, td",
    ];
    return Object.fromEntries(all.map((names) => [names, of(names).join(" ")]));
  }, text);
  assert.deepEqual(sides, {
    p: "rtl ltr rtl rtl rtl ltr",
    h2: "rtl",
    "ul > li": "rtl ltr rtl",
    "ol > li": "rtl ltr",
    "ol p": "rtl rtl",
    blockquote: "rtl",
    "blockquote p": "rtl ltr",
    table: "rtl",
    "th, td": "rtl ltr rtl ltr",
  });
});

test("blocks that are over are not touched while the next ones are written", async () => {
  const kept = await page.evaluate(() => {
    const { MarkdownWriter } = globalThis as never as {
      MarkdownWriter: new (root: Element) => { write(text: string, final: boolean): void };
    };
    const root = document.createElement("div");
    const writer = new MarkdownWriter(root);
    writer.write("# a\n\nb\n\n- c\n\nd\n", false);
    const before = [...root.children].slice(0, 3);
    writer.write("# a\n\nb\n\n- c\n\nd\ne\n\nf", false);
    writer.write("# a\n\nb\n\n- c\n\nd\ne\n\nf", true);
    return before.map((one, index) => one === root.children[index]);
  });
  assert.deepEqual(kept, [true, true, true]);
});

test("no text takes long", async () => {
  const pieces = [
    "*",
    "_",
    "**",
    "`",
    "[",
    "![",
    "(",
    "[x](",
    "> ",
    "- ",
    "#",
    " ",
    "\n",
    "|",
    "|-",
    "<",
    "~~",
    "\\",
  ];
  const slow = await page.evaluate((pieces) => {
    const { MarkdownWriter } = globalThis as never as {
      MarkdownWriter: new (root: Element) => { write(text: string, final: boolean): void };
    };
    return pieces.flatMap((piece) =>
      ["", "a", "[x]("].flatMap((before) => {
        const text = `${before}${piece.repeat(16_000 / piece.length)}x`;
        // A busy machine slows one run, a slow rule slows them all: the fastest counts.
        let fastest = Number.POSITIVE_INFINITY;
        for (let run = 0; run < 5 && fastest > 300; run++) {
          const begun = performance.now();
          new MarkdownWriter(document.createElement("div")).write(text, true);
          fastest = Math.min(fastest, performance.now() - begun);
        }
        return fastest > 300 ? [`${before}${piece}: ${Math.round(fastest)} ms`] : [];
      }),
    );
  }, pieces);
  assert.deepEqual(slow, []);
});
