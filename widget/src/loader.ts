// The script tag on the host's page: a launcher button, and the frame it opens. It touches nothing
// else of the page, needs no inline style or script, and believes only its own frame.
//
//   <script src="https://host/widget.js" data-bot="<uuid>" async></script>
//   data-open: open at once, unless the frame would cover the page, as it does on a phone
//   data-theme: auto, light, dark · data-label: the button's words

import type { FromHost, ToHost } from "./embedding.ts";

const script = document.currentScript as HTMLScriptElement | null;

/** Up to this width the open frame covers the page. */
const SMALL_PX = 480;

const STYLE = `
:host{all:initial;position:fixed;inset:auto 0 0 auto;z-index:2147483000;color-scheme:normal;--a:#0f6b5a;--o:#fff}
:host([data-theme=dark]){--a:#62d0b6;--o:#06241d}
@media (prefers-color-scheme:dark){:host([data-theme=auto]){--a:#62d0b6;--o:#06241d}}
button{all:unset;position:fixed;right:20px;bottom:20px;box-sizing:border-box;display:grid;place-items:center;width:56px;height:56px;border-radius:50% 50% 50% 34%;background:var(--a);color:var(--o);cursor:pointer;box-shadow:0 2px 6px rgb(0 0 0/16%),0 8px 28px rgb(0 0 0/18%);transition:transform .15s}
button:hover{transform:scale(1.05)}
button:focus-visible{outline:3px solid var(--a);outline-offset:3px}
button.new::after{content:"";position:absolute;top:0;right:0;width:12px;height:12px;border-radius:50%;background:#d93025;border:2px solid #fff}
iframe{position:fixed;right:20px;bottom:90px;width:400px;height:min(660px,calc(100dvh - 110px));border:0;border-radius:18px;box-shadow:0 4px 12px rgb(0 0 0/10%),0 16px 56px rgb(0 0 0/22%);background:transparent;color-scheme:normal}
iframe[hidden]{display:none}
@media (max-width:${SMALL_PX}px){iframe{inset:0;width:100%;height:100dvh;border-radius:0}button[aria-expanded=true]{display:none}}
@media (prefers-reduced-motion:reduce){button{transition:none}}
@media (forced-colors:active){button{border:2px solid ButtonText}}
@media print{:host{display:none}}`;

function icon(): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("width", "26");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute(
    "d",
    "M5 18.5V8a3 3 0 0 1 3-3h8a3 3 0 0 1 3 3v5a3 3 0 0 1-3 3H8.5zM9 9.5h6M9 12.5h4",
  );
  path.setAttribute("fill", "none");
  path.setAttribute("stroke", "currentColor");
  path.setAttribute("stroke-width", "1.8");
  path.setAttribute("stroke-linecap", "round");
  path.setAttribute("stroke-linejoin", "round");
  svg.append(path);
  return svg;
}

function start(source: HTMLScriptElement): void {
  const { bot, theme = "auto", label = "Chat with us" } = source.dataset;
  const server = new URL(source.src).origin;
  if (!bot || !/^[0-9a-f-]{36}$/i.test(bot)) {
    console.error("Hubbub: data-bot must be the id of a bot.");
    return;
  }

  const host = document.createElement("div");
  host.dataset.theme = theme;
  const shadow = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  shadow.adoptedStyleSheets = [sheet];

  const button = document.createElement("button");
  button.type = "button";
  button.append(icon());
  shadow.append(button);

  let frame: HTMLIFrameElement | null = null;
  let isOpen = false;
  let unread = false;

  const draw = () => {
    button.setAttribute("aria-expanded", String(isOpen));
    button.setAttribute("aria-label", unread ? `${label} (new message)` : label);
    button.title = label;
    button.className = unread ? "new" : "";
    if (frame) frame.hidden = !isOpen;
  };
  const tell = () => {
    const message: FromHost = { hubbub: isOpen ? "opened" : "closed", theme };
    frame?.contentWindow?.postMessage(message, server);
  };
  const toggle = (open: boolean, focus: boolean) => {
    isOpen = open;
    if (open) unread = false;
    if (open && !frame) frame = makeFrame();
    draw();
    tell();
    if (!focus) return;
    if (open) frame?.focus();
    else button.focus();
  };
  // Made at the first opening: a page view without a chat costs one small script.
  const makeFrame = () => {
    const made = document.createElement("iframe");
    made.title = label;
    made.setAttribute("sandbox", "allow-scripts allow-forms allow-popups allow-same-origin");
    made.allow = "clipboard-write";
    const hash = new URLSearchParams({ host: location.origin, theme });
    made.src = `${server}/widget/${bot}#${hash}`;
    shadow.append(made);
    return made;
  };

  button.addEventListener("click", () => toggle(!isOpen, true));
  button.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isOpen) toggle(false, true);
  });
  window.addEventListener("message", (event) => {
    if (!frame || event.source !== frame.contentWindow || event.origin !== server) return;
    const said = (event.data as ToHost | null)?.hubbub;
    if (said === "ready") tell();
    else if (said === "close" && isOpen) toggle(false, true);
    else if (said === "unread" && !isOpen) {
      unread = true;
      draw();
    }
  });

  const mount = () => {
    document.body.append(host);
    toggle(source.hasAttribute("data-open") && innerWidth > SMALL_PX, false);
  };
  if (document.body) mount();
  else document.addEventListener("DOMContentLoaded", mount);
}

if (script) start(script);
