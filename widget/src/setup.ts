// The page that the server sends in place of the frame when the set-up is wrong, and to a launcher
// that only wants to know: it tells the page around it, and nothing else.

import type { ToHost } from "./embedding.ts";

const { refused } = document.documentElement.dataset;
const reason = document.body.textContent.trim();
const message: ToHost = refused ? { hubbub: "refused", reason } : { hubbub: "fine" };
// Whoever embeds it may know this: it is about themselves.
if (parent !== window) parent.postMessage(message, "*");
