// The script tag on the host's page: a launcher button, and the frame it opens. It touches nothing
// else of the page, needs no inline style or script, and believes only its own frame.
//
//   <script src="https://host/widget.js" data-bot="<uuid>" async></script>
//   data-open: open at once, unless the frame would cover the page, as it does on a phone
//   data-theme: auto, light, dark · data-label: the button's words

import { Launcher } from "./loader/launcher.ts";

const script = document.currentScript as HTMLScriptElement | null;

function start(source: HTMLScriptElement): void {
  const { bot = "", theme = "auto", label = "Chat with us" } = source.dataset;
  // A proxy may offer the server below a path.
  const { href: base, origin: server } = new URL(".", source.src);
  if (!/^[0-9a-f-]{36}$/i.test(bot)) {
    console.error("Hubbub: data-bot is no bot's id.");
    return;
  }
  if (self.origin === "null") {
    console.error("Hubbub: no origin.");
    return;
  }
  const launcher = new Launcher({ server, base, bot, theme, label });
  const mount = () => launcher.mount(source.hasAttribute("data-open"));
  if (document.body) mount();
  else document.addEventListener("DOMContentLoaded", mount);
}

if (script) start(script);
