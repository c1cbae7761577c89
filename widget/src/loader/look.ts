// How the launcher, its notice and the frame's place on the page look.

/** Where the open frame covers the page: on phones, upright or not, and at high zoom. */
export const SMALL = "(max-width:480px),(max-height:460px)";

export const STYLE = `
:host{all:initial;position:fixed;z-index:2147483000;color-scheme:normal;--a:#0f6b5a;--o:#fff;--g:#fff;--t:#1b201e}
:host([hidden]){display:none}
:host([data-theme=dark]){--a:#62d0b6;--o:#06241d;--g:#1b201f;--t:#e8edeb}
@media (prefers-color-scheme:dark){:host([data-theme=auto]){--a:#62d0b6;--o:#06241d;--g:#1b201f;--t:#e8edeb}}
.launch{all:unset;position:fixed;right:20px;bottom:20px;box-sizing:border-box;display:grid;place-items:center;width:56px;height:56px;border-radius:50% 50% 50% 34%;background:var(--a);color:var(--o);cursor:pointer;box-shadow:0 4px 20px rgb(0 0 0/25%)}
.launch:hover{filter:brightness(1.1)}
button:focus-visible{outline:3px solid var(--a);outline-offset:2px}
.launch[data-unread]::after{content:attr(data-unread);position:absolute;top:-4px;right:-4px;min-width:8px;padding:0 5px;border:2px solid #fff;border-radius:12px;background:#c5221f;color:#fff;font:12px/18px system-ui,sans-serif;text-align:center}
iframe,.card{box-sizing:border-box;position:fixed;right:20px;bottom:90px;border:0;border-radius:18px;box-shadow:0 0 0 1px rgb(128 128 128/40%),0 16px 56px rgb(0 0 0/22%)}
iframe{width:400px;height:min(660px,calc(100dvh - 110px));}
.card{width:300px;padding:14px 16px;background:var(--g);color:var(--t);font:14px system-ui,sans-serif;animation:late 1s}
@keyframes late{from,99%{visibility:hidden}}
.card p{margin:0 0 6px}
.card button{all:unset;margin-right:16px;font-weight:600;text-decoration:underline;cursor:pointer}
iframe[hidden],.card[hidden],.card [hidden]{display:none}
@media ${SMALL}{iframe{inset:0;width:100%;height:100dvh;border-radius:0;box-shadow:none}:host([data-full]) .launch{display:none}}
@media (forced-colors:active){.launch,.card,iframe{border:2px solid CanvasText}}
@media print{:host{display:none}}`;

function shape(name: string, attributes: Record<string, string>): SVGElement {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) node.setAttribute(key, attributes[key] ?? "");
  return node;
}

export function icon(): SVGElement {
  const svg = shape("svg", { viewBox: "0 0 24 24", width: "26", "aria-hidden": "true" });
  const d = "M5 18.5V8a3 3 0 0 1 3-3h8a3 3 0 0 1 3 3v5a3 3 0 0 1-3 3H8.5zM9 9.5h6M9 12.5h4";
  svg.append(
    shape("path", {
      d,
      fill: "none",
      stroke: "currentColor",
      "stroke-width": "2",
      "stroke-linejoin": "round",
    }),
  );
  return svg;
}
