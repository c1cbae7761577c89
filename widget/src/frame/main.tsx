// Starts the frame at /widget/<bot>: in an iframe that the loader made, or as a page of its own.

import { h, render } from "preact";
import { networkChanged, sharedChanged } from "../client/actions.ts";
import { browserEnvironment } from "../client/environment.ts";
import { checkSocket } from "../client/inbound.ts";
import { openChat } from "../client/open.ts";
import { App } from "./app.tsx";
import { Host } from "./host.ts";

const BOT = /\/widget\/([0-9a-f-]{36})\/?$/i;

function start(root: HTMLElement): void {
  const found = BOT.exec(location.pathname);
  const bot = found?.[1] ?? "";
  // A proxy may offer the server below a path.
  const server = location.origin + location.pathname.slice(0, found?.index ?? 0);
  const chat = openChat(browserEnvironment(window), server, bot.toLowerCase());
  let openings = 0;
  let looks = 0;
  const host = new Host(window, (message) => {
    if (message.hubbub === "opened" && message.focus !== false) openings += 1;
    look();
  });
  const look = () => {
    looks += 1;
    render(<App chat={chat} host={host} looks={looks} openings={openings} />, root);
  };
  window.addEventListener("online", () => networkChanged(chat, true));
  window.addEventListener("offline", () => networkChanged(chat, false));
  window.addEventListener("storage", () => sharedChanged(chat));
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    checkSocket(chat);
    look();
  });
  // A page in the back-forward cache keeps its state but loses its socket.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) checkSocket(chat);
  });
  look();
  chat.connection.start();
  host.tell({ hubbub: "ready" });
}

const root = document.getElementById("chat");
if (root) start(root);
